"""States the publisher's limits as JSON Schema, so that docs/asyncapi.json refuses what `Publisher` refuses.

The event types do not hold them, because an agent also reads what was written without our code, and a hint
that is too long costs no photo there.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from . import identities, submission

MAX_EVENT_ID: Final = 256
"""Characters of an event id."""
MAX_SOURCE: Final = 1024
"""Characters of an event's source."""


def _any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" for letter in word)


def _one_of(words: list[str]) -> str:
    return f"(?:{'|'.join(map(_any_case, words))})"


_WEB: Final = ["http", "https"]
_PORT: Final = r"0*(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST: Final = r"(?:[^/?#@]*@)?(?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)"
# [\s\S] is any character, a newline included, for every regular expression engine
_SOURCE_URL: Final = (
    rf"^{_one_of(_WEB)}://{_HOST}(?::(?:{_PORT})?)?(?:[/?#][\s\S]*)?$"
    rf"|^{_one_of([name for name in submission.SCHEMES if name not in _WEB])}:[\s\S]*[^/ ]"
)
_EMPTY_OR_TEXT: Final = r"^$|\S"
_YEAR: Final = r"(?:19\d\d|[2-7]\d\d\d|8[0-8]\d\d|8900)"
_DAY: Final = r"(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_TIME: Final = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)?"
_TAKEN_AT: Final = rf"^$|^{_YEAR}-{_DAY}(?:[Tt ]{_TIME})?$"
_OWN_ID: Final = rf"^$|^{identities.ID_PATTERN}$"

ATTRIBUTES: Final[dict[str, dict[str, Any]]] = {
    "id": {"minLength": 1, "maxLength": MAX_EVENT_ID},
    "source": {"minLength": 1, "maxLength": MAX_SOURCE, "format": "uri-reference"},
    "specversion": {"const": "1.0"},
    "time": {"format": "date-time"},
    "subject": {"pattern": f"^{identities.ID_PATTERN}$"},
    "sessionid": {"pattern": f"^{identities.ID_PATTERN}$"},
}
"""Beside the description of each attribute."""


def restrict(schemas: dict[str, Any]) -> None:
    """Put the limits into the schema of a submission; `Target` and `Hints` of later events keep none."""
    submitted = schemas["PhotoSubmitted"]
    for part in ("target", "hints"):
        name = part.capitalize()
        own = schemas[f"Submitted{name}"] = copy.deepcopy(schemas[name])
        own["title"] = f"Submitted{name}"
        own["additionalProperties"] = False
        for field, schema in own["properties"].items():
            if field == "taken_at":
                _texts(schema, pattern=_TAKEN_AT)
            else:
                limit = submission.LONGEST[f"{part}.{field}"]
                _texts(schema, pattern=_EMPTY_OR_TEXT, maxLength=limit)
        for branch in submitted["properties"][part]["anyOf"]:
            if "$ref" in branch:
                branch["$ref"] = branch["$ref"].replace(f"/{name}", f"/Submitted{name}")
    submitted["additionalProperties"] = False
    fields = submitted["properties"]
    _texts(fields["source_url"], pattern=_SOURCE_URL)
    _texts(fields["photo_id"], pattern=_OWN_ID)
    _texts(fields["session_id"], pattern=_OWN_ID)
    fields["session_id"]["not"] = {"enum": sorted(identities.RESERVED_SESSIONS)}
    for branch in fields["expected"]["anyOf"]:
        if branch["type"] == "integer":
            branch["minimum"] = 1


def _texts(schema: dict[str, Any], **rules: Any) -> None:
    """Put rules beside the type `string`, where the field may also be null."""
    for branch in schema.get("anyOf", [schema]):
        if branch.get("type") == "string":
            branch.update(rules)
