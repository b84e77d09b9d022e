"""What docs/metadata.md, vision.md and sharepoint.md say of the code, and NOTICE of the photos, is so."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, get_args

from events.types import FieldValue, Hints, Source
from sandbox.sample_sources import ATTRIBUTION
from shared.columns import merge as merging
from shared.columns.merge import Sources, merge
from shared.columns.schema import Column, ColumnKind, LibrarySchema
from shared.columns.topics import SYNONYMS
from shared.columns.words import UNSURE
from shared.photos.kinds import (
    HEIC,
    HEIC_PIECE_MAX_PIXELS,
    JPEG,
    JPEG_SCANS_MAX_SAMPLES,
    PNG,
    PNG_INTERLACED_MAX_BYTES,
    PNG_ROW_MAX_BYTES,
    WEBP,
)
from shared.reports.german import SOURCES
from shared.settings import Settings, load
from shared.sharepoint.names import PLACEHOLDERS
from shared.vision.answer_schema import DOUBTFUL
from shared.vision.local import faces
from shared.vision.local.analyzer import MAYBE, SURE
from shared.vision.openai import OpenAIAnalyzer
from tests.project.pages import page, rows
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

METADATA: Final = page("metadata.md")
VISION: Final = page("vision.md")
SHAREPOINT: Final = page("sharepoint.md")


def _table(text: str, heading: str) -> list[list[str]]:
    """The rows of the table below a heading, without its head."""
    _, _, rest = text.partition(f"\n{heading}\n")
    assert rest, heading
    return rows(rest.partition("\n## ")[0])[1:]


def test_every_source_is_explained_with_the_word_of_the_report() -> None:
    told = {row[0]: row[1] for row in _table(METADATA, "## Sources")}
    assert told == SOURCES
    assert set(told) == set(get_args(Source))


def _order(name: str) -> list[str]:
    """The sources a column of that name takes its value from, best first, as the code has it."""
    kind: ColumnKind = "boolean" if name == "Geprüft" else "text"
    column = Column(name="X", display_name=name, kind=kind)
    sources = Sources(
        hints=Hints(project="p", place="o", photographer="f", taken_at="2024-05-12"),
        exif_taken_at="2024-05-13T10:00:00",
        exif_position="47.0, 8.0",
        file_name="bild.jpg",
        vision={"X": FieldValue(value="gesehen", source="vision")},
    )
    schema = LibrarySchema(library="L", columns=(column,))
    found = merging._candidates(column, schema, sources, datetime.now(UTC))
    assert merge(schema, sources).fields["X"].source == found[0].source
    return [one.source for one in found]


def test_the_rules_say_which_source_wins_for_every_topic_and_name() -> None:
    table = _table(METADATA, "## Which source wins")
    assert sorted(row[0] for row in table) == sorted([*SYNONYMS, "anything else"])
    for topic, names, value in table:
        told = re.findall(r"`?\b(exif|hint|vision|default)\b`?", re.sub(r"\(.*?\)", "", value))
        if topic == "anything else":
            assert told == _order("Irgendetwas")
            continue
        synonyms = next(words for name, words in SYNONYMS.items() if name == topic)
        assert names == ", ".join(synonyms)
        assert told == _order(synonyms[0]), topic


def test_every_kind_of_column_is_told_to_be_written_or_not() -> None:
    told: dict[str, bool] = {}
    for cells, written in _table(METADATA, "## Which columns are written"):
        for kind in get_args(ColumnKind):
            if re.search(rf"\b{kind}\b", cells):
                told[kind] = written == "yes"
    assert told == {
        kind: Column(name="x", display_name="x", kind=kind).writable for kind in get_args(ColumnKind)
    }


def test_the_words_for_nobody_knows_are_all_named() -> None:
    assert f"({', '.join(UNSURE)})".replace(" ", "") in re.sub(r"\s", "", METADATA)


def test_limits_are_those_of_the_code() -> None:
    told = {row[0]: row[1] for row in _table(METADATA, "### Files that are filed")}
    for row, kind in (("JPEG", JPEG), ("PNG", PNG), ("WebP", WEBP), ("HEIC, HEIF", HEIC)):
        assert told[row].startswith(f"up to {kind.max_pixels / 1e6:g} megapixels")
    samples = JPEG_SCANS_MAX_SAMPLES / 1e6
    assert told["JPEG, progressive"] == (
        f"up to {samples:g} million samples, which are {samples / 1.5:g} megapixels as usual and"
        f" {samples / 3:g} with full colour resolution"
    )
    longest = PNG_ROW_MAX_BYTES
    assert told["PNG"].endswith(
        f"with rows up to {longest:,} bytes:"
        f" {longest // 4:,} pixels with transparency, {longest // 3:,} without"
    )
    whole = PNG_INTERLACED_MAX_BYTES / 1e6
    assert told["PNG, interlaced"].startswith(
        f"up to {whole:g} MB decoded: {whole / 3:g} megapixels, {whole / 4:g} with transparency"
    )
    assert told["HEIC, HEIF"].endswith(f"up to {HEIC_PIECE_MAX_PIXELS / 1e6:g} megapixels in one piece")
    assert f"a confidence below {DOUBTFUL}" in METADATA
    assert f"from a probability of {SURE}" in VISION
    assert f'"vermutlich"\nfrom {MAYBE}' in VISION
    assert f"from a probability of {faces.SURE}," in VISION
    assert f"less than about {faces.SMALLEST} pixels" in VISION
    assert set(re.findall(r"\{(\w+)\}", METADATA)) == PLACEHOLDERS


def test_the_settings_of_every_service_are_ones_that_work(tmp_path: Path) -> None:
    services = _table(VISION, "## Five services")
    assert len([row for row in services if "VISION_MODEL" in row[1]]) == 5
    for name, words in (row[:2] for row in services if "VISION_MODEL" in row[1]):
        given = dict(re.findall(r"`(VISION_\w+)=([^`]+)`", words))
        given = {key: re.sub(r"<[^>]+>", "x", value) for key, value in given.items()}
        settings = load(given | {"VISION_BACKEND": "openai"}, folder=tmp_path)
        analyzer = OpenAIAnalyzer(settings, None)  # type: ignore[arg-type]  # no budget is set: not asked
        assert analyzer._url().startswith(settings.vision_url), name


def test_the_table_of_vision_settings_has_their_defaults() -> None:
    defaults = {
        name.upper(): str(getattr(Settings(), name))
        for name in Settings.__struct_fields__
        if "vision" in name
    }
    told = {
        row[0]: row[1].strip("`")
        for row in _table(VISION, "## Five services")
        if row[0] in defaults and row[0] != "setting"
    }
    assert len(told) == 6
    assert told == {name: defaults[name].removesuffix(".0") for name in told}


def test_every_setting_that_is_named_exists() -> None:
    known = {name.upper() for name in Settings.__struct_fields__}
    # Kubernetes' workload identity sets them for azure-identity.
    known |= {"AZURE_AUTHORITY_HOST", "AZURE_FEDERATED_TOKEN_FILE"}
    for text in (METADATA, VISION, SHAREPOINT):
        named = set(
            re.findall(
                r"\b(?:VISION|AZURE|SHAREPOINT|GRAPH|MAX|FILE|SCHEMA|PHOTO|CACHE)_[A-Z_]*[A-Z]\b", text
            )
        )
        assert named <= known


def test_ways_to_sign_in_are_all_told() -> None:
    told = {
        row[0].removesuffix(" (default)").strip("`") for row in _table(SHAREPOINT, "## 1. Register an app")
    }
    assert told == {"secret", "certificate", "workload", "managed"}


def test_the_notice_names_everybody_whose_photos_are_used() -> None:
    notice = " ".join((ROOT / "NOTICE").read_text("utf-8").split())
    for line in ATTRIBUTION.splitlines():
        if line.startswith("  "):
            assert " ".join(line.split()) in notice
    assert "Attribution 2.0" in notice
    assert "Apache License 2.0" in notice
    assert "ImageNet" in notice
