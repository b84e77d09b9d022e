"""Build the JSON schema of an answer from the library's columns.

The schema fits the strictest service. Strict mode requires every property, allows no others, uses null where
a value may be missing, and knows no keyword beyond type, enum and description (Azure has no pattern, length
or range). It takes 100 properties, 500 enum values in all, 250 in one enum and 15,000 characters of names and
values (the first limits of OpenAI and Azure; OpenAI raised them later). Choices that do not fit are asked for
as plain text, and the answer is matched to them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from shared.columns.merge import NOT_SEEN
from shared.columns.schema import Column
from shared.columns.topics import topic_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.columns.schema import LibrarySchema

JsonObject: TypeAlias = dict[str, Any]

SUMMARY: Final = "bildinhalt"
"""The model writes this first, because a model that has described the picture chooses better."""
DOUBTFUL: Final = 0.5
"""Below this confidence a person is asked to look."""

_MAX_PROPERTIES: Final = 100
_MAX_ENUM_VALUES: Final = 500
_MAX_ONE_ENUM: Final = 250
_MAX_CHARACTERS: Final = 15_000
_MAX_COLUMNS: Final = (_MAX_PROPERTIES - 1) // 3
"""Each column takes three properties: itself, its value and its confidence."""
_MAX_KEY: Final = 64


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Name a column that the model is asked about."""

    key: str
    """Its property's name: ASCII, unique."""
    column: Column
    plain: bool
    """Whether the choices are too many for the schema: asked as text, matched afterwards."""


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
        case "number" if column.percent:
            parts.append("Anteil von 0 bis 1: 60 % ist 0.6")
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
