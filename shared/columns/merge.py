"""Decides which source wins for which field, and what is left for a person.

==================================  =====================================================
column about                        its value, the first of
==================================  =====================================================
taken date                          EXIF (not before 1990, not in the future), the hint
place                               the hint, the EXIF position in words
project, photographer               the hint alone
title                               the analyzer, the file's name
reviewed                            "no": a person says yes
everything else (the content)       the analyzer alone
==================================  =====================================================

Then the library's own default. A value that the column does not take is no value, and nothing is made up in
its place. On the needs-a-person list go the columns the analyzer wants looked at, those given a value that
they do not take, and required ones without any; an optional column that nobody said anything about stays
empty without a word, or every photo would be on the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from events.types import FieldText, FieldValue, Hints, NeedsPerson
from shared.columns import needs as codes
from shared.columns.checks import check_value
from shared.columns.dates import as_value, moment
from shared.columns.topics import topic_of
from shared.columns.words import match_choice

if TYPE_CHECKING:
    from shared.columns.schema import Column, LibrarySchema

NOT_SEEN: Final = frozenset({"project", "place", "taken_at", "photographer", "reviewed"})
"""Topics that no picture shows. An analyzer is not asked about them, and its values for them are ignored."""

# No camera that writes EXIF is older, and a clock never set says 1970 or 1980.
_OLDEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
# A camera's time without offset is local time somewhere: up to 14 hours ahead of UTC.
_AHEAD: Final = timedelta(hours=14)


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what is known about a photo, by where it comes from."""

    hints: Hints = Hints()
    exif_taken_at: str | None = None
    """RFC 3339; without an offset it is local time of the site."""
    exif_position: str | None = None
    """The position in words, as a place column shows it. Personal data: nothing logs it."""
    file_name: str | None = None
    vision: Mapping[str, FieldValue] = {}
    """The analyzer's values by internal column name."""
    vision_needs: Sequence[NeedsPerson] = ()
    """The columns that the analyzer leaves to a person."""


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a value for every column that has one, and the columns a person must look at."""

    fields: dict[str, FieldValue]
    """By internal column name; every value passes `check_value`."""
    needs_person: list[NeedsPerson]


def merge(schema: LibrarySchema, sources: Sources, *, now: datetime | None = None) -> Merged:
    """Decide every column we may write. `now` is for judging the taken date (default: the clock)."""
    fields: dict[str, FieldValue] = {}
    needs: list[NeedsPerson] = []
    wanted_by_analyzer = {need.column: need for need in sources.vision_needs}
    for column in schema.writable:
        candidates = _candidates(column, schema, sources, now or datetime.now(UTC))
        value = next((one for one in candidates if _wrong(column, one.value) is None), None)
        if value is None:
            default = FieldValue(value=_library_default(column), source="default")
            value = default if _wrong(column, default.value) is None else None
        if value is not None:
            fields[column.name] = value
        asked = None if topic_of(column) in NOT_SEEN else wanted_by_analyzer.get(column.display_name)
        if asked is not None:
            needs.append(asked)
        elif value is None and (need := _need(column, candidates)):
            needs.append(need)
    return Merged(fields=fields, needs_person=needs)


def _candidates(column: Column, schema: LibrarySchema, sources: Sources, now: datetime) -> list[FieldValue]:
    """List the values a column may take, best first, including those that do not fit it."""
    hints, zone = sources.hints, schema.time_zone
    seen = sources.vision.get(column.name)
    match topic_of(column):
        case "taken_at":
            exif = moment(sources.exif_taken_at or "", zone)
            if exif is not None and not _OLDEST <= exif <= now + _AHEAD:
                exif = None
            hint = moment(hints.taken_at or "", zone)
            return [
                FieldValue(value=as_value(column, exif, zone) if exif else None, source="exif"),
                FieldValue(value=as_value(column, hint, zone) if hint else None, source="hint"),
            ]
        case "place":
            # as a choice a position would only be refused, and the refusal would reveal it
            position = sources.exif_position if column.kind in ("text", "note") else None
            return [
                FieldValue(value=_in_words(column, hints.place), source="hint"),
                FieldValue(value=position, source="exif"),
            ]
        case "project":
            return [FieldValue(value=_in_words(column, hints.project), source="hint")]
        case "photographer":
            return [FieldValue(value=_in_words(column, hints.photographer), source="hint")]
        case "reviewed":
            return [FieldValue(value=False, source="default")] if column.kind == "boolean" else []
        case "title":
            name = PurePosixPath(sources.file_name or "").stem.strip()
            named = FieldValue(value=_in_words(column, name), source="default")
            return [seen, named] if seen else [named]
        case _:
            return [seen] if seen else []


def _in_words(column: Column, text: str | None) -> FieldText:
    """Convert `text` for the column: the choice it means, or itself (`check_value` judges it)."""
    text = (text or "").strip()
    if not text:
        return None
    match column.kind:
        case "choice":
            return match_choice(text, column.choices) or text
        case "multi_choice":
            return [match_choice(text, column.choices) or text]
        case _:
            return text


def _library_default(column: Column) -> FieldText:
    """Convert the column's default, which arrives as text, to a value of its kind."""
    text = column.default
    if text is None:
        return None
    match column.kind:
        case "multi_choice":
            return [text]
        case "boolean":
            return {"1": True, "true": True, "0": False, "false": False}.get(text.casefold())
        case "number":
            try:
                return float(text)
            except ValueError:
                return None
        case _:
            return text


def _wrong(column: Column, value: FieldText) -> str | None:
    """Describe why a value does not fit the column. An empty value never fits, required or not."""
    if value is None or value in ("", []):
        return "kein Wert"
    return check_value(column, value)


def _need(column: Column, candidates: list[FieldValue]) -> NeedsPerson | None:
    """Say why an empty column is left to a person; None if it is not."""
    given = [one for one in candidates if one.value is not None]
    if given:
        reason = f"«{_shown(given[0].value)}» passt nicht: {_wrong(column, given[0].value)}"
        code = codes.DOES_NOT_FIT
    elif column.required:
        missing = _MISSING.get(topic_of(column) or "", "Die Bildanalyse nennt keinen Wert.")
        reason = f"Pflichtfeld ohne Wert: {missing}"
        code = codes.MISSING
    else:
        return None
    return NeedsPerson(column=column.display_name, reason=reason, code=code)


def _shown(value: FieldText) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


_MISSING: Final = {
    "project": "Beim Einreichen wurde kein Projekt angegeben.",
    "photographer": "Beim Einreichen wurde niemand angegeben.",
    "place": "Beim Einreichen wurde kein Ort angegeben, und das Foto hilft nicht weiter.",
    "taken_at": "Das Foto trägt kein brauchbares Aufnahmedatum, und keines wurde angegeben.",
    "reviewed": "Das entscheidet ein Mensch.",
}
