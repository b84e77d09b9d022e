"""Read what a model answered, field by field: a field that cannot be read leaves the others as they are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events.types import FieldValue, NeedsPerson
from shared.columns import needs as codes
from shared.columns.words import UNSURE, first_choice, fold
from shared.vision.answer_schema import DOUBTFUL, SUMMARY
from shared.vision.answer_values import confidence_of, convert, plain
from shared.vision.contract import unsure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from events.types import FieldText
    from shared.columns.schema import Column
    from shared.vision.answer_schema import Asked

_THOUGHT_START: Final = re.compile(r"\s*<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_END: Final = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_FENCED: Final = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)```", re.DOTALL)
_STARTS: Final = 50
"""How many opening braces are tried in prose; each may be read to the end of the text."""
_ABSENT: Final = object()
_CUT: Final = "Die Antwort wurde vorher abgeschnitten."
# Models put line breaks into their texts, which strict JSON does not allow.
_DECODER: Final = json.JSONDecoder(strict=False)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an answer as read against the columns."""

    fields: dict[str, FieldValue] = {}
    """By internal column name."""
    needs: dict[str, NeedsPerson] = {}
    """By internal column name: the columns that a person shall look at."""
    summary: str = ""
    unread: dict[str, str] = {}
    """What could not be read, by property name: a German sentence for the model, and for people."""
    error: str = ""
    """Why nothing could be read, in the same words; empty if something could."""

    @property
    def needs_person(self) -> list[NeedsPerson]:
        """Return the columns that a person shall look at."""
        return list(self.needs.values())

    @property
    def errors(self) -> list[str]:
        """Return one sentence for each thing that could not be read, for the model to correct."""
        return [self.error] if self.error else [f"{key}: {text}" for key, text in self.unread.items()]


def read_answer(asked: Sequence[Asked], text: str, *, cut: bool = False) -> Reading:
    """Read an answer, with or without thoughts, prose or fences around its JSON.

    `cut`: the service ended it at its limit. Then the properties that are complete are read.
    """
    document = _document(asked, text, cut=cut)
    if document is None:
        return Reading(error=_no_document(text, cut=cut))
    fields: dict[str, FieldValue] = {}
    needs: dict[str, NeedsPerson] = {}
    unread: dict[str, str] = {}
    by_word = {fold(key): value for key, value in document.items()}
    for one in asked:
        key = one.key if one.key in document else one.column.name
        entry = document[key] if key in document else by_word.get(fold(one.column.display_name), _ABSENT)
        if entry is _ABSENT and cut:
            unread[one.key] = _CUT
            continue
        _read(one, {"value": None} if entry is None else entry, fields, needs, unread)
    summary = document.get(SUMMARY)
    return Reading(
        fields=fields,
        needs=needs,
        summary=plain(" ".join(summary.split())) if isinstance(summary, str) else "",
        unread=unread,
    )


def _no_document(text: str, *, cut: bool) -> str:
    """Return why a text has no answer, as a German sentence."""
    if not text.strip():
        return "Die Antwort ist leer."
    return "Die Antwort wurde abgeschnitten." if cut else "Das ist kein gültiges JSON-Objekt."


def better(first: Reading, second: Reading, asked: Sequence[Asked]) -> Reading:
    """Return for each column what `second` read, or where it read nothing what `first` did."""
    fields: dict[str, FieldValue] = {}
    needs: dict[str, NeedsPerson] = {}
    unread: dict[str, str] = {}
    for one in asked:
        name = one.column.name
        source = next((each for each in (second, first) if _was_read(each, one)), None)
        if source is None:
            unread[one.key] = (second.unread or first.unread).get(one.key, second.error or first.error)
            continue
        if name in source.fields:
            fields[name] = source.fields[name]
        if name in source.needs:
            needs[name] = source.needs[name]
    error = second.error if first.error and second.error else ""
    return Reading(
        fields=fields, needs=needs, summary=second.summary or first.summary, unread=unread, error=error
    )


def left_to_people(reading: Reading, asked: Sequence[Asked]) -> Reading:
    """Return the reading with every column that could not be read left to a person."""
    fields, needs = dict(reading.fields), dict(reading.needs)
    for one in asked:
        if one.key not in reading.unread and not reading.error:
            continue
        reason = reading.unread.get(one.key) or reading.error
        honest = unsure(one.column, f"Die Bildanalyse gab keinen lesbaren Wert. {reason}")
        if isinstance(honest, FieldValue):
            fields[one.column.name] = honest
        else:
            needs[one.column.name] = honest
    return msgspec.structs.replace(reading, fields=fields, needs=needs)


def _was_read(reading: Reading, one: Asked) -> bool:
    return not reading.error and one.key not in reading.unread


def _read(
    one: Asked,
    entry: object,
    fields: dict[str, FieldValue],
    needs: dict[str, NeedsPerson],
    unread: dict[str, str],
) -> None:
    """Read one column's entry into one of the three."""
    if not isinstance(entry, dict) or "value" not in entry:
        unread[one.key] = "Erwartet wird ein Objekt mit value und confidence."
        return
    value, wrong = convert(one, entry["value"])
    if wrong:
        unread[one.key] = wrong
        return
    confidence = confidence_of(entry.get("confidence"))
    if confidence is None:
        if value is not None:
            unread[one.key] = "confidence muss eine Zahl von 0 bis 1 sein."
            return
        confidence = 0.0
    _take(one.column, value, confidence, fields, needs)


def _take(
    column: Column,
    value: FieldText,
    confidence: float,
    fields: dict[str, FieldValue],
    needs: dict[str, NeedsPerson],
) -> None:
    """Put a value where it belongs: among the fields, and in doubt on a person's list."""
    doubtful = confidence < DOUBTFUL
    if value is None or (doubtful and first_choice(UNSURE, column.choices)):
        honest = unsure(column, "")
        if isinstance(honest, FieldValue):
            fields[column.name] = honest
        return
    fields[column.name] = FieldValue(value=value, source="vision", confidence=confidence)
    if doubtful:
        needs[column.name] = NeedsPerson(
            column=column.display_name,
            reason=f"Die Bildanalyse ist nur zu {confidence:.0%} sicher.",
            code=codes.UNSURE,
        )


def _document(asked: Sequence[Asked], text: str, *, cut: bool) -> dict[str, Any] | None:
    """Return the JSON object that answers most of the questions, None if there is no object."""
    keys = {SUMMARY, *(one.key for one in asked)}
    best: dict[str, Any] | None = None
    for candidate in _candidates(text, cut=cut):
        known = len(keys & candidate.keys())
        if best is None or known > len(keys & best.keys()):
            best = candidate
        if known == len(keys):
            break
    return best


def _candidates(text: str, *, cut: bool) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a text: all of it, what stands in fences, then what stands in prose.

    What a model thinks ends with ``</think>``; some servers leave the mark at its beginning away. A text that
    was cut inside its thoughts has no answer, only drafts of one.
    """
    *before, text = _THOUGHT_END.split(text)
    if cut and not before and _THOUGHT_START.match(text):
        return
    for part in (text, *_FENCED.findall(text)):
        yield from _objects(_decoded(part, 0)[0])
    at = text.find("{")
    for _ in range(_STARTS):
        if at < 0:
            return
        value, end = _decoded(text, at)
        yield from _objects(_complete_part(text, at) if cut and not end else value)
        if end and text[end:].lstrip().startswith(","):
            # A model closed the object too early and went on with its next property.
            yield from _objects(_decoded(text[: end - 1] + text[end:], at)[0])
        at = text.find("{", max(end, at + 1))


def _decoded(text: str, at: int) -> tuple[object, int]:
    """Return the JSON value that begins there, and its end; None and 0 if there is none."""
    start = at + len(text[at:]) - len(text[at:].lstrip())
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0


def _complete_part(text: str, at: int) -> dict[str, Any]:
    """Return the complete properties of the object that begins there and is cut off somewhere."""
    found: dict[str, Any] = {}
    while at < len(text) and text[at] in "{,":
        key, end = _decoded(text, at + 1)
        colon = end + len(text[end:]) - len(text[end:].lstrip())
        if not isinstance(key, str) or text[colon : colon + 1] != ":":
            break
        value, end = _decoded(text, colon + 1)
        at = end + len(text[end:]) - len(text[end:].lstrip())
        # a number may go on after the cut, so only a value with something behind it is complete
        if not end or at >= len(text):
            break
        found.setdefault(key, value)
    return found


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Yield an object, what a list of one holds, and an object that is wrapped in another."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return
    yield value
    if len(value) == 1:
        inner = next(iter(value.values()))
        if isinstance(inner, dict):
            yield inner
