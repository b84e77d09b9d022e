"""What Swiss readers see of numbers, times and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.reports import german

if TYPE_CHECKING:
    from events.types import FieldText
    from shared.columns.schema import ColumnKind

ZURICH = german.zone("Europe/Zurich")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "0.04 s"),
        (1.25, "1.2 s"),
        (59.9, "59.9 s"),
        (59.97, "1 min 0 s"),
        (75.4, "1 min 15 s"),
        (3599.9, "1 h 0 min"),
        (7320, "2 h 2 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert german.duration(seconds) == text


def test_the_thousands_mark_is_an_apostrophe_from_five_places_on() -> None:
    assert [german.number(value) for value in (999, 2024, 12345, 1234567)] == [
        "999",
        "2024",
        "12\N{RIGHT SINGLE QUOTATION MARK}345",
        "1\N{RIGHT SINGLE QUOTATION MARK}234\N{RIGHT SINGLE QUOTATION MARK}567",
    ]


@pytest.mark.parametrize(
    ("amount", "text"), [(0.0, "USD 0.00"), (0.0061, "USD 0.0061"), (0.19, "USD 0.19"), (12.5, "USD 12.50")]
)
def test_amounts(amount: float, text: str) -> None:
    assert german.money(amount, "USD") == text


def test_sizes() -> None:
    assert [german.size(octets) for octets in (0, 4_200, 3_456_789)] == ["0.1 kB", "4.2 kB", "3.5 MB"]


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (None, "text", []),
        ("", "text", []),
        ([], "multi_choice", []),
        ("Rohbau", "choice", ["Rohbau"]),
        (["Dach", "Fassade"], "multi_choice", ["Dach", "Fassade"]),
        (True, "boolean", ["Ja"]),
        (False, "boolean", ["Nein"]),
        (74, "number", ["74"]),
        (0.25, "number", ["0.25"]),
        (12500.5, "number", ["12\N{RIGHT SINGLE QUOTATION MARK}500.5"]),
        ("2026-05-12", "date", ["12.05.2026"]),
        ("2026-05-11T22:30:00Z", "date", ["12.05.2026"]),
        ("2026-05-12T12:00:00Z", "date_time", ["12.05.2026, 14:00 MESZ"]),
        # a camera's clock names no zone: none is invented
        ("2026-05-12T12:00:00", "date_time", ["12.05.2026, 12:00"]),
        ("Frühling", "date", ["Frühling"]),
    ],
)
def test_values(value: FieldText, kind: ColumnKind, words: list[str]) -> None:
    assert german.value(value, kind, ZURICH) == words


def test_a_zone_that_the_machine_does_not_know_is_utc() -> None:
    assert german.moment(0, german.zone("Europe/Nowhere")) == "01.01.1970, 00:00 UTC"
    assert german.moment(0, ZURICH) == "01.01.1970, 01:00 MEZ"
