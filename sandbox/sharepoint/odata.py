"""The part of OData that Graph's clients use here: $select, $expand, $filter, $top, opaque page tokens."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from sandbox.sharepoint.errors import invalid, unknown_property

if TYPE_CHECKING:
    from collections.abc import Mapping

_EQUALS = re.compile(r"\s*([\w/@.]+)\s+eq\s+('(?:[^']|'')*'|[\w.:-]+)\s*")
_PREFIX = re.compile(r"startswith\(\s*([\w/@.]+)\s*,\s*'((?:[^']|'')*)'\s*\)")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What of one expanded thing is wanted: ``fields($select=A,B)``."""

    select: tuple[str, ...] | None = None
    expand: Mapping[str, Expansion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One term of a filter; `prefix`: startswith instead of eq."""

    name: str
    value: str
    prefix: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value satisfies it; text is compared without regard to case, as SharePoint does."""
        text = str(value).lower() if isinstance(value, bool) else str(value if value is not None else "")
        if self.prefix:
            return text.casefold().startswith(self.value.casefold())
        return text.casefold() == self.value.casefold()


def option(query: Mapping[str, str], name: str) -> str | None:
    """An option with or without its dollar sign; v1.0 takes both."""
    value = query.get("$" + name)
    return query.get(name) if value is None else value


def parse_select(text: str | None) -> tuple[str, ...] | None:
    """The names of a $select; None if there is none."""
    if text is None or not text.strip():
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_expand(text: str | None) -> dict[str, Expansion]:
    """The things a $expand names, each with its own options. Raises GraphError 400."""
    result: dict[str, Expansion] = {}
    for part in _split(text or "", ","):
        name, bracket, rest = part.partition("(")
        if bracket and not rest.endswith(")"):
            raise invalid("The $expand expression has unbalanced brackets.")
        options = {
            key.strip().removeprefix("$"): value
            for key, _, value in (option.partition("=") for option in _split(rest[:-1], ";"))
        }
        unknown = options.keys() - {"select", "expand"}
        if unknown:
            raise invalid(f"The option '{min(unknown)}' is not allowed within $expand.")
        result[name.strip()] = Expansion(
            parse_select(options.get("select")), parse_expand(options.get("expand"))
        )
    return result


def _split(text: str, separator: str) -> list[str]:
    """Split where no bracket is open."""
    parts: list[str] = [""]
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def parse_filter(text: str | None) -> tuple[Comparison, ...]:
    """The terms of a $filter, joined by ``and``. Raises GraphError 400 for what is not supported here."""
    if text is None:
        return ()
    terms = []
    rest = text
    while rest:
        if found := _PREFIX.match(rest.lstrip()):
            rest = rest.lstrip()
            terms.append(Comparison(found[1], found[2].replace("''", "'"), prefix=True))
        elif found := _EQUALS.match(rest):
            value = found[2][1:-1].replace("''", "'") if found[2].startswith("'") else found[2]
            terms.append(Comparison(found[1], value))
        else:
            raise invalid("Invalid filter clause: only eq and startswith, joined by and, are supported.")
        rest = rest[found.end() :].strip()
        if rest:
            word, _, rest = rest.partition(" ")
            if word != "and" or not rest.strip():
                raise invalid("Invalid filter clause: expected 'and' between two terms.")
    return tuple(terms)


def parse_top(text: str | None, *, default: int, limit: int) -> int:
    """The page size. Raises GraphError 400."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise invalid(f"Invalid value '{text[:20]}' for the query option $top: expected a positive number.")
    return min(int(text), limit)


def pack_token(**content: object) -> str:
    """An opaque token that holds `content`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(content)).decode().rstrip("=")


def unpack_token(token: str) -> dict[str, object]:
    """What a token holds. Raises GraphError 400."""
    try:
        return msgspec.json.decode(
            base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=dict[str, object]
        )
    except (binascii.Error, UnicodeError, ValueError, msgspec.DecodeError):
        raise invalid("The provided paging or delta token is malformed.") from None


_PROPERTIES: Final = {
    "driveItem": frozenset(
        {
            "id", "name", "description", "webUrl", "webDavUrl", "eTag", "cTag", "size", "createdBy",
            "createdDateTime", "lastModifiedBy", "lastModifiedDateTime", "parentReference", "file", "folder",
            "image", "photo", "location", "video", "audio", "deleted", "root", "shared", "sharepointIds",
            "fileSystemInfo", "publication", "content", "malware", "package", "pendingOperations",
            "remoteItem", "searchResult", "specialFolder", "bundle", "listItem", "children", "versions",
            "thumbnails", "permissions", "@microsoft.graph.downloadUrl",
        }
    ),
    "listItem": frozenset(
        {
            "id", "name", "description", "webUrl", "eTag", "createdBy", "createdDateTime", "lastModifiedBy",
            "lastModifiedDateTime", "parentReference", "contentType", "sharepointIds", "fields", "driveItem",
            "versions", "analytics", "deleted",
        }
    ),
    "columnDefinition": frozenset(
        {
            "id", "name", "displayName", "description", "columnGroup", "hidden", "indexed", "readOnly",
            "required", "enforceUniqueValues", "defaultValue", "text", "choice", "number", "currency",
            "dateTime", "boolean", "lookup", "personOrGroup", "calculated", "geolocation",
            "hyperlinkOrPicture", "term", "thumbnail", "contentApprovalStatus", "type", "validation",
            "isDeletable", "isReorderable", "isSealed", "propagateChanges", "sourceColumn",
            "sourceContentType",
        }
    ),
    "list": frozenset(
        {
            "id", "name", "displayName", "description", "webUrl", "eTag", "createdBy", "createdDateTime",
            "lastModifiedBy", "lastModifiedDateTime", "parentReference", "list", "sharepointIds", "system",
            "columns", "contentTypes", "drive", "items", "operations", "subscriptions",
        }
    ),
}  # fmt: skip
"""The properties that each resource type's page lists (learn.microsoft.com, Microsoft Graph v1.0)."""


def check_select(select: tuple[str, ...] | None, kind: str) -> None:
    """Refuse a $select of what the type does not have. Raises GraphError 400."""
    for name in select or ():
        if name not in _PROPERTIES[kind]:
            raise unknown_property(name, kind)


def refuse_skip(query: Mapping[str, str]) -> None:
    """Refuse ``$skip``, which files and list items do not take. Raises GraphError 400.

    Source: "Paging Microsoft Graph data": pages are followed by their link.
    """
    if option(query, "skip") is not None:
        raise invalid(
            "$skip is not supported on this API. Only URLs returned by the API can be used to page."
        )


def selected(body: Mapping[str, object], select: tuple[str, ...] | None) -> dict[str, object]:
    """Only the selected properties; annotations such as the eTag stay."""
    if select is None:
        return dict(body)
    return {key: value for key, value in body.items() if key in select or key.startswith("@odata.")}
