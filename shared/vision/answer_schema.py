"""The JSON schema an answer has to follow, built from the library's columns, and reading such an answer.

Built for the strictest service: strict mode wants every property required, no others, null where a value may
be missing, and no keyword beyond type, enum and description (Azure knows no pattern, length or range); it
takes 100 properties, 500 enum values in all, 250 in one enum and 15,000 characters of names and values
(OpenAI's and Azure's first limits, later raised by OpenAI). What no longer fits is asked for as plain text
and matched afterwards.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from events.types import FieldText, FieldValue, NeedsPerson
from shared.columns import needs as codes
from shared.columns.checks import check_value
from shared.columns.merge import NOT_SEEN
from shared.columns.schema import Column
from shared.columns.topics import topic_of
from shared.columns.words import UNSURE, first_choice, match_choice
from shared.vision.contract import unsure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.columns.schema import LibrarySchema

JsonObject: TypeAlias = dict[str, Any]

SUMMARY: Final = "bildinhalt"
"""Asked for first: a model that has said what it sees chooses better."""
DOUBTFUL: Final = 0.5
"""The confidence below which a person shall look."""

_MAX_PROPERTIES: Final = 100
_MAX_ENUM_VALUES: Final = 500
_MAX_ONE_ENUM: Final = 250
_MAX_CHARACTERS: Final = 15_000
_MAX_COLUMNS: Final = (_MAX_PROPERTIES - 1) // 3
"""Each column is an object of two: its value, and how sure the model is."""
_MAX_KEY: Final = 64


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A column that the model is asked about."""

    key: str
    """Its property's name: ASCII, unique."""
    column: Column
    plain: bool
    """Whether the choices are too many for the schema: asked as text, matched afterwards."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, read against the columns."""

    fields: dict[str, FieldValue]
    needs_person: list[NeedsPerson]
    summary: str
    errors: list[str]
    """German sentences for the model: what does not hold; empty if all does."""


def asked_of(schema: LibrarySchema) -> tuple[Asked, ...]:
    """The columns a picture can fill, in the library's order; of too many, the required ones first."""
    columns = [column for column in schema.writable if topic_of(column) not in NOT_SEEN]
    kept = sorted(columns, key=lambda column: not column.required)[:_MAX_COLUMNS]
    keys: dict[str, Column] = {}
    for column in columns:
        if column in kept:
            keys[_unique(_key(column), keys)] = column
    plain = {key for key, column in keys.items() if len(column.choices) > _MAX_ONE_ENUM}
    # the longest list goes first: that is the one that makes room
    for key in sorted(keys, key=lambda key: sum(map(len, keys[key].choices)), reverse=True):
        if _fits([(name, column) for name, column in keys.items() if name not in plain], keys):
            break
        plain.add(key)
    return tuple(Asked(key=key, column=column, plain=key in plain) for key, column in keys.items())


def json_schema(asked: Sequence[Asked]) -> JsonObject:
    """The schema in strict mode's terms."""
    properties: JsonObject = {
        SUMMARY: {"type": "string", "description": "Ein Satz: was ist auf dem Bild zu sehen?"}
    }
    for one in asked:
        properties[one.key] = _object(
            {
                "value": _value_schema(one),
                "confidence": {"type": "number", "description": "0 (geraten) bis 1 (sicher)"},
            },
            _described(one.column),
        )
    return _object(properties, None)


def read_answer(asked: Sequence[Asked], text: str) -> Reading:
    """Read an answer. Everything that does not hold is an error in words, for the model to mend."""
    fields: dict[str, FieldValue] = {}
    needs: list[NeedsPerson] = []
    errors: list[str] = []
    try:
        document = msgspec.json.decode(_unfenced(text))
    except msgspec.DecodeError as error:
        return Reading(
            fields={}, needs_person=[], summary="", errors=[f"Das ist kein gültiges JSON: {error}."]
        )
    if not isinstance(document, dict):
        return Reading(fields={}, needs_person=[], summary="", errors=["Erwartet wird ein JSON-Objekt."])
    for one in asked:
        entry = document.get(one.key)
        if not isinstance(entry, dict) or "value" not in entry:
            errors.append(f"{one.key}: Erwartet wird ein Objekt mit value und confidence.")
            continue
        confidence = entry.get("confidence")
        if (
            isinstance(confidence, bool)
            or not isinstance(confidence, int | float)
            or not 0 <= confidence <= 1
        ):
            errors.append(f"{one.key}: confidence muss eine Zahl von 0 bis 1 sein.")
            continue
        value, wrong = _converted(one, entry["value"])
        if wrong:
            errors.append(f"{one.key}: {wrong}")
            continue
        _take(one.column, value, round(float(confidence), 2), fields, needs)
    summary = document.get(SUMMARY)
    if not isinstance(summary, str):
        errors.append(f"{SUMMARY}: Erwartet wird ein Satz.")
        summary = ""
    return Reading(fields=fields, needs_person=needs, summary=" ".join(summary.split()), errors=errors)


def _take(
    column: Column,
    value: FieldText,
    confidence: float,
    fields: dict[str, FieldValue],
    needs: list[NeedsPerson],
) -> None:
    """Put a value that holds where it belongs: among the fields, and in doubt on a person's list."""
    doubtful = confidence < DOUBTFUL
    if value is None or value == [] or (doubtful and first_choice(UNSURE, column.choices)):
        said = unsure(column, "")
        if isinstance(said, FieldValue):
            fields[column.name] = said
        return
    fields[column.name] = FieldValue(value=value, source="vision", confidence=confidence)
    if doubtful:
        needs.append(
            NeedsPerson(
                column=column.display_name,
                reason=f"Die Bildanalyse ist nur zu {confidence:.0%} sicher.",
                code=codes.UNSURE,
            )
        )


def _converted(one: Asked, value: Any) -> tuple[FieldText, str | None]:
    """The value as the column takes it, or what is wrong with it."""
    column = one.column
    match column.kind, value:
        case _, None | "":
            return None, None
        case "choice", str():
            value = match_choice(value, column.choices, close=one.plain) or value
        case "multi_choice", list():
            found = [match_choice(str(item), column.choices, close=one.plain) or str(item) for item in value]
            value = list(dict.fromkeys(found))
        case "text", str():
            value = " ".join(value.split())
        case "note", str():
            value = value.strip()
        case "number", int() | float() if column.percent and _is_in_hundreds(column, value):
            value = value / 100
    if not isinstance(value, str | bool | int | float | list):
        return None, "Diese Art von Wert passt nicht in die Spalte."
    return value, check_value(column, value)


def _is_in_hundreds(column: Column, value: float) -> bool:
    """Return whether a percentage is written as 60 where the column holds 0.6."""
    return abs(value) > 1 and (column.maximum is None or value > column.maximum)


def _value_schema(one: Asked) -> JsonObject:
    column = one.column
    match column.kind:
        case "choice":
            if one.plain:
                return {"type": ["string", "null"]}
            return {"type": ["string", "null"], "enum": [*column.choices, None]}
        case "multi_choice":
            items: JsonObject = {"type": "string"}
            return {"type": "array", "items": items if one.plain else items | {"enum": [*column.choices]}}
        case "number":
            return {"type": ["number", "null"]}
        case "boolean":
            return {"type": ["boolean", "null"]}
        case _:
            return {"type": ["string", "null"]}


def _described(column: Column) -> str:
    """What the model has to know of a column: its name for people, its description, its limits."""
    parts = [column.display_name]
    if column.description:
        parts.append(column.description)
    match column.kind:
        case "multi_choice":
            parts.append("alle Werte, die zutreffen")
        case "date":
            parts.append("Datum als JJJJ-MM-TT")
        case "date_time":
            parts.append("Zeitpunkt als JJJJ-MM-TTThh:mm:ssZ")
        case "number" if column.minimum is not None or column.maximum is not None:
            low = "" if column.minimum is None else f"von {column.minimum:g} "
            high = "" if column.maximum is None else f"bis {column.maximum:g}"
            parts.append(f"Zahl {low}{high}".strip())
        case "text" | "note" if column.max_length is not None:
            parts.append(f"höchstens {column.max_length} Zeichen")
    return "; ".join(parts)


def _object(properties: JsonObject, description: str | None) -> JsonObject:
    schema: JsonObject = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return schema if description is None else schema | {"description": description}


def _fits(listed: list[tuple[str, Column]], keys: dict[str, Column]) -> bool:
    """Whether the columns whose choices are listed keep all within the limits."""
    values = sum(len(column.choices) + (column.kind == "choice") for _, column in listed if column.choices)
    names = len(SUMMARY) + sum(len(key) + len("valueconfidence") for key in keys)
    characters = names + sum(len(choice) for _, column in listed for choice in column.choices)
    return values <= _MAX_ENUM_VALUES and characters <= _MAX_CHARACTERS


def _key(column: Column) -> str:
    """A property name that people and models can read: ``Gebäudetyp`` → ``Gebaeudetyp``."""
    text = column.display_name.translate(
        {
            ord(char): plain
            for char, plain in zip("äöüÄÖÜß", ("ae", "oe", "ue", "Ae", "Oe", "Ue", "ss"), strict=True)
        }
    )
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[: _MAX_KEY - 4] or "Spalte"


def _unique(key: str, taken: dict[str, Column]) -> str:
    number, name = 2, key
    while name in taken or name == SUMMARY:
        name, number = f"{key}_{number}", number + 1
    return name


def _unfenced(text: str) -> str:
    """Without the Markdown fence that models without strict mode like to put around JSON."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    return fenced[1] if fenced else text
