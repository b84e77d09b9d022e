from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from events.types import FieldValue, Hints, NeedsPerson
from shared.columns import needs
from shared.columns.checks import check_value
from shared.settings import Settings
from shared.vision.contract import PhotoContext
from shared.vision.local.analyzer import MAYBE, SURE, LocalAnalyzer, Seen
from shared.vision.local.picture import measure
from tests.shared.columns.columns import (
    KEYWORDS,
    PART,
    PEOPLE,
    PHASE,
    PROJECT,
    QUALITY,
    STOREY,
    WOOD,
    column,
    library,
)
from tests.shared.vision import drawings

if TYPE_CHECKING:
    from shared.columns.schema import Column, ColumnKind

LARGE = PhotoContext(width=4032, height=3024)


def _seen(**shares: float) -> Seen:
    """A look that gave these probabilities: ``c517=0.9`` is class 517."""
    probabilities = np.zeros(1000, np.float32)
    for name, share in shares.items():
        probabilities[int(name[1:])] = share
    measured = measure(drawings.picket_fence())
    return Seen(probabilities=probabilities, measured=measured, width=4032, height=3024)


async def test_what_is_surely_seen_becomes_a_choice_and_a_sentence(analyzer: LocalAnalyzer) -> None:
    answer = await analyzer.describe(drawings.jpeg(drawings.clock()), library(), LARGE)
    assert answer.fields["Schlagworte"].value == ["Uhr"]
    assert answer.fields["Schlagworte"].confidence >= SURE
    assert answer.description.startswith("Zu sehen: Uhr (")
    assert "Querformat mit 4032 × 3024 Pixeln" in answer.description  # noqa: RUF001  the sign people write
    assert answer.fields["Beschreibung"].value == answer.description
    assert answer.usage.prompt_tokens == 0


async def test_what_is_likely_is_called_likely_and_fills_no_choice(analyzer: LocalAnalyzer) -> None:
    lights = column("Schlagworte", "multi_choice", "Ampel", "Prüfen")
    answer = await analyzer.describe(drawings.jpeg(drawings.traffic_light()), library(lights), LARGE)
    assert answer.description.startswith("Vermutlich zu sehen: Ampel (")
    assert answer.fields["Schlagworte"] == FieldValue(value=["Prüfen"], source="vision", confidence=0)


async def test_what_is_not_recognised_is_not_named(analyzer: LocalAnalyzer) -> None:
    answer = await analyzer.describe(drawings.jpeg(drawings.nothing()), library(), LARGE)
    assert answer.description.startswith("Das Motiv wurde nicht sicher erkannt.")
    assert answer.fields["Schlagworte"].value == ["Prüfen"]


@pytest.mark.parametrize("where", [PHASE, WOOD, PEOPLE])
async def test_what_imagenet_cannot_know_is_left_to_check(analyzer: LocalAnalyzer, where: Column) -> None:
    answer = await analyzer.describe(drawings.jpeg(drawings.clock()), library(where), LARGE)
    assert answer.fields == {where.name: FieldValue(value="Prüfen", source="vision", confidence=0)}
    assert answer.needs_person == []


def test_a_building_type_is_never_claimed_even_if_a_choice_has_the_very_word(analyzer: LocalAnalyzer) -> None:
    building = column("Gebäudetyp", "choice", "Scheune", "Kirche", "Brücke")
    answer = analyzer.answer(_seen(c425=0.99), library(building))
    assert answer.fields == {}
    assert answer.needs_person == [
        NeedsPerson(
            column="Gebäudetyp", reason="Der lokale Analysator kennt keine Gebäudetypen.", code=needs.UNSURE
        )
    ]
    keywords = column("Schlagworte", "multi_choice", "Scheune")
    assert analyzer.answer(_seen(c425=0.99), library(keywords)).fields["Schlagworte"].value == ["Scheune"]


@pytest.mark.parametrize("kind", ["choice", "multi_choice"])
def test_without_a_choice_for_not_knowing_a_person_is_asked(
    analyzer: LocalAnalyzer, kind: ColumnKind
) -> None:
    motif = column("Motiv", kind, "Kran", "Zaun")
    answer = analyzer.answer(_seen(c517=0.5), library(motif))
    assert answer.fields == {}
    assert [need.column for need in answer.needs_person] == ["Motiv"]


def test_a_choice_is_filled_from_the_threshold_on_whatever_its_spelling(analyzer: LocalAnalyzer) -> None:
    motif = column("Motiv", "choice", "KRAENE", "Zaun")
    below = analyzer.answer(_seen(c517=SURE - 0.01), library(motif))
    above = analyzer.answer(_seen(c517=SURE + 0.01), library(motif))
    assert below.fields == {}
    assert above.fields == {"Motiv": FieldValue(value="KRAENE", source="vision", confidence=0.71)}


def test_several_choices_may_hold_and_the_weakest_tells_how_sure(analyzer: LocalAnalyzer) -> None:
    motif = column("Schlagworte", "multi_choice", "Natur", "Berge", "Kran")
    answer = analyzer.answer(_seen(c970=0.75, c979=0.2), library(motif))
    assert answer.fields["Schlagworte"] == FieldValue(
        value=["Natur", "Berge"], source="vision", confidence=0.75
    )


def test_many_weak_signs_of_one_kind_name_the_kind(analyzer: LocalAnalyzer) -> None:
    answer = analyzer.answer(_seen(c425=0.3, c449=0.3, c660=0.2), library())
    assert answer.description.startswith("Zu sehen: Gebäude (80 % sicher).")
    assert MAYBE < 0.6 < SURE
    answer = analyzer.answer(_seen(c425=0.3, c449=0.3), library())
    assert answer.description.startswith("Vermutlich zu sehen: Gebäude (60 % sicher).")


def test_the_measured_quality_takes_the_librarys_own_word(analyzer: LocalAnalyzer) -> None:
    other = column("Bildqualität", "choice", "hoch", "genügend", "ungenügend")
    fields = analyzer.answer(_seen(), library(QUALITY, other)).fields
    assert [fields[each.name].value for each in (QUALITY, other)] == ["gut", "hoch"]
    stars = column("Qualität", "choice", "*", "**", "***")
    assert [need.column for need in analyzer.answer(_seen(), library(stars)).needs_person] == ["Qualität"]


def test_columns_of_other_sources_and_kinds_are_not_touched(analyzer: LocalAnalyzer) -> None:
    others = (PROJECT, STOREY, column("Freigegeben", "boolean"), column("Ort", "choice", "Kran"))
    answer = analyzer.answer(_seen(c517=0.99), library(*others))
    assert answer.fields == {}
    assert answer.needs_person == []


def test_a_description_is_cut_at_a_sentence_where_the_column_is_short(analyzer: LocalAnalyzer) -> None:
    short = column("Beschreibung", max_length=60)
    fields = analyzer.answer(_seen(c517=0.9), library(short)).fields
    assert fields["Beschreibung"].value == "Zu sehen: Kran (90 % sicher)."


def test_keywords_as_text_are_words_with_commas(analyzer: LocalAnalyzer) -> None:
    words = column("Schlagworte")
    assert analyzer.answer(_seen(c970=0.9), library(words)).fields["Schlagworte"].value == "Berge, Landschaft"
    assert [need.column for need in analyzer.answer(_seen(), library(words)).needs_person] == ["Schlagworte"]


async def test_every_value_fits_its_column(analyzer: LocalAnalyzer) -> None:
    schema = library()
    for drawing in (drawings.clock, drawings.picket_fence, drawings.traffic_light, drawings.nothing):
        answer = await analyzer.describe(drawings.jpeg(drawing()), schema, LARGE)
        for name, field in answer.fields.items():
            where = schema.column(name)
            assert where is not None
            assert check_value(where, field.value) is None


async def test_hints_do_not_change_what_is_seen(analyzer: LocalAnalyzer) -> None:
    preview = drawings.jpeg(drawings.picket_fence())
    told = msgspec.structs.replace(LARGE, hints=Hints(text="Das ist ein Kran."))
    assert await analyzer.describe(preview, library(KEYWORDS, PART), LARGE) == await analyzer.describe(
        preview, library(KEYWORDS, PART), told
    )


async def test_the_loop_goes_on_while_a_picture_is_looked_at(analyzer: LocalAnalyzer) -> None:
    looking = asyncio.create_task(analyzer.describe(drawings.jpeg(drawings.clock()), library(), LARGE))
    turns = 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10


async def test_describing_without_opening_is_a_mistake_that_is_told() -> None:
    with pytest.raises(RuntimeError, match="call open"):
        await LocalAnalyzer(Settings()).describe(b"", library(), LARGE)


async def test_a_photo_is_decoded_while_the_model_looks_at_another(
    analyzer: LocalAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, decoded = threading.Event(), threading.Event()

    def look_slowly(*_: object) -> Seen:
        looking.set()
        # in the event loop, the model would keep the rest of the process waiting here for ever
        assert decoded.wait(30)
        return _seen(c517=0.9)

    monkeypatch.setattr("shared.vision.local.analyzer._look", look_slowly)
    described = asyncio.create_task(analyzer.describe(b"", library(), LARGE))
    await asyncio.to_thread(looking.wait, 30)
    decoded.set()
    assert (await described).fields
