"""Converts our values to Graph's and back, and compares them.

Dates: SharePoint stores a day as midnight in the site's zone and reports it in UTC. We write noon of that
zone, which is the same day in every zone a site may have. Several choices need the type beside the value, or
Graph refuses them.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from shared.columns.dates import as_value, moment
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from events.types import FieldText
    from shared.columns.schema import Column, LibrarySchema

_MARKUP: Final = re.compile(r"</?(?:div|p|br|span)\b[^>]*>", re.IGNORECASE)


def is_empty(value: FieldText) -> bool:
    """Return whether a value is empty. Empty values are not sent, so they never clear a stored value."""
    return value is None or value in ("", [])


def to_graph(
    schema: LibrarySchema, fields: Mapping[str, FieldText], *, prefixed: Collection[str] = ()
) -> dict[str, object]:
    """Make the body of a PATCH of fields. Empty values are left out.

    `prefixed`: columns that SharePoint takes under its REST name, ``OData__x00c4_hnliche``.

    Raises PermanentError for a column that the library does not have or that may not be written, and for a
    value of another kind than the column's.
    """
    body: dict[str, object] = {}
    for name, value in fields.items():
        if is_empty(value):
            continue
        column = schema.column(name)
        if column is None:
            raise PermanentError(f"the library {schema.library!r} has no column {name!r}")
        if not column.writable:
            raise PermanentError(
                f"the column {column.display_name!r} of {schema.library!r} cannot be written"
            )
        key = f"OData_{name}" if name in prefixed else name
        if column.kind == "multi_choice":
            body[f"{key}@odata.type"] = "Collection(Edm.String)"
        body[key] = _written(column, value, schema.time_zone)
    return body


def from_graph(schema: LibrarySchema, raw: Mapping[str, Any]) -> dict[str, FieldText]:
    """Read an item's ``fields``: a value for every column of a kind we write, None where none is stored."""
    return {
        # A name that begins with an underscore may come back with SharePoint REST's prefix.
        column.name: _read(column, raw.get(column.name, raw.get(f"OData_{column.name}")), schema.time_zone)
        for column in schema.columns
        if column.kind not in ("lookup", "person", "calculated", "unsupported")
    }


def same(column: Column, sent: FieldText, stored: FieldText) -> bool:
    """Return whether the stored value is the sent one, as a person would see it.

    If nothing was sent, every stored value is right. Differences that SharePoint makes by itself do not
    count: line ends, blanks at the ends, the order of choices, markup around a plain note.
    """
    if is_empty(sent):
        return True
    if is_empty(stored):
        return False
    match column.kind:
        case "number":
            return _numeric(sent) and _numeric(stored) and math.isclose(float(sent), float(stored))  # type: ignore[arg-type]  # both are numbers, as just asked
        case "multi_choice":
            return isinstance(sent, list) and isinstance(stored, list) and sorted(sent) == sorted(stored)
        case "date_time":
            return _instant(sent) == _instant(stored)
        case "note" if column.rich:
            # Markup does not keep line ends apart from blanks.
            return _plain(sent).split() == _plain(stored).split()
        case "text" | "note" | "choice":
            return _plain(sent) == _plain(stored)
        case _:
            return type(sent) is type(stored) and sent == stored


def default_of(column: Column) -> FieldText:
    """Return the default value of a new item; None if there is none or it cannot be predicted (a formula)."""
    text = column.default
    if not text:
        return None
    match column.kind:
        case "boolean":
            return text.casefold() in ("1", "true", "yes")
        case "number":
            try:
                return float(text)
            except ValueError:
                return None
        case "multi_choice":
            return [choice for choice in text.split(";#") if choice]
        case "text" | "note" | "choice":
            return text
        case _:
            return None


def _written(column: Column, value: FieldText, zone: str) -> object:
    match column.kind:
        case "note" if column.rich and isinstance(value, str):
            return html.escape(value, quote=False).replace("\n", "<br>")
        case "text" | "note" | "choice" if isinstance(value, str):
            return value
        case "multi_choice" if isinstance(value, list):
            return value
        case "number" if _numeric(value):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "date" | "date_time" if isinstance(value, str):
            when = moment(value, zone)
            if when is not None:
                return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    raise PermanentError(f"{value!r} is no value for the column {column.display_name!r} ({column.kind})")


def _read(column: Column, raw: Any, zone: str) -> FieldText:
    match column.kind:
        case "note" if column.rich:
            return None if raw is None else _without_markup(_text(raw)).replace("\u200b", "").strip()
        case "text" | "note" | "choice":
            return None if raw is None else _text(raw)
        case "multi_choice":
            return [str(value) for value in raw] if isinstance(raw, list) else None
        case "number":
            return raw if _numeric(raw) else None
        case "boolean":
            return raw if isinstance(raw, bool) else None
        case _:
            when = moment(raw, zone) if isinstance(raw, str) else None
            return None if when is None else as_value(column, when, zone)


def _text(raw: Any) -> str:
    """Read text. A link arrives as an object: its address without the query is returned."""
    if isinstance(raw, dict):
        return urlsplit(str(raw.get("Url", "")))._replace(query="", fragment="").geturl()
    return str(raw)


def _numeric(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _instant(value: FieldText) -> datetime | None:
    """Read a moment to the second, because SharePoint stores no fractions."""
    when = moment(value, "UTC") if isinstance(value, str) else None
    return when.astimezone(UTC).replace(microsecond=0) if when else None


def _plain(value: FieldText) -> str:
    text = str(value)
    if _MARKUP.search(text):
        text = _without_markup(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u200b", "")
    return unicodedata.normalize("NFC", "\n".join(line.rstrip() for line in text.split("\n")).strip())


class _Words(HTMLParser):
    """Collects the text of a note that SharePoint wrapped in markup."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag == "br":
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "div"):
            self.parts.append("\n")


def _without_markup(text: str) -> str:
    words = _Words()
    words.feed(text)
    words.close()
    return "".join(words.parts)
