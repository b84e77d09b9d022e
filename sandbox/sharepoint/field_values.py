"""The values of a list item: what may be written, in which form, and what is read back.

Rules that clients trip over, as the real service has them: a multi-choice value needs its ``@odata.type``
beside it; columns that v1.0 shows without a facet cannot be written; a name that begins with an escaped
umlaut is not recognized; a date without time is kept as a day of the site's zone and read back as that day's
beginning in UTC; a value outside a choice column's choices is *accepted*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from sandbox.sharepoint import versions
from sandbox.sharepoint.columns import SYSTEM_NAMES, UNWRITABLE_FACETS
from sandbox.sharepoint.errors import GraphError, invalid
from sandbox.sharepoint.shipped import SITE_TIME_ZONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.sharepoint.model import Column, Item, JsonObject, ListRecord
    from sandbox.sharepoint.store import Store

_ZONE: Final = ZoneInfo(SITE_TIME_ZONE)
_TYPE: Final = "@odata.type"
_LOOKUP: Final = "LookupId"
_NOTE_LENGTH: Final = 63_999  # characters of a multiple-lines column (SharePoint limits)
_MAX_NUMBER: Final = 1.7976931348623157e308  # a double
_FIRST_YEAR: Final = 1900
_LAST_YEAR: Final = 8900  # SharePoint knows no other dates
_MAX_LOOKUPS: Final = 12  # lookup columns per query (fieldValueSet resource)
_FORMULA_TERM: Final = re.compile(r'\s*(?:\[([^\]]+)\]|"([^"]*)")\s*(?:&|$)')
APP_USER_ID: Final = 6
PERSON_USER_ID: Final = 11
"""Ids in the site's user list of the local client and of a person in the browser."""


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write: the new values, the names that were sent and those that changed."""

    fields: JsonObject
    sent: tuple[str, ...]
    changed: tuple[str, ...]
    new_name: str | None
    """The file's new name, where ``FileLeafRef`` was written."""


def write(store: Store, record: ListRecord, item: Item, body: JsonObject, *, by_person: bool) -> Written:
    """The values after a PATCH with `body`; nothing is stored. Raises GraphError 400.

    A person's form sends lists without annotation and knows no trouble with names.
    """
    fields = dict(item.fields)
    sent: list[str] = []
    new_name: str | None = None
    types = {
        key.removesuffix(_TYPE): value for key, value in body.items() if key.endswith(_TYPE) and key != _TYPE
    }
    if types.keys() - body.keys():
        raise invalid("Invalid request")
    for key, value in body.items():
        if "@odata." in key:
            continue
        column, target = _column(record, key, by_person=by_person)
        sent.append(column.name if target == column.name else key)
        if column.name == "FileLeafRef":
            if not isinstance(value, str):
                raise invalid(f"Field '{key}' takes text.")
            new_name = value if value != item.name else None
            continue
        if value is None:
            fields.pop(target, None)
            continue
        if column.multiple and not by_person:
            expected = "Edm.Int32" if target.endswith(_LOOKUP) else "Edm.String"
            if str(types.get(key, "")).removeprefix("#") != f"Collection({expected})":
                raise invalid("Invalid request")
        fields[target] = _value(store, column, value)
        _check_rules(store, item, column, target, fields[target])
    changed = tuple(
        name for name in sent if name == "FileLeafRef" or fields.get(name) != item.fields.get(name)
    )
    return Written(fields, tuple(sent), changed, new_name)


def read(store: Store, record: ListRecord, item: Item, select: tuple[str, ...] | None) -> JsonObject:
    """The fieldValueSet: every value that is set, or the selected ones. Raises GraphError 400."""
    values = _system_values(store, record, item)
    for column in record.columns:
        if column.facet == "calculated":
            values[column.name] = _calculated(record, column, item)
        for name in (column.name, column.name + _LOOKUP):
            if name in item.fields and item.fields[name] != []:
                values[name] = _shown(column, item.fields[name])
    if record.settings.odata_names:
        custom = {column.name for column in record.columns} - SYSTEM_NAMES
        values = {
            f"OData_{name}" if name.startswith("_") and name in custom else name: value
            for name, value in values.items()
        }
    if select is None:
        hidden = {column.name for column in record.columns if column.hidden}
        return {name: value for name, value in values.items() if name not in hidden}
    lookups = [
        name
        for name in select
        if (found := record.column(name.removesuffix(_LOOKUP))) and found.facet in ("lookup", "personOrGroup")
    ]
    if len(lookups) > _MAX_LOOKUPS:
        raise invalid(
            "The query cannot be completed because the number of lookup columns it contains exceeds the "
            "lookup column threshold."
        )
    for name in lookups:
        if not name.endswith(_LOOKUP):
            values[name] = _looked_up(store, record, item, name)
    return {name: values[name] for name in select if values.get(name) is not None}


def with_defaults(record: ListRecord, name: str) -> JsonObject:
    """Compute the values that a new file begins with. `name`: the file's."""
    fields = {
        column.name: _default(column, column.default)
        for column in record.columns
        if column.default is not None
    }
    if record.settings.title_from_file:
        fields["Title"] = name.rpartition(".")[0]
    return fields


def _default(column: Column, text: str) -> object:
    """Convert a column's default; ``[today]`` and ``=TODAY()`` are the day on which the file arrives."""
    match column.facet:
        case "boolean":
            return text == "1"
        case "number" | "currency":
            return float(text)
        case "dateTime":
            today = text.strip("=").casefold() in ("[today]", "today()")
            moment = datetime.now(UTC).isoformat() if today else text
            return _date(None, column, moment)
        case _:
            return [choice for choice in text.split(";#") if choice] if column.multiple else text


def _column(record: ListRecord, key: str, *, by_person: bool) -> tuple[Column, str]:
    """The column a key writes, and the name its value is kept under. Raises GraphError 400."""
    refused = key.startswith("_") and key not in SYSTEM_NAMES and not by_person
    if record.settings.odata_names and key.startswith("OData__"):
        key = key.removeprefix("OData_")
    column = record.column(key)
    target = key
    if column is None and key.endswith(_LOOKUP):
        column = record.column(key.removesuffix(_LOOKUP))
        if column is not None and column.facet not in ("lookup", "personOrGroup"):
            column = None
    elif column is not None and column.facet in ("lookup", "personOrGroup"):
        target = key + _LOOKUP
    if column is None or refused:
        raise invalid(f"Field '{key}' is not recognized")
    if column.read_only or column.name in SYSTEM_NAMES:
        raise invalid(f"Field '{key}' is read-only", "propertyNotUpdateable")
    if column.facet in UNWRITABLE_FACETS:
        raise invalid(f"Field '{key}' cannot be updated.", "propertyNotUpdateable")
    if target != key:
        raise invalid(f"Field '{key}' cannot be set directly; use '{target}'.")
    return column, target


def _check_rules(store: Store, item: Item, column: Column, target: str, value: object) -> None:
    """Compare a value with the column's own rules. Raises GraphError 400.

    Sentence for unique values: msgraph-sdk-dotnet issue 790. That of a validation is the owner's own.
    """
    others = (row for row in store.rows(item.list_id) if row.id != item.id) if column.unique else ()
    if any(row.fields.get(target) == value for row in others):
        raise invalid("One or more fields with unique constraints already has the provided value.")
    if column.validation is not None and column.validation not in str(value):
        raise invalid(f"The validation of field '{column.name}' failed.")


def _value(store: Store, column: Column, value: object) -> object:
    convert = _CONVERTERS.get(column.facet)
    if convert is None:
        raise GraphError(500, "generalException", "General exception while processing")
    if not column.multiple:
        return convert(store, column, value)
    if not isinstance(value, list):
        raise invalid("Invalid request")
    return [convert(store, column, each) for each in value]


def _text(_store: Store, column: Column, value: object) -> object:
    if not isinstance(value, str):
        raise invalid(f"Field '{column.name}' takes text.")
    several = column.settings.get("allowMultipleLines")
    limit = _NOTE_LENGTH if several else column.settings.get("maxLength", 255)
    if isinstance(limit, int) and len(value) > limit:
        raise invalid(f"The value of field '{column.name}' is longer than {limit} characters.")
    return value


def _choice(_store: Store, column: Column, value: object) -> object:
    if not isinstance(value, str):
        raise invalid("Invalid request")
    if len(value) > 255:
        raise invalid(f"The value of field '{column.name}' is longer than 255 characters.")
    return value


def _boolean(_store: Store, column: Column, value: object) -> object:
    if not isinstance(value, bool):
        raise invalid(f"Field '{column.name}' takes true or false.")
    return value


def _number(_store: Store, column: Column, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
        raise invalid(f"Field '{column.name}' takes a number.")
    low, high = column.settings.get("minimum"), column.settings.get("maximum")
    if (isinstance(low, int | float) and value < low) or (isinstance(high, int | float) and value > high):
        raise invalid(f"The value of field '{column.name}' must be between {low:g} and {high:g}.")
    return value


def _date(_store: Store | None, column: Column, value: object) -> object:
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise invalid(f"Field '{column.name}' takes a date and time in ISO 8601.") from None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise invalid(f"Field '{column.name}' takes dates from {_FIRST_YEAR} to {_LAST_YEAR}.")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if column.settings.get("format") == "dateOnly":
        day = moment.astimezone(_ZONE).date()
        moment = datetime.combine(day, time(), _ZONE)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _lookup(store: Store, column: Column, value: object) -> object:
    text = str(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not (text.isascii() and text.isdigit()):
        raise invalid(f"Field '{column.name}' takes the id of an item.")
    list_id = column.settings.get("listId")
    if isinstance(list_id, str) and store.row(list_id, int(text)) is None:
        raise invalid(f"Field '{column.name}': there is no item with the id {text}.")
    return text


_CONVERTERS: Final[Mapping[str, Callable[[Store, Column, object], object]]] = {
    "text": _text,
    "choice": _choice,
    "boolean": _boolean,
    "number": _number,
    "currency": _number,
    "dateTime": _date,
    "lookup": _lookup,
    "personOrGroup": _lookup,
}


def _shown(column: Column, value: object) -> object:
    """A value as it is read: numbers are doubles, a note in HTML is wrapped and loses its line ends."""
    if column.settings.get("textType") == "richText" and isinstance(value, str):
        return f'<div class="ExternalClass0A1B2C">{" ".join(value.split())}</div>'
    return float(value) if column.facet in ("number", "currency") and isinstance(value, int) else value


def _user(author: str) -> str:
    return str(PERSON_USER_ID if author == "person" else APP_USER_ID)


def _system_values(store: Store, record: ListRecord, item: Item) -> JsonObject:
    values: JsonObject = {
        "id": str(item.number),
        "ContentType": "Ordner" if item.is_folder else "Dokument" if record.is_library else "Element",
        "Created": item.created,
        "AuthorLookupId": _user(item.created_by),
        "Modified": item.modified,
        "EditorLookupId": _user(item.modified_by),
        "_UIVersionString": versions.label(item),
        "_ModerationStatus": item.moderation,
        "Attachments": False,
        "Edit": "",
        "ItemChildCount": "0",
        "FolderChildCount": "0",
    }
    if not record.is_library:
        return values
    children = store.children(item.id) if item.is_folder else []
    values |= {
        "FileLeafRef": item.name,
        "LinkFilename": item.name,
        "LinkFilenameNoMenu": item.name,
        "DocIcon": item.name.rpartition(".")[2].lower() if "." in item.name else "",
        "FileSizeDisplay": str(item.content.size) if item.content else "",
        "ItemChildCount": str(sum(1 for child in children if not child.is_folder)),
        "FolderChildCount": str(sum(1 for child in children if child.is_folder)),
        "UniqueId": item.guid,
        "FileRef": f"/sites/Bau/{record.name}/{store.graph_path(item)}",
    }
    del values["Attachments"]
    return values


def _calculated(record: ListRecord, column: Column, item: Item) -> str:
    """The value of a formula that joins columns and texts with ``&``."""
    formula = str(column.settings.get("formula", "")).removeprefix("=")
    parts = []
    for name, text in _FORMULA_TERM.findall(formula):
        source = next((each for each in record.columns if name in (each.name, each.display_name)), None)
        parts.append(str(item.fields.get(source.name, "")) if source else text)
    return "".join(parts)


def _looked_up(store: Store, record: ListRecord, item: Item, name: str) -> object:
    """What a lookup or person column shows."""
    if name in ("Author", "Editor"):
        return item.editor or ("Bauleitung" if item.modified_by == "person" else "SharePoint-App")
    column = record.column(name)
    number = item.fields.get(name + _LOOKUP)
    if column is None or column.facet != "lookup" or not isinstance(number, str):
        return None
    row = store.row(str(column.settings.get("listId")), int(number))
    return row.fields.get(str(column.settings.get("columnName"))) if row else None
