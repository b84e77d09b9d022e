from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.types import FieldValue, NeedsPerson
from shared.columns import needs
from shared.columns.checks import check_value
from shared.vision.answer_schema import SUMMARY, Asked, asked_of, json_schema, read_answer
from tests.shared.columns.columns import DESCRIPTION, KEYWORDS, PART, PHASE, PROJECT, STOREY, column, library

if TYPE_CHECKING:
    from shared.columns.schema import Column


def _limits(schema: dict[str, Any], depth: int = 1) -> tuple[int, int, int, int, int]:
    """Properties, enum values in all, the largest enum, characters of names and values, levels."""
    properties = values = largest = characters = 0
    levels = depth
    enum = schema.get("enum", [])
    values += len(enum)
    largest = max(largest, len(enum))
    characters += sum(len(value or "") for value in enum)
    below = list(schema.get("properties", {}).items()) + [
        ("", item) for item in [schema.get("items")] if item
    ]
    for name, child in below:
        found = _limits(child, depth + 1)
        properties += found[0] + bool(name)
        values += found[1]
        largest = max(largest, found[2])
        characters += found[3] + len(name)
        levels = max(levels, found[4])
    return properties, values, largest, characters, levels


def _strict(schema: dict[str, Any]) -> None:
    """What OpenAI's strict mode and Azure's subset of it demand of every object and leaf."""
    assert set(schema) <= {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "description",
    }
    if schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
    for child in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        _strict(child)


def _asked(*columns: Column) -> tuple[Asked, ...]:
    return asked_of(library(*columns))


def _said(value: object, confidence: object = 0.9, **more: object) -> dict[str, object]:
    return {"value": value, "confidence": confidence} | more


def test_only_what_a_picture_can_tell_is_asked() -> None:
    assert [one.column.display_name for one in asked_of(library())] == [
        "Bauphase",
        "Bauteil",
        "Holzart",
        "Beschreibung",
        "Schlagworte",
        "Personen erkennbar",
        "Qualität",
        "Geschoss",
    ]


def test_the_schema_is_the_librarys_in_strict_terms() -> None:
    schema = json_schema(asked_of(library(PHASE, PART, STOREY, DESCRIPTION, column("Sichtbar", "boolean"))))
    _strict(schema)
    assert next(iter(schema["properties"])) == SUMMARY
    values = {
        name: each["properties"]["value"] for name, each in schema["properties"].items() if name != SUMMARY
    }
    assert values == {
        "Bauphase": {
            "type": ["string", "null"],
            "enum": ["Rohbau", "Aufrichte", "Innenausbau", "Prüfen", None],
        },
        "Bauteil": {
            "type": "array",
            "items": {"type": "string", "enum": ["Dach", "Treppe", "Fenster", "Prüfen"]},
        },
        "Geschoss": {"type": ["number", "null"]},
        "Beschreibung": {"type": ["string", "null"]},
        "Sichtbar": {"type": ["boolean", "null"]},
    }
    assert schema["properties"]["Geschoss"]["description"] == "Geschoss; Zahl von -5 bis 60"


def test_property_names_are_ascii_and_differ() -> None:
    columns = (
        column("Gebäude-Teil (aussen)"),
        column("Gebaeude Teil aussen", name="b"),
        column("部材", name="c"),
        column("材", name="d"),
        column("Bildinhalt", name="e"),
        column("bildinhalt", name="f"),
        column("x" * 200, name="g"),
    )
    keys = [one.key for one in _asked(*columns)]
    assert keys[:5] == [
        "Gebaeude_Teil_aussen",
        "Gebaeude_Teil_aussen_2",
        "Spalte",
        "Spalte_2",
        "Bildinhalt",
    ]
    assert len(set(keys) | {SUMMARY}) == 8
    assert max(map(len, keys)) <= 64


def test_a_choice_of_more_than_250_values_is_asked_as_text_and_matched() -> None:
    large = column("Projektteil", "choice", *(f"Haus {number} Nord" for number in range(300)))
    [one] = _asked(large)
    assert json_schema([one])["properties"]["Projektteil"]["properties"]["value"] == {
        "type": ["string", "null"]
    }
    reading = read_answer([one], json.dumps({SUMMARY: "Ein Haus.", "Projektteil": _said("haus 17 Nrod")}))
    assert reading.errors == []
    assert reading.fields["Projektteil"].value == "Haus 17 Nord"


def test_the_largest_choices_give_way_until_all_fits() -> None:
    columns = [
        column(f"Spalte {size}", "choice", *(f"Wert {number}" for number in range(size)))
        for size in (240, 200, 90)
    ]
    assert [one.plain for one in _asked(*columns)] == [True, False, False]
    long = [
        column(f"Lang {index}", "multi_choice", *(f"{index}{'x' * 400}{n}" for n in range(20)))
        for index in (1, 2)
    ]
    assert [one.plain for one in _asked(*long)].count(True) == 1


def test_of_too_many_columns_the_required_ones_are_asked() -> None:
    columns = [column(f"Spalte {number}") for number in range(40)]
    columns.append(column("Wichtig", required=True))
    asked = _asked(*columns)
    assert len(asked) == 33
    assert asked[-1].column.display_name == "Wichtig"
    assert _limits(json_schema(asked))[0] <= 100


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["choice", "multi_choice", "text", "number", "boolean"]),
            st.integers(1, 400),
            st.integers(1, 120),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_every_library_fits_the_strictest_limits(drawn: list[tuple[Any, int, int]]) -> None:
    columns = [
        column(
            f"Spalte {index}",
            kind,
            *((f"{number:03}" + "w" * length for number in range(count)) if "choice" in kind else ()),
        )
        for index, (kind, count, length) in enumerate(drawn)
    ]
    schema = json_schema(_asked(*columns))
    _strict(schema)
    properties, values, largest, characters, levels = _limits(schema)
    assert properties <= 100
    assert values <= 500
    assert largest <= 251  # with null
    assert characters <= 15_000
    assert levels <= 5


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
        NeedsPerson(column="Dachform", reason="Die Bildanalyse ist nur zu 40% sicher.", code=needs.UNSURE)
    ]


def test_json_in_a_markdown_fence_is_read() -> None:
    text = "```json\n" + json.dumps({SUMMARY: "Nebel.", "Bauphase": _said("Rohbau")}) + "\n```\n"
    assert read_answer(_asked(PHASE), text).fields["Bauphase"].value == "Rohbau"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Gerne! Hier ist die Antwort:", "kein gültiges JSON"),
        ('{"bildinhalt": "abgeschn', "kein gültiges JSON"),
        ("[]", "Erwartet wird ein JSON-Objekt"),
        ("{}", "Bauphase: Erwartet wird ein Objekt"),
        ('{"bildinhalt": "x", "Bauphase": "Rohbau"}', "Bauphase: Erwartet wird ein Objekt"),
        ('{"bildinhalt": "x", "Bauphase": {"value": "Rohbau"}}', "confidence muss eine Zahl"),
        (
            '{"bildinhalt": "x", "Bauphase": {"value": "Rohbau", "confidence": 90}}',
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
        (
            '{"bildinhalt": 7, "Bauphase": {"value": null, "confidence": 1}}',
            "bildinhalt: Erwartet wird ein Satz",
        ),
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


@pytest.mark.parametrize(("said", "value"), [(60, 0.6), (0.6, 0.6), (1, 1), (100, 1.0)])
def test_a_percentage_is_a_share_however_the_model_writes_it(said: float, value: float) -> None:
    share = msgspec.structs.replace(column("Anteil", "number"), percent=True)
    answer = {SUMMARY: "Ein Dach.", "Anteil": _said(said)}
    reading = read_answer(_asked(share), json.dumps(answer))
    assert reading.fields["Anteil"].value == value
