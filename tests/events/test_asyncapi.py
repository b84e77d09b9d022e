"""docs/asyncapi.json accepts what the Publisher accepts, and refuses what it refuses."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest

from events import asyncapi
from events.connection import connect
from events.publisher import InvalidEventError, Publisher, parse_submission

DOCUMENT: Final = asyncapi.document()
SCHEMA: Final[dict[str, Any]] = {"$ref": "#/components/schemas/PhotoSubmitted"}
OK: Final = {"source_url": "https://photos.example.org/a.jpg"}
TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "string": (str,),
    "integer": (int,),
    "null": (type(None),),
}


def allows(schema: dict[str, Any], value: Any) -> bool:
    """Validate by the keywords of JSON Schema that the document uses for a submission."""
    while "$ref" in schema:
        at: Any = DOCUMENT
        for part in schema["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        schema = at
    unknown = schema.keys() - {
        *("title", "description", "default", "type", "anyOf", "not", "enum", "pattern", "maxLength"),
        *("minimum", "maximum", "properties", "required", "additionalProperties"),
    }
    assert not unknown, f"this test does not know {unknown}"
    if "anyOf" in schema and not any(allows(branch, value) for branch in schema["anyOf"]):
        return False
    if "not" in schema and allows(schema["not"], value):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return False
    if isinstance(value, str):
        return len(value) <= schema.get("maxLength", len(value)) and bool(
            re.search(schema.get("pattern", ""), value, re.ASCII)
        )
    if isinstance(value, int):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, dict):
        return _object(schema, value)
    return True


def _object(schema: dict[str, Any], value: dict[str, Any]) -> bool:
    known = schema.get("properties", {})
    if schema.get("additionalProperties", True) is False and value.keys() - known.keys():
        return False
    return value.keys() >= set(schema.get("required", ())) and all(
        allows(known[name], below) for name, below in value.items() if name in known
    )


async def publisher_accepts(value: dict[str, Any]) -> bool:
    async with connect("redis://localhost:1") as client:
        try:
            Publisher(client).check(parse_submission(json.dumps(value)))
        except InvalidEventError:
            return False
    return True


@pytest.mark.parametrize(
    "value",
    [
        OK,
        OK | {"session_id": "s-1", "photo_id": "p@1", "file_name": "Bild «1».jpg", "expected": 1},
        OK | {"session_id": "", "photo_id": None, "target": None, "hints": None, "expected": None},
        OK | {"hints": {"project": "x" * 255, "place": "", "text": "x" * 10_000, "taken_at": ""}},
        OK | {"hints": {"taken_at": "2026-05-12"}, "target": {"site": "/sites/Bau", "library": "Fotos"}},
        OK | {"hints": {"taken_at": "2026-05-12T10:30:00.25+02:00"}},
        OK | {"hints": {"taken_at": "8900-12-31 23:59"}},
        *(
            {"source_url": address}
            for address in (
                "HTTP://localhost:65535",
                "https://user:pw@[::1]:443/a?b#c",
                "https://photos.example.org?sig=a@b",
                "https://photos.example.org:/a",
                "file:/a b",
                "FILE:///x",
                "store:originals/1",
                "sharepoint:/sites/Bau/Eingang/a.jpg",
            )
        ),
    ],
)
async def test_what_the_publisher_takes_is_valid(value: dict[str, Any]) -> None:
    assert await publisher_accepts(value)
    assert allows(SCHEMA, value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        OK | {"fotograf": "x"},
        OK | {"hints": {"projekt": "x"}},
        OK | {"target": {"bibliothek": "x"}},
        OK | {"expected": 0},
        OK | {"expected": 10_000_001},
        OK | {"expected": "3"},
        *(OK | {"session_id": wrong} for wrong in ("a b", "lru", "x" * 129, "{1}:x", "-a", "a\nb")),
        *(OK | {"photo_id": wrong} for wrong in ("../etc", "é")),
        OK | {"target": {"library": "x" * 256}},
        OK | {"target": {"site": " "}},
        *(OK | {"hints": {name: "x" * 256}} for name in ("project", "place", "photographer")),
        OK | {"hints": {"text": "x" * 10_001}},
        OK | {"hints": {"photographer": "\t"}},
        *(
            OK | {"hints": {"taken_at": wrong}}
            for wrong in ("gestern", "1800-01-01", "9999-12-31", "2026-05-12T25:00", "2026-05-12T10:30+99:00")
        ),
        *(
            {"source_url": address}
            for address in (
                *("", " ", "photos/a.jpg", "ftp://host/a.jpg", "https:///a.jpg", "https:a.jpg", "file://"),
                *("https://host:99999/a", "https://host:abc/a", "https://x y/a.jpg", "store:", "store:/ /"),
            )
        ),
    ],
)
async def test_what_the_publisher_refuses_is_invalid(value: dict[str, Any]) -> None:
    assert not await publisher_accepts(value)
    assert not allows(SCHEMA, value)


def test_later_events_do_not_have_the_limits_of_a_submission() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert "additionalProperties" not in schemas["Hints"]
    assert "maxLength" not in json.dumps(schemas["SchemaExtracted"])
