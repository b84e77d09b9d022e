from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.types import FieldValue, NeedsPerson
from shared.columns.checks import check_value
from shared.vision.answer_reading import better, left_to_people, read_answer
from shared.vision.answer_schema import SUMMARY, Asked, asked_of
from tests.shared.columns.columns import DESCRIPTION, KEYWORDS, PART, PHASE, PROJECT, STOREY, column, library

if TYPE_CHECKING:
    from shared.columns.schema import Column

SHARE = column("Fortschritt", "number", percent=True)
VISIBLE = column("Sichtbar", "boolean")
DAY = column("Datum auf der Tafel", "date", name="Tafel")


def _asked(*columns: Column) -> tuple[Asked, ...]:
    return asked_of(library(*columns))


def _said(value: object, confidence: object = 0.9, **more: object) -> dict[str, object]:
    return {"value": value, "confidence": confidence} | more


GOOD = json.dumps({SUMMARY: "Ein Rohbau.", "Bauphase": _said("Rohbau")})


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\nIch fülle nun {{die Felder}}.\n</think>\n\n{GOOD}",
        f"Erst überlegen: {{}}</think>{GOOD}",
        f'<THINKING>{{"Bauphase": 1}}</THINKING>{GOOD}',
        f"Hier ist das JSON:\n\n```json\n{GOOD}\n```\n\nLass mich wissen, ob du mehr brauchst.",
        f"```\n{GOOD}\n```",
        f"Gerne {{wie verlangt}}: {GOOD} Fertig.",
        f"[{GOOD}]",
        f'{{"answer": {GOOD}}}',
        GOOD.replace("Ein Rohbau.", "Ein\nRohbau."),
        GOOD.replace('"Bauphase"', '"bauphase"'),
    ],
)
def test_the_json_is_found_in_what_stands_around_it(text: str) -> None:
    reading = read_answer(_asked(PHASE), text)
    assert reading.errors == []
    assert reading.summary == "Ein Rohbau."
    assert reading.fields["Bauphase"] == FieldValue(value="Rohbau", source="vision", confidence=0.9)


@pytest.mark.parametrize(
    ("confidence", "read"),
    [("0.9", 0.9), ("0,9", 0.9), (90, 0.9), ("90 %", 0.9), ("87", 0.87), (1, 1.0), ("1", 1.0), (100, 1.0)],
)
def test_a_confidence_is_read_as_it_is_meant(confidence: object, read: float) -> None:
    answer = json.dumps({SUMMARY: "x", "Bauphase": _said("Rohbau", confidence)})
    assert read_answer(_asked(PHASE), answer).fields["Bauphase"].confidence == read


@pytest.mark.parametrize(
    ("asked", "value", "read"),
    [
        (STOREY, "3,5", 3.5),
        (STOREY, "3.5", 3.5),
        (STOREY, "-2", -2),
        (STOREY, "ca. 4 Stk.", 4),
        (column("Fläche", "number"), "1'250,5 m", 1250.5),
        (SHARE, 0.6, 0.6),
        (SHARE, 60, 0.6),
        (SHARE, "60 %", 0.6),
        (SHARE, "0,6", 0.6),
        (VISIBLE, "Ja", True),
        (VISIBLE, "nein", False),
        (VISIBLE, "TRUE", True),
        (VISIBLE, 0, False),
        (PHASE, ["Rohbau"], "Rohbau"),
        (column("Erkennbar", "choice", "Ja", "Nein"), True, "Ja"),
        (column("Stock", "choice", "1", "2"), 2, "2"),
        (PART, "Dach", ["Dach"]),
        (PART, "Dach; treppe, Dach", ["Dach", "Treppe"]),
        (DAY, "3.5.2024", "2024-05-03"),
        (DAY, "2024-05-03T12:00:00Z", "2024-05-03"),
        (column("Titel"), ["Haus", "Garten"], "Haus, Garten"),
        (column("Nummer"), 12, "12"),
    ],
)
def test_a_value_is_read_as_it_is_meant(asked: Column, value: object, read: object) -> None:
    [one] = _asked(asked)
    reading = read_answer([one], json.dumps({SUMMARY: "x", one.key: _said(value)}))
    assert reading.errors == []
    assert reading.fields[asked.name].value == read


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        (STOREY, "viele"),
        (STOREY, "3 Mio"),
        (STOREY, 10**400),
        (STOREY, True),
        (VISIBLE, "vielleicht"),
        (PHASE, "\ud800"),
        (PHASE, "x" * 100_000),
        (DAY, "31.2.2024"),
        (column("Titel"), True),
        (column("Titel"), [{}]),
    ],
)
def test_what_cannot_be_read_leaves_its_own_field_to_a_person(asked: Column, value: object) -> None:
    other = column("Anderes", "boolean")
    every = _asked(asked, other)
    answer = {SUMMARY: "x", every[0].key: _said(value), every[1].key: _said(value=True)}
    reading = left_to_people(read_answer(every, json.dumps(answer)), every)
    assert reading.fields[other.name].value is True
    if asked is PHASE:
        assert reading.fields[asked.name].value == "Prüfen"
    else:
        [need] = reading.needs_person
        assert need.column == asked.display_name
        assert need.reason.startswith("Die Bildanalyse gab keinen lesbaren Wert. ")
    assert len(msgspec.json.encode(reading)) < 5_000


@pytest.mark.parametrize("value", [[], None, [None, ""]])
def test_a_required_choice_of_several_without_any_is_no_value(value: object) -> None:
    required = column("Bauteil", "multi_choice", "Dach", "Treppe", required=True)
    reading = read_answer(_asked(required), json.dumps({SUMMARY: "x", "Bauteil": _said(value)}))
    assert reading.errors == []
    assert reading.fields == {}


def test_a_correction_keeps_what_was_read_before_it() -> None:
    asked = _asked(PHASE, STOREY, VISIBLE)
    first = read_answer(
        asked,
        json.dumps(
            {SUMMARY: "x", "Bauphase": _said("Rohbau"), "Geschoss": _said("oben"), "Sichtbar": _said("halb")}
        ),
    )
    second = read_answer(asked, json.dumps({"Geschoss": _said(3), "Sichtbar": _said("halb")}))
    both = better(first, second, asked)
    assert {name: field.value for name, field in both.fields.items()} == {"Bauphase": "Rohbau", "Geschoss": 3}
    assert both.unread.keys() == {"Sichtbar"}
    assert both.summary == "x"


def test_braces_without_end_do_not_take_long() -> None:
    assert read_answer(_asked(PHASE), '{"a":' * 200_000).error
    assert read_answer(_asked(PHASE), "{" * 1_000_000).error
    assert read_answer(_asked(PHASE), "<think>" * 100_000).error


def test_a_whole_answer_becomes_fields() -> None:
    answer = {
        SUMMARY: " Ein  Dachstuhl\nim Schnee. ",
        "Bauphase": _said("AUFRICHTE", 0.876),
        "Bauteil": _said(["Treppe", "dach", "Dach"]),
        "Geschoss": _said(2),
        "Beschreibung": _said(" Ein Dachstuhl.\nEs schneit. "),
        "noch_etwas": "stört nicht",
    }
    reading = read_answer(_asked(PHASE, PART, STOREY, DESCRIPTION), json.dumps(answer))
    assert reading.errors == []
    assert reading.summary == "Ein Dachstuhl im Schnee."
    assert reading.fields == {
        "Bauphase": FieldValue(value="Aufrichte", source="vision", confidence=0.88),
        "Bauteil": FieldValue(value=["Treppe", "Dach"], source="vision", confidence=0.9),
        "Geschoss": FieldValue(value=2, source="vision", confidence=0.9),
        "Beschreibung": FieldValue(value="Ein Dachstuhl.\nEs schneit.", source="vision", confidence=0.9),
    }


def test_what_the_model_does_not_know_is_left_to_check_or_empty() -> None:
    answer = {
        SUMMARY: "Nebel.",
        "Bauphase": _said(None, 0),
        "Bauteil": _said([], 0),
        "Geschoss": _said(None, 1),
        "Beschreibung": _said("", 1),
    }
    reading = read_answer(_asked(PHASE, PART, STOREY, DESCRIPTION), json.dumps(answer))
    assert reading.errors == []
    assert {name: (field.value, field.confidence) for name, field in reading.fields.items()} == {
        "Bauphase": ("Prüfen", 0),
        "Bauteil": (["Prüfen"], 0),
    }
    assert reading.needs_person == []


def test_a_doubtful_value_is_checked_by_a_person() -> None:
    free = column("Dachform", "choice", "Satteldach", "Flachdach")
    answer = {SUMMARY: "Ein Haus.", "Bauphase": _said("Rohbau", 0.3), "Dachform": _said("Flachdach", 0.4)}
    reading = read_answer(_asked(PHASE, free), json.dumps(answer))
    assert reading.fields["Bauphase"].value == "Prüfen"
    assert reading.fields["Dachform"] == FieldValue(value="Flachdach", source="vision", confidence=0.4)
    assert reading.needs_person == [
        NeedsPerson(column="Dachform", reason="Die Bildanalyse ist nur zu 40% sicher.", code="unsure")
    ]


def test_json_in_a_markdown_fence_is_read() -> None:
    text = "```json\n" + json.dumps({SUMMARY: "Nebel.", "Bauphase": _said("Rohbau")}) + "\n```\n"
    assert read_answer(_asked(PHASE), text).fields["Bauphase"].value == "Rohbau"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Gerne! Hier ist die Antwort:", "kein gültiges JSON"),
        ('{"bildinhalt": "abgeschn', "kein gültiges JSON"),
        ("[]", "kein gültiges JSON"),
        ("<think>{}", "Bauphase: Erwartet wird ein Objekt"),
        ("{}", "Bauphase: Erwartet wird ein Objekt"),
        ('{"bildinhalt": "x", "Bauphase": "Rohbau"}', "Bauphase: Erwartet wird ein Objekt"),
        ('{"bildinhalt": "x", "Bauphase": {"value": "Rohbau"}}', "confidence muss eine Zahl"),
        (
            '{"bildinhalt": "x", "Bauphase": {"value": "Rohbau", "confidence": 101}}',
            "confidence muss eine Zahl",
        ),
        (
            '{"bildinhalt": "x", "Bauphase": {"value": "Rohbau", "confidence": true}}',
            "confidence muss eine Zahl",
        ),
        (
            '{"bildinhalt": "x", "Bauphase": {"value": "Abbruch", "confidence": 1}}',
            "«Abbruch» ist keine Auswahl",
        ),
        (
            '{"bildinhalt": "x", "Bauphase": {"value": {"a": 1}, "confidence": 1}}',
            "passt nicht in die Spalte",
        ),
        ('{"bildinhalt": "x", "Bauphase": {"value": 7, "confidence": 1}}', "genau eine Auswahl"),
    ],
)
def test_what_does_not_hold_is_told_so_that_the_model_can_mend_it(text: str, error: str) -> None:
    reading = read_answer(_asked(PHASE), text)
    assert len(reading.errors) >= 1
    assert any(error in each for each in reading.errors)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["Bauphase", "Bauteil", "Geschoss", "Beschreibung", "Schlagworte", SUMMARY]),
        _ANYTHING | st.fixed_dictionaries({"value": _ANYTHING, "confidence": _ANYTHING | st.floats(0, 1)}),
    )
)
def test_whatever_a_model_says_only_values_that_fit_get_through(answer: dict[str, Any]) -> None:
    schema = library(PROJECT, PHASE, PART, STOREY, DESCRIPTION, KEYWORDS)
    reading = read_answer(asked_of(schema), json.dumps(answer))
    for name, field in reading.fields.items():
        where = schema.column(name)
        assert where is not None
        assert check_value(where, field.value) is None
        assert 0 <= field.confidence <= 1


@pytest.mark.parametrize("ending", ['}"', "}", "}}", "} Fertig."])
def test_an_object_that_a_model_closed_too_early_is_read_to_its_end(ending: str) -> None:
    """liustack/modlens issue 45: one brace too many, then the other properties, then a stray quote."""
    text = f'{{"{SUMMARY}": "Ein Rohbau.", "Bauphase": {json.dumps(_said("Rohbau"))}}}'
    text += f', "Geschoss": {json.dumps(_said(2))}{ending}'
    reading = read_answer(_asked(PHASE, STOREY), text)
    assert reading.errors == []
    assert reading.summary == "Ein Rohbau."
    assert reading.fields["Bauphase"].value == "Rohbau"
    assert reading.fields["Geschoss"].value == 2


CUT_OFF = (
    f'{{"{SUMMARY}": "Ein Rohbau.", "Bauphase": {json.dumps(_said("Rohbau"))}, "Geschoss": {{"value": "E'
)


@pytest.mark.parametrize(
    "text",
    [CUT_OFF, f"Hier ist das JSON:\n```json\n{CUT_OFF}", f'{{"antwort": {CUT_OFF}', f"</think>{CUT_OFF}"],
    ids=["alone", "in a fence", "wrapped", "after thoughts"],
)
def test_of_an_answer_that_was_cut_off_the_complete_properties_are_read(text: str) -> None:
    asked = _asked(PHASE, STOREY)
    reading = read_answer(asked, text, cut=True)
    assert reading.fields == {"Bauphase": FieldValue(value="Rohbau", source="vision", confidence=0.9)}
    assert reading.summary == "Ein Rohbau."
    assert reading.unread == {asked[1].key: "Die Antwort wurde vorher abgeschnitten."}


@pytest.mark.parametrize("end", range(len(CUT_OFF)))
def test_no_cut_makes_a_value_that_the_model_did_not_say(end: int) -> None:
    reading = read_answer(_asked(PHASE, STOREY), CUT_OFF[:end], cut=True)
    assert {field.value for field in reading.fields.values()} <= {"Rohbau"}
    assert reading.summary in ("", "Ein Rohbau.")


def test_a_draft_inside_thoughts_that_were_cut_off_is_no_answer() -> None:
    reading = read_answer(_asked(PHASE), f"<think>Vielleicht {GOOD}, aber", cut=True)
    assert reading.error == "Die Antwort wurde abgeschnitten."
