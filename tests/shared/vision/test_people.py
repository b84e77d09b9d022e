"""What a seen face does to an answer, and what it never does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events.types import FieldText, FieldValue, NeedsPerson
from shared.columns import needs as codes
from shared.columns.checks import check_value
from shared.settings import Settings
from shared.vision.contract import Answer
from shared.vision.people import CONTRADICTED, HINT, face_finder, hinted, people_columns
from tests.shared.columns.columns import KEYWORDS, PEOPLE, column, library

if TYPE_CHECKING:
    from shared.columns.schema import Column

BOOLEAN = column("Personen erkennbar", "boolean")
YES_NO = column("Personen", "choice", "Ja", "Nein")
POSSIBLE = column("Personen erkennbar", "choice", "Ja", "Möglich", "Nein", "Prüfen")
SEVERAL = column("Personen", "multi_choice", "Ja", "Nein")
TEXT = column("Personen sichtbar")


def _answer(where: Column, value: FieldText, confidence: float = 0.9) -> Answer:
    said = FieldValue(value=value, source="vision", confidence=confidence)
    return Answer(fields={} if value is None else {where.name: said})


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (BOOLEAN, True),
        (YES_NO, "Ja"),
        (POSSIBLE, "Möglich"),
        (PEOPLE, "Prüfen"),
        (SEVERAL, ["Ja"]),
    ],
)
def test_a_face_fills_what_nobody_answered_and_a_person_is_told_that_it_is_a_hint(
    where: Column, value: FieldText
) -> None:
    answer = hinted(Answer(fields={}), library(where), 0.99)
    assert answer.fields == {where.name: FieldValue(value=value, source="vision", confidence=0.99)}
    assert check_value(where, value) is None
    assert answer.needs_person == [NeedsPerson(column=where.display_name, reason=HINT, code=codes.PEOPLE)]


@pytest.mark.parametrize("where", [TEXT, column("Personen", "choice", "Niemand", "1 bis 3", "viele")])
def test_a_column_without_a_word_for_it_is_left_to_a_person(where: Column) -> None:
    answer = hinted(Answer(fields={}), library(where), 0.99)
    assert answer.fields == {}
    assert answer.needs_person == [NeedsPerson(column=where.display_name, reason=HINT, code=codes.PEOPLE)]


@pytest.mark.parametrize(
    ("where", "value"),
    [(BOOLEAN, True), (PEOPLE, "Ja"), (SEVERAL, ["Ja"]), (TEXT, "zwei Zimmerleute")],
)
def test_a_yes_of_the_model_stays_with_its_own_confidence(where: Column, value: FieldText) -> None:
    before = _answer(where, value)
    assert hinted(before, library(where), 0.99) == before


@pytest.mark.parametrize(
    ("where", "said", "shown", "value"),
    [
        (BOOLEAN, False, "Nein", True),
        (PEOPLE, "Nein", "Nein", "Prüfen"),
        (YES_NO, "Nein", "Nein", "Ja"),
        (SEVERAL, ["Nein"], "Nein", ["Ja"]),
        (TEXT, "Keine Personen", "Keine Personen", None),
    ],
)
def test_a_no_of_the_model_becomes_a_persons_to_look_at(
    where: Column, said: FieldText, shown: str, value: FieldText
) -> None:
    answer = hinted(_answer(where, said), library(where), 0.99)
    found = answer.fields.get(where.name)
    assert (found.value if found else None) == value
    assert answer.needs_person == [
        NeedsPerson(column=where.display_name, reason=CONTRADICTED.format(said=shown), code=codes.PEOPLE)
    ]


def test_the_hint_takes_the_place_of_what_the_analyzer_wanted_looked_at_there() -> None:
    needs = [
        NeedsPerson(column="Personen erkennbar", reason="Der lokale Analysator sucht keine Personen."),
        NeedsPerson(column="Holzart", reason="Unklar."),
    ]
    answer = hinted(Answer(fields={}, needs_person=needs), library(BOOLEAN), 0.99)
    assert answer.needs_person == [
        needs[1],
        NeedsPerson(column="Personen erkennbar", reason=HINT, code=codes.PEOPLE),
    ]


def test_other_columns_and_those_we_may_not_write_are_left_alone() -> None:
    locked = column("Personen erkennbar", "boolean", read_only=True)
    before = _answer(KEYWORDS, ["Kran"])
    assert hinted(before, library(KEYWORDS, locked), 0.99) == before
    assert people_columns(library(KEYWORDS, locked)) == []


def test_without_the_setting_nothing_looks_for_faces() -> None:
    assert face_finder(Settings()) is None
