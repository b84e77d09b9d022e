"""The demo's picture: it fits the terminal, and says what matters."""

from __future__ import annotations

import pytest

from console.board import Column, Picture, Row, draw, plain_line
from events import topology

_REASON = "the file is an HTML page, not a photo (named b.jpg): check the source address"


def _row(name: str, done: int, *, dead: bool = False) -> Row:
    outcomes = dict.fromkeys(topology.AGENTS[:done], "done")
    if dead:
        outcomes[topology.AGENTS[done]] = "dead"
    return Row(name=name, outcomes=outcomes, reason=_REASON if dead else "")


def _picture(*rows: Row, trouble: str = "") -> Picture:
    columns = [Column(agent=agent, waiting=3, trouble=trouble) for agent in topology.AGENTS]
    return Picture(title="Erni Foto Agency", rows=rows, columns=columns, seconds=12.4)


def _lines(picture: Picture, width: int = 80, height: int = 24, *, unicode: bool = True) -> list[str]:
    return draw(picture, width=width, height=height, unicode=unicode).plain.split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (70, 16)])
@pytest.mark.parametrize("photos", [0, 1, 15, 500])
def test_it_fits_the_terminal(width: int, height: int, photos: int) -> None:
    rows = [_row(f"2026-05-12_Seewen_Rohbau_{n:06}.jpg", n % 5, dead=n % 4 == 0) for n in range(photos)]
    lines = _lines(_picture(*rows, trouble="sharepoint"), width, height)
    assert max(len(line) for line in lines) <= width
    # One line is the cursor's.
    assert len(lines) < height


def test_the_demos_fifteen_photos_are_all_shown_on_80_by_24() -> None:
    rows = [_row(f"photo{n:02}.jpg", 2) for n in range(15)]
    text = "\n".join(_lines(_picture(*rows, trouble="sharepoint")))
    assert all(row.name in text for row in rows)


def test_a_row_shows_how_far_the_photo_is() -> None:
    lines = _lines(_picture(_row("a.jpg", 2), _row("b.jpg", 1, dead=True), _row("c.jpg", 5)))
    assert lines[2].split() == ["a.jpg", "✓", "✓", "●", "·", "·"]
    assert lines[3].split()[:3] == ["b.jpg", "✓", "✗"]
    assert "the file is an HTML page" in lines[3]
    assert lines[4].split() == ["c.jpg", "✓", "✓", "✓", "✓", "✓"]
    assert lines[0].endswith("2 of 3 done, 1 dead   12 s")


def test_a_wide_terminal_shows_more_of_a_reason() -> None:
    dead = _row("b.jpg", 1, dead=True)
    assert _REASON in "\n".join(_lines(_picture(dead), 160, 40))


def test_photos_under_way_are_shown_before_those_that_are_through() -> None:
    rows = [_row(f"through{n}.jpg", 5) for n in range(40)]
    rows += [_row(f"waits{n}.jpg", 0) for n in range(40)]
    rows += [_row("moves.jpg", 3)]
    text = "\n".join(_lines(_picture(*rows)))
    assert "moves.jpg" in text
    assert "through" not in text
    assert "… and 40 validated and 27 others" in text


def test_an_outage_is_said() -> None:
    lines = _lines(_picture(_row("a.jpg", 0), trouble="sharepoint"))
    assert lines[-1].strip().startswith("sharepoint cannot be used now")


def test_a_terminal_without_unicode_gets_plain_marks() -> None:
    text = "\n".join(_lines(_picture(_row("a.jpg", 2)), unicode=False))
    assert "+" in text
    assert "✓" not in text


def test_the_plain_line_counts_what_each_agent_has_done() -> None:
    line = plain_line(_picture(_row("a.jpg", 2), _row("b.jpg", 1, dead=True), trouble="vision"))
    assert line.startswith("1 of 2 done, 1 dead   12 s   extractor 2  fetcher 2  analyzer 0")
    assert "(vision cannot be used now)" in line
