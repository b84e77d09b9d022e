from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.types import FieldText, FieldValue, Hints, NeedsPerson
from shared.columns.checks import check_value
from shared.columns.merge import Sources, merge
from tests.shared.columns.columns import (
    DESCRIPTION,
    PHASE,
    PHOTOGRAPHER,
    PLACE,
    PROJECT,
    REVIEWED,
    STOREY,
    TAKEN,
    column,
    library,
)

if TYPE_CHECKING:
    from shared.columns.schema import Column, ColumnKind

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def seen(value: FieldText, confidence: float = 0.9) -> FieldValue:
    return FieldValue(value=value, source="vision", confidence=confidence)


def test_the_camera_knows_the_date_better_than_a_hint() -> None:
    sources = Sources(exif_taken_at="2024-05-12T14:03:20+02:00", hints=Hints(taken_at="2024-05-13"))
    assert merge(library(TAKEN), sources, now=NOW).fields == {
        "Aufnahmedatum": FieldValue(value="2024-05-12", source="exif")
    }


@pytest.mark.parametrize("nonsense", ["1989-12-31T23:00:00+00:00", "2026-06-02T12:00:00Z", "0000-00-00", ""])
def test_a_camera_clock_that_is_wrong_counts_as_absent(nonsense: str) -> None:
    sources = Sources(exif_taken_at=nonsense, hints=Hints(taken_at="2024-05-13"))
    assert merge(library(TAKEN), sources, now=NOW).fields["Aufnahmedatum"] == FieldValue(
        value="2024-05-13", source="hint"
    )


@pytest.mark.parametrize(
    ("taken", "day"),
    [
        ("2024-05-12T23:30:00Z", "2024-05-13"),
        ("2024-05-12T23:30:00", "2024-05-12"),
        ("2024-12-31T23:30:00Z", "2025-01-01"),
        ("2024-05-13T04:00:00+09:00", "2024-05-12"),
    ],
)
def test_the_day_is_counted_where_the_site_is(taken: str, day: str) -> None:
    fields = merge(library(TAKEN), Sources(exif_taken_at=taken), now=NOW).fields
    assert fields["Aufnahmedatum"].value == day


def test_a_column_with_time_gets_utc_and_one_of_text_words() -> None:
    schema = library(column("Aufnahmezeit", "date_time"), column("Datum"))
    fields = merge(schema, Sources(exif_taken_at="2024-05-12T14:03:20"), now=NOW).fields
    assert fields["Aufnahmezeit"].value == "2024-05-12T12:03:20Z"
    assert fields["Datum"].value == "12.05.2024"


def test_a_hinted_day_without_time_stays_that_day() -> None:
    schema = library(TAKEN, column("Aufnahmezeit", "date_time"))
    fields = merge(schema, Sources(hints=Hints(taken_at="2024-05-12")), now=NOW).fields
    assert [fields["Aufnahmedatum"].value, fields["Aufnahmezeit"].value] == [
        "2024-05-12",
        "2024-05-12T10:00:00Z",
    ]


def test_whoever_sent_the_photo_knows_the_place_better_than_a_position() -> None:
    both = Sources(hints=Hints(place="Seewen"), exif_position="47.0276, 8.6326")
    assert merge(library(PLACE), both).fields["Ort"] == FieldValue(value="Seewen", source="hint")
    position = Sources(exif_position="47.0276, 8.6326")
    assert merge(library(PLACE), position).fields["Ort"] == FieldValue(value="47.0276, 8.6326", source="exif")


def test_a_position_is_no_choice_and_is_told_to_nobody() -> None:
    place = column("Ort", "choice", "Seewen", "Brunnen", required=True)
    merged = merge(library(place), Sources(exif_position="47.0276, 8.6326"))
    assert merged.fields == {}
    assert [need.column for need in merged.needs_person] == ["Ort"]
    assert "47.0276" not in merged.needs_person[0].reason


def test_project_and_photographer_come_from_hints_alone() -> None:
    vision = {PROJECT.name: seen("Schulhaus"), PHOTOGRAPHER.name: seen("jemand")}
    merged = merge(library(PROJECT, PHOTOGRAPHER), Sources(vision=vision))
    assert merged.fields == {}
    assert merged.needs_person == [
        NeedsPerson(
            column="Bauprojekt",
            reason="Pflichtfeld ohne Wert: Beim Einreichen wurde kein Projekt angegeben.",
            code="missing",
        )
    ]
    hints = Hints(project="Schulhaus Brunnen", photographer="Bauleitung")
    fields = merge(library(PROJECT, PHOTOGRAPHER), Sources(hints=hints)).fields
    assert {name: value.value for name, value in fields.items()} == {
        "Bauprojekt": "Schulhaus Brunnen",
        "Fotograf": "Bauleitung",
    }


def test_content_comes_from_the_analyzer_and_from_no_hint() -> None:
    hints = Hints(project="Rohbau", place="Rohbau", text="Rohbau")
    assert merge(library(PHASE), Sources(hints=hints)).fields == {}
    fields = merge(library(PHASE), Sources(hints=hints, vision={PHASE.name: seen("Aufrichte")})).fields
    assert fields["Bauphase"] == seen("Aufrichte")


def test_a_hint_means_the_choice_that_is_written_differently() -> None:
    project = column("Projekt", "choice", "Wohnüberbauung Seewen", "Werkhalle Goldau")
    fields = merge(library(project), Sources(hints=Hints(project="Wohnueberbauung SEEWEN"))).fields
    assert fields["Projekt"].value == "Wohnüberbauung Seewen"


@pytest.mark.parametrize("kind", ["choice", "multi_choice"])
def test_a_hint_outside_the_choices_is_left_to_a_person(kind: ColumnKind) -> None:
    project = column("Projekt", kind, "Werkhalle Goldau")
    merged = merge(library(project), Sources(hints=Hints(project="Sporthalle")))
    assert merged.fields == {}
    assert len(merged.needs_person) == 1
    assert "«Sporthalle» passt nicht" in merged.needs_person[0].reason


def test_a_value_of_the_analyzer_that_the_column_does_not_take_is_not_written() -> None:
    merged = merge(library(PHASE), Sources(vision={PHASE.name: seen("Abbruch")}))
    assert merged.fields == {}
    assert "«Abbruch» ist keine Auswahl" in merged.needs_person[0].reason


def test_what_the_analyzer_wants_looked_at_is_on_the_list_beside_its_value() -> None:
    doubt = NeedsPerson(column="Bauphase", reason="Nur zu 30 % sicher.")
    merged = merge(library(PHASE), Sources(vision={PHASE.name: seen("Rohbau", 0.3)}, vision_needs=[doubt]))
    assert merged.fields["Bauphase"].value == "Rohbau"
    assert merged.needs_person == [doubt]


def test_an_optional_column_that_nobody_said_anything_about_stays_empty_without_a_word() -> None:
    merged = merge(library(STOREY, DESCRIPTION, PLACE), Sources())
    assert merged.fields == {}
    assert merged.needs_person == []


def test_nothing_is_made_up_for_a_required_column() -> None:
    phase = column("Bauphase", "choice", "Rohbau", required=True)
    merged = merge(library(phase), Sources())
    assert merged.fields == {}
    assert merged.needs_person[0].column == "Bauphase"
    assert merged.needs_person[0].reason.startswith("Pflichtfeld ohne Wert")


@pytest.mark.parametrize(
    ("default", "where", "value"),
    [
        ("Rohbau", column("Bauphase", "choice", "Rohbau"), "Rohbau"),
        ("Dach", column("Bauteil", "multi_choice", "Dach"), ["Dach"]),
        ("0", column("Sichtbar", "boolean"), False),
        ("3", column("Geschoss", "number"), 3.0),
        ("[today]", TAKEN, None),
        ("=[Me]", column("Bauphase", "choice", "Rohbau"), None),
        ("viele", column("Geschoss", "number"), None),
    ],
)
def test_the_librarys_default_is_the_last_source_if_it_is_a_value(
    default: str, where: Column, value: FieldText
) -> None:
    merged = merge(library(msgspec.structs.replace(where, default=default)), Sources())
    assert [field.value for field in merged.fields.values()] == ([] if value is None else [value])
    assert all(field.source == "default" for field in merged.fields.values())


def test_a_person_says_that_it_is_reviewed() -> None:
    merged = merge(library(REVIEWED), Sources(vision={REVIEWED.name: seen(value=True)}))
    assert merged.fields["Geprüft"] == FieldValue(value=False, source="default")


def test_the_title_is_the_files_name_where_nobody_gives_a_better_one() -> None:
    title = column("Titel", name="Title", max_length=20)
    assert merge(library(title), Sources(file_name="Aufrichte Dach.JPG")).fields["Title"] == FieldValue(
        value="Aufrichte Dach", source="default"
    )
    better = Sources(file_name="IMG_0001.JPG", vision={"Title": seen("Dachstuhl im Schnee")})
    assert merge(library(title), better).fields["Title"].value == "Dachstuhl im Schnee"


def test_read_only_and_hidden_columns_are_left_alone() -> None:
    columns = (column("Ort", read_only=True), column("Projekt", hidden=True), column("Formel", "calculated"))
    merged = merge(library(*columns), Sources(hints=Hints(place="Seewen", project="Halle")))
    assert merged.fields == {}
    assert merged.needs_person == []


_TEXTS = st.text(max_size=12)
_VALUES: st.SearchStrategy[FieldText] = st.one_of(
    st.none(), _TEXTS, st.booleans(), st.integers(), st.floats(), st.lists(_TEXTS, max_size=3)
)


@settings(max_examples=80, deadline=None)
@given(
    hints=st.builds(
        Hints,
        project=st.none() | _TEXTS,
        place=st.none() | _TEXTS,
        photographer=st.none() | _TEXTS,
        taken_at=st.none() | _TEXTS,
    ),
    vision=st.dictionaries(st.sampled_from([each.name for each in library().columns]), _VALUES.map(seen)),
    taken_at=st.none() | _TEXTS | st.datetimes().map(datetime.isoformat),
    required=st.booleans(),
)
def test_whatever_comes_in_every_value_fits_and_every_required_gap_is_told(
    hints: Hints,
    vision: dict[str, FieldValue],
    taken_at: str | None,
    required: bool,  # noqa: FBT001  drawn
) -> None:
    schema = library(*(msgspec.structs.replace(each, required=required) for each in library().columns))
    merged = merge(schema, Sources(hints=hints, vision=vision, exif_taken_at=taken_at), now=NOW)
    told = {need.column for need in merged.needs_person}
    for each in schema.columns:
        if each.name in merged.fields:
            assert check_value(each, merged.fields[each.name].value) is None
        elif required:
            assert each.display_name in told
