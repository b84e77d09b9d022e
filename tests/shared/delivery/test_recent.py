"""What a process remembers of its last entries."""

from __future__ import annotations

from shared.delivery.recent import KEPT, Recent


def test_the_last_outcomes_are_kept_oldest_first() -> None:
    recent = Recent()
    for outcome in ("done", "dead", "postponed", "interrupted", "done"):
        recent.note([outcome], [0.1])
    assert recent.outcomes == ".x."
    for _ in range(2 * KEPT):
        recent.note(["dead"], [0.1])
    assert recent.outcomes == "x" * KEPT


def test_a_usual_duration_is_known_after_some_entries_and_a_change_shows_against_it() -> None:
    recent = Recent()
    for _ in range(19):
        recent.note(["done"], [0.05])
    assert recent.seconds_usual == 0
    for _ in range(30):
        recent.note(["done"], [0.05])
    for _ in range(8):
        recent.note(["done"], [1.0])
    assert recent.seconds_now > 0.8
    assert recent.seconds_usual < 0.2
