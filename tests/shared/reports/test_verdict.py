"""What counts as a difference, whose doing it is, and what a person still has to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events.types import FieldValue, NeedsPerson
from shared.columns import needs as codes
from shared.columns.schema import Column, LibrarySchema
from shared.reports.verdict import compare, needs_after, require, to_repair
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from events.types import FieldText
    from shared.reports.photo_report import FieldReport

PHASE = Column(
    name="Bauphase", display_name="Bauphase", kind="choice", choices=("Aushub", "Rohbau"), required=True
)
PLACE = Column(name="Ort", display_name="Ort", kind="text")
STATE = Column(name="Stand", display_name="Stand der Dinge", kind="text", default="offen")
WOOD = Column(name="Holzart", display_name="Holzart", kind="choice", choices=("Fichte",), allow_other=True)
LOCKED = Column(name="Version", display_name="Version", kind="text", read_only=True)
SCHEMA = LibrarySchema(library="Referenzfotos", columns=(PHASE, PLACE, STATE, WOOD, LOCKED))
ASKED = NeedsPerson(column="Ort", reason="Kein Ort angegeben.")


def _lines(
    sent: dict[str, FieldText],
    stored: dict[str, FieldText],
    *needs: NeedsPerson,
    untouched: bool = True,
    repaired: tuple[str, ...] = (),
) -> dict[str, FieldReport]:
    fields = {name: FieldValue(value=value, source="vision", confidence=0.7) for name, value in sent.items()}
    lines = compare(SCHEMA, fields, stored, needs, untouched=untouched, repaired=repaired)
    return {line.column: line for line in lines}


def _left(lines: dict[str, FieldReport], *needs: NeedsPerson, file_same: bool | None = True) -> list[str]:
    return [need.column for need in needs_after(SCHEMA, list(lines.values()), needs, file_same=file_same)]


def test_what_is_stored_as_sent_is_the_same_and_needs_nobody() -> None:
    lines = _lines({"Bauphase": "Rohbau", "Ort": "Seewen"}, {"Bauphase": "Rohbau", "Ort": "Seewen "})
    assert [(line.same, line.cause) for line in lines.values()] == [(True, None), (True, None)]
    assert _left(lines) == []


def test_columns_without_anything_to_say_have_no_line() -> None:
    assert _lines({}, {"Version": "1.0"}).keys() == {"Bauphase"}, "required, so that its gap is seen"
    assert _lines({}, {"Version": "1.0"}, ASKED).keys() == {"Bauphase", "Ort"}


def test_a_value_that_changed_since_our_write_is_somebodys_edit_and_stays() -> None:
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Aushub"}, untouched=False)
    assert lines["Bauphase"].cause == "edited"
    assert to_repair(list(lines.values())) == {}
    require(list(lines.values()), "a.jpg")
    assert _left(lines) == [], "a person has decided"


def test_a_value_that_the_uploader_left_to_a_person_is_an_edit_too() -> None:
    left = NeedsPerson(column="Bauphase", reason="Von Hand geändert.")
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Aushub"}, left)
    assert lines["Bauphase"].cause == "edited"
    assert _left(lines, left) == []


def test_an_optional_column_that_a_person_emptied_is_an_edit_and_needs_nobody() -> None:
    left = NeedsPerson(column="Ort", reason="Von Hand.", code=codes.EDITED)
    lines = _lines({"Bauphase": "Rohbau", "Ort": "Seewen"}, {"Bauphase": "Rohbau", "Ort": None}, left)
    assert (lines["Ort"].same, lines["Ort"].cause) == (False, "edited")
    assert _left(lines, left) == []


def test_a_required_column_that_a_person_emptied_still_needs_one() -> None:
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": None}, untouched=False)
    assert lines["Bauphase"].cause == "edited"
    assert _left(lines) == ["Bauphase"]


def test_a_persons_value_outside_the_choices_is_pointed_at() -> None:
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rückbau"}, untouched=False)
    (need,) = needs_after(SCHEMA, list(lines.values()), [], file_same=True)
    assert (need.column, "Rückbau" in need.reason) == ("Bauphase", True)


def test_a_column_that_takes_text_of_ones_own_takes_a_persons() -> None:
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau", "Holzart": "Kastanie"})
    assert _left(lines) == []


def test_a_value_that_sharepoint_altered_is_to_be_repaired() -> None:
    lines = _lines({"Bauphase": "Rohbau", "Ort": "Seewen"}, {"Bauphase": "Rohbau", "Ort": None})
    assert lines["Ort"].cause == "altered"
    assert to_repair(list(lines.values())) == {"Ort": "Seewen"}


def test_what_stays_altered_needs_a_person_who_is_told_both_values() -> None:
    lines = _lines({"Bauphase": "Rohbau", "Ort": "Seewen"}, {"Bauphase": "Rohbau", "Ort": "SEEWEN"})
    (need,) = needs_after(SCHEMA, list(lines.values()), [], file_same=True)
    assert need == NeedsPerson(
        column="Ort",
        reason="SharePoint hat «SEEWEN» gespeichert, gesendet wurde «Seewen».",
        code=codes.ALTERED,
    )


def test_a_required_column_that_stays_altered_is_the_end_and_named() -> None:
    lines = _lines({"Bauphase": "Rohbau", "Ort": "Seewen"}, {"Bauphase": None, "Ort": None})
    with pytest.raises(
        PermanentError, match=r"required columns of a\.jpg.*'Bauphase' \(sent 'Rohbau', stored None\)"
    ) as caught:
        require(list(lines.values()), "a.jpg")
    assert "Ort" not in str(caught.value)


def test_a_repaired_column_says_so() -> None:
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau"}, repaired=("Bauphase",))
    assert (lines["Bauphase"].same, lines["Bauphase"].cause) == (True, "repaired")


def test_a_column_that_graph_could_not_write_is_a_difference_with_the_uploaders_reason() -> None:
    told = NeedsPerson(column="Ort", reason="Graph kann diese Spalte nicht schreiben.")
    lines = _lines({"Bauphase": "Rohbau", "Ort": "Seewen"}, {"Bauphase": "Rohbau"}, told)
    assert (lines["Ort"].same, lines["Ort"].cause) == (False, None)
    assert needs_after(SCHEMA, list(lines.values()), [told], file_same=True) == [told]


def test_a_gap_that_a_person_filled_is_no_longer_asked_for() -> None:
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau", "Ort": "Seewen"}, ASKED)
    assert (lines["Ort"].value, lines["Ort"].source, lines["Ort"].stored) == (None, None, "Seewen")
    assert _left(lines, ASKED) == []


def test_the_librarys_default_is_not_a_persons_answer() -> None:
    asked = NeedsPerson(column="Stand der Dinge", reason="Unklar.")
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau", "Stand": "offen"}, asked)
    assert _left(lines, asked) == ["Stand der Dinge"]


def test_a_doubt_about_a_value_that_was_stored_stays() -> None:
    doubt = NeedsPerson(column="Bauphase", reason="Nicht sicher erkannt.")
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau"}, doubt)
    assert _left(lines, doubt) == ["Bauphase"]


def test_a_required_column_without_a_value_needs_a_person_once() -> None:
    asked = NeedsPerson(column="Bauphase", reason="Nicht erkannt.")
    assert _left(_lines({}, {})) == ["Bauphase"]
    assert _left(_lines({}, {}, asked), asked) == ["Bauphase"]


def test_a_column_that_is_gone_is_a_difference_and_needs_a_person() -> None:
    lines = _lines({"Bauphase": "Rohbau", "Version": "2", "Weg": "x"}, {"Bauphase": "Rohbau"})
    assert [(name, line.same) for name, line in lines.items()] == [
        ("Bauphase", True), ("Version", False), ("Weg", False)
    ]  # fmt: skip
    assert to_repair(list(lines.values())) == {}
    assert _left(lines) == ["Version", "Weg"]


@pytest.mark.parametrize(("file_same", "left"), [(True, []), (None, []), (False, ["Datei"])])
def test_other_bytes_need_a_person(*, file_same: bool | None, left: list[str]) -> None:
    assert _left(_lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau"}), file_same=file_same) == left


def test_other_bytes_that_the_uploader_saw_are_told_once() -> None:
    seen = NeedsPerson(column="Datei", reason="Die Bilddatei wurde ersetzt.", code=codes.FILE_REPLACED)
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau"})
    assert needs_after(SCHEMA, list(lines.values()), [seen], file_same=False) == [seen]


def test_a_column_that_is_called_like_the_file_does_not_hide_other_bytes() -> None:
    column = NeedsPerson(column="Datei", reason="Unklar.", code=codes.UNSURE)
    lines = _lines({"Bauphase": "Rohbau"}, {"Bauphase": "Rohbau"})
    left = needs_after(SCHEMA, list(lines.values()), [column], file_same=False)
    assert [need.code for need in left] == [codes.UNSURE, codes.FILE_DIFFERS]
