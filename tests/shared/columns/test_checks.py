from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from shared.columns.checks import check_value
from tests.shared.columns.columns import column

if TYPE_CHECKING:
    from events.types import FieldText
    from shared.columns.schema import Column

TEXT = column("Titel", max_length=10)
NOTE = column("Beschreibung", "note")
CHOICE = column("Holzart", "choice", "Fichte", "Lärche")
MULTI = column("Bauteil", "multi_choice", "Dach", "Treppe")
NUMBER = column("Geschoss", "number", minimum=-5.0, maximum=60.0)
FLAG = column("Geprüft", "boolean")
DAY = column("Datum", "date")
MOMENT = column("Zeitpunkt", "date_time")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (TEXT, "zehn Zeich"),
        (TEXT, "hartes\u00a0Leer"[:10]),
        (NOTE, "zwei\nZeilen\tund Tab"),
        (CHOICE, "Lärche"),
        (MULTI, ["Treppe", "Dach"]),
        (NUMBER, -5),
        (NUMBER, 60.0),
        (FLAG, False),
        (DAY, "2024-02-29"),
        (MOMENT, "2024-05-12T10:00:00Z"),
        (MOMENT, "2024-05-12T12:00:00+02:00"),
        *((each, None) for each in (TEXT, NOTE, CHOICE, MULTI, NUMBER, FLAG, DAY, MOMENT)),
        (TEXT, ""),
        (MULTI, []),
    ],
)
def test_a_value_that_fits_passes(where: Column, value: FieldText) -> None:
    assert check_value(where, value) is None


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        (TEXT, "elf Zeichen", "11 Zeichen, erlaubt sind 10"),
        (TEXT, "a\nb", "nur eine Zeile"),
        (TEXT, 7, "Erwartet wird Text"),
        (NOTE, "a\x00b", "Steuerzeichen"),
        (NOTE, "a\ud800b", "Steuerzeichen"),
        (CHOICE, "fichte", "«fichte» ist keine Auswahl"),
        (CHOICE, ["Fichte"], "genau eine Auswahl"),
        (MULTI, "Dach", "eine Liste"),
        (MULTI, ["Dach", "Keller", "Hof"], "«Keller», «Hof»"),
        (MULTI, ["Dach", "Dach"], "mehrfach"),
        (NUMBER, "3", "eine Zahl"),
        (NUMBER, True, "eine Zahl"),
        (NUMBER, math.nan, "eine Zahl"),
        (NUMBER, -6, "unter dem Minimum -5"),
        (NUMBER, 61, "über dem Maximum 60"),
        (FLAG, 1, "Ja oder Nein"),
        (FLAG, "true", "Ja oder Nein"),
        (DAY, "12.05.2024", "kein Datum"),
        (DAY, "20240512", "kein Datum"),
        (DAY, "2024-W19-7", "kein Datum"),
        (DAY, "2024-05-12T10:00:00Z", "kein Datum"),
        (DAY, "2023-02-29", "kein Datum"),
        (MOMENT, "2024-05-12T10:00:00", "fehlt die Zeitzone"),
        (MOMENT, "heute", "kein Datum"),
        (column("Formel", "calculated"), "x", "nicht geschrieben"),
        (column("Person", "person"), "x", "nicht geschrieben"),
    ],
)
def test_a_value_that_does_not_fit_is_told_in_a_sentence(where: Column, value: FieldText, why: str) -> None:
    said = check_value(where, value)
    assert said is not None
    assert why in said
    assert said.endswith(".")


@pytest.mark.parametrize("value", [None, "", []])
def test_nothing_is_wrong_only_where_something_is_required(value: FieldText) -> None:
    assert check_value(column("Bauprojekt", required=True), value) == "Pflichtfeld ohne Wert."
