"""Says what became of a photo in SharePoint, and what a person has to know about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from events.types import NeedsPerson, StoredItem
from shared.columns import needs as codes
from shared.columns.checks import check_value
from shared.sharepoint.writing import Written

if TYPE_CHECKING:
    from events.types import FieldText
    from shared.columns.schema import LibrarySchema
    from shared.sharepoint.items import Item

FileOutcome: TypeAlias = Literal["created", "replaced", "unchanged"]

FILE: Final = "Datei"
"""What the photo's bytes are called where a column's name would stand."""
_OTHER_BYTES: Final = (
    "Die Bilddatei wurde in SharePoint ersetzt oder bearbeitet und darum nicht überschrieben."
)
_ALTERED_BYTES: Final = (
    "SharePoint hat die Bilddatei beim Speichern verändert: Sie ist nicht mehr Byte für Byte das Original."
)
_CHECKED_OUT: Final = "Die Bilddatei ist ausgecheckt: Erst nach dem Einchecken sehen andere den neuen Stand."
_NOT_APPROVED: Final = "Die Bibliothek verlangt eine Genehmigung: Jemand muss das Foto genehmigen."
_DRAFT: Final = "Das Foto ist ein Entwurf: Jemand muss eine Hauptversion davon veröffentlichen."
_REJECTED: Final = "Das Foto wurde in SharePoint abgelehnt."
_MODERATION_REJECTED: Final = 1
_UNCLEAR: Final = (
    "Hier steht ein anderer Wert, und die Bibliothek zeigt nicht, wer ihn geschrieben hat; er wurde nicht"
    " überschrieben."
)
_EDITED: Final = "Wurde in SharePoint von Hand geändert; der neue Wert wurde nicht geschrieben."
_TAKEN: Final = "Die Spalte verlangt eindeutige Werte, und ein anderes Element hat diesen Wert schon."
_INVALID: Final = "Die Gültigkeitsprüfung der Spalte nimmt den gefundenen Wert nicht an."
_BEYOND_GRAPH: Final = (
    "Microsoft Graph kann diese Spalte nicht schreiben, weil ihr interner Name mit «_» beginnt:"
    " Wert von Hand eintragen oder die Spalte neu anlegen."
)


class Filed(msgspec.Struct, frozen=True, kw_only=True):
    """Says where the photo is now and what a person has to know about it."""

    item: StoredItem
    written: Written
    needs_person: list[NeedsPerson]
    """What a person changed and we left, what Graph cannot write."""


def visibility(item: Item) -> list[NeedsPerson]:
    """Say why people do not see the photo as it is, if they do not."""
    if item.checked_out:
        return [NeedsPerson(column=FILE, reason=_CHECKED_OUT, code=codes.CHECKED_OUT)]
    if item.moderation:
        reason = _REJECTED if item.moderation == _MODERATION_REJECTED else _NOT_APPROVED
        return [NeedsPerson(column=FILE, reason=reason, code=codes.APPROVAL)]
    if item.draft:
        return [NeedsPerson(column=FILE, reason=_DRAFT, code=codes.DRAFT)]
    return []


def altered_need() -> NeedsPerson:
    """Say that SharePoint changed the file."""
    return NeedsPerson(column=FILE, reason=_ALTERED_BYTES, code=codes.FILE_ALTERED)


def replaced_need() -> NeedsPerson:
    """Say that a person replaced the file."""
    return NeedsPerson(column=FILE, reason=_OTHER_BYTES, code=codes.FILE_REPLACED)


def problems(schema: LibrarySchema, values: dict[str, FieldText]) -> list[str]:
    """Describe what is wrong with the values for these columns, one sentence for each."""
    problems: list[str] = []
    for name, value in values.items():
        column = schema.column(name)
        if column is None:
            problems.append(f"the column {name!r}: the library has no column of that name")
        elif not column.writable:
            problems.append(f"the column {column.display_name!r}: it cannot be written ({column.kind})")
        elif reason := check_value(column, value):
            problems.append(f"the column {column.display_name!r}: {reason.rstrip('.')}")
    return problems


def filed(
    schema: LibrarySchema, item: Item, outcome: FileOutcome, written: Written, needs: list[NeedsPerson]
) -> Filed:
    """Make the result for the event."""
    for names, reason, code in (
        ([name for name in written.kept if name not in written.unclear], _EDITED, codes.EDITED),
        (sorted(written.unclear), _UNCLEAR, codes.UNCLEAR),
        (written.refused, _BEYOND_GRAPH, codes.NOT_WRITABLE),
    ):
        for name in names:
            column = schema.column(name)
            display_name = column.display_name if column else name
            needs.append(NeedsPerson(column=display_name, reason=reason, code=code))
    for name in written.rejected:
        column = schema.column(name)
        taken = column is not None and column.unique
        needs.append(
            NeedsPerson(
                column=column.display_name if column else name,
                reason=_TAKEN if taken else _INVALID,
                code=codes.REJECTED,
            )
        )
    return Filed(
        item=StoredItem(
            item_id=item.item_id,
            name=item.name,
            web_url=item.web_url,
            etag=written.etag or item.etag,
            outcome=outcome,
            quick_xor_hash=item.quick_xor_hash,
        ),
        written=written,
        needs_person=needs,
    )
