"""Compares what was sent with what is stored, column by column, and decides whether a person has to look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from events.types import NeedsPerson
from shared.columns import needs as codes
from shared.columns.checks import check_value
from shared.reports import german
from shared.reports.photo_report import FieldReport
from shared.retry.errors import PermanentError
from shared.sharepoint.fields import default_of, is_empty, same
from shared.sharepoint.findings import FILE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from events.types import FieldText, FieldValue
    from shared.columns.schema import Column, LibrarySchema

_OTHER_BYTES = "Die Datei in SharePoint ist nicht das eingereichte Original: Ihre Prüfsumme weicht ab."
_COLUMN_GONE = "Diese Spalte hat die Bibliothek nicht mehr, oder sie lässt sich nicht mehr füllen."


def compare(
    schema: LibrarySchema,
    fields: Mapping[str, FieldValue],
    stored: Mapping[str, FieldText],
    needs: Sequence[NeedsPerson],
    *,
    untouched: bool,
    edited: Collection[str] = (),
    repaired: Collection[str] = (),
) -> list[FieldReport]:
    """Make a line for every column that has a value, needs one, or got one from somebody else.

    `stored`: as `shared.sharepoint.fields.from_graph` returns it. `untouched`: nothing changed in the item
    since our last write. Then SharePoint itself made every difference, unless the uploader left the column
    to a person (in `needs`). Otherwise a difference is an edit. `edited` and `repaired`: what the repair left
    to a person, and what it wrote.
    """
    listed = {need.column for need in needs}
    kept = {need.column for need in needs if need.code == codes.EDITED}
    lines = []
    for column in schema.columns:
        found, now = fields.get(column.name), stored.get(column.name)
        value = found.value if found else None
        wanted = column.required or column.display_name in listed
        if not column.writable or (is_empty(value) and is_empty(now) and not wanted):
            continue
        agree = same(column, value, now)
        cause: Literal["edited", "altered", "repaired"] | None = None
        if agree:
            cause = "repaired" if column.name in repaired else None
        elif (
            not untouched
            or column.name in edited
            or column.display_name in kept
            or (column.display_name in listed and not is_empty(now))
        ):
            cause = "edited"
        elif column.display_name not in listed:
            cause = "altered"
        lines.append(_line(column, found, now, same=agree, cause=cause))
    known = {line.column for line in lines}
    lines += [
        FieldReport(
            column=name,
            display_name=name,
            kind="unsupported",
            value=field.value,
            source=field.source,
            confidence=field.confidence,
            sent=field.value,
            same=False,
        )
        for name, field in fields.items()
        if name not in known and not is_empty(field.value)
    ]
    return lines


def needs_after(
    schema: LibrarySchema,
    lines: Sequence[FieldReport],
    needs: Sequence[NeedsPerson],
    *,
    file_same: bool | None,
) -> list[NeedsPerson]:
    """Return what a person still has to look at, now that we know what is stored.

    A column that a person has decided in SharePoint meanwhile is a difference, not a task.
    """
    by_name = {line.display_name: line for line in lines}
    left = [
        need
        for need in needs
        if need.code == codes.UNCLEAR
        or need.column not in by_name
        or not _decided(schema, by_name[need.column])
    ]
    asked = {need.column for need in left}
    for line in lines:
        found = _reason(schema.column(line.column), line)
        if found and line.display_name not in asked:
            reason, code = found
            left.append(NeedsPerson(column=line.display_name, reason=reason, code=code))
    if file_same is False and not any(need.code in codes.FILE_CODES for need in left):
        left.append(NeedsPerson(column=FILE, reason=_OTHER_BYTES, code=codes.FILE_DIFFERS))
    return left


def to_repair(lines: Sequence[FieldReport]) -> dict[str, FieldText]:
    """Return the values to write once more, by internal name: those that SharePoint itself altered."""
    return {line.column: line.sent for line in lines if line.cause == "altered"}


def require(lines: Sequence[FieldReport], item_name: str) -> None:
    """Raise PermanentError naming the required columns that differ although they were repaired once."""
    wrong = [
        f"{line.display_name!r} (sent {line.sent!r}, stored {line.stored!r})"
        for line in lines
        if line.required and line.cause == "altered"
    ]
    if wrong:
        raise PermanentError(
            f"SharePoint stores something else than was sent for the required columns of {item_name}, also"
            f" after one repair: {', '.join(wrong)}. Look for a flow or a validation of the library that"
            " changes them, then replay the photo"
        )


def _line(
    column: Column,
    found: FieldValue | None,
    now: FieldText,
    *,
    same: bool,
    cause: Literal["edited", "altered", "repaired"] | None,
) -> FieldReport:
    value = found.value if found and not is_empty(found.value) else None
    return FieldReport(
        column=column.name,
        display_name=column.display_name,
        kind=column.kind,
        required=column.required,
        value=value,
        source=found.source if found and value is not None else None,
        confidence=found.confidence if found and value is not None else None,
        sent=value,
        stored=now,
        same=same,
        cause=cause,
    )


def _problem(column: Column, now: FieldText) -> str | None:
    """Return what is wrong with a stored value. A column that allows free text accepts a person's text."""
    if column.allow_other and not is_empty(now):
        return None
    return check_value(column, now)


def _decided(schema: LibrarySchema, line: FieldReport) -> bool:
    """Return whether a person entered a valid value where we wanted one, or cleared an optional one."""
    column = schema.column(line.column)
    if column is None or _problem(column, line.stored):
        return False
    if line.cause == "edited":
        return True
    if is_empty(line.stored):
        return False
    default = default_of(column)
    return is_empty(line.value) and (is_empty(default) or not same(column, default, line.stored))


def _reason(column: Column | None, line: FieldReport) -> tuple[str, str] | None:
    """Return why a line needs a person, as sentence and code; None if it does not."""
    if column is None or not column.writable:
        return _COLUMN_GONE, codes.COLUMN_GONE
    if line.cause == "altered":
        stored, sent = _quoted(line, line.stored), _quoted(line, line.sent)
        return f"SharePoint hat {stored} gespeichert, gesendet wurde {sent}.", codes.ALTERED
    problem = _problem(column, line.stored)
    if problem is None:
        return None
    return problem, codes.MISSING if is_empty(line.stored) else codes.DOES_NOT_FIT


def _quoted(line: FieldReport, value: FieldText) -> str:
    words = german.value(value, line.kind, german.zone("UTC"))
    return f"«{', '.join(words)}»" if words else "nichts"
