"""Writes fields into an item: only differences, and only those that are ours to write.

Each write names the state it was decided on (If-Match). If the item has changed since, it is read and decided
again. What a person has edited since our last write stays as it is, and is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from events.types import FieldText
from shared.retry.errors import PermanentError, TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.client import segment
from shared.sharepoint.fields import from_graph, is_empty, same, to_graph
from shared.sharepoint.history import author_of, read_versions
from shared.sharepoint.items import is_draft, read_item
from shared.sharepoint.notes import Note
from shared.sharepoint.uploads import ItemChangedError
from shared.sharepoint.wire import FieldValueSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from events.types import LibraryRef
    from shared.columns.schema import Column, LibrarySchema
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.items import Item
    from shared.sharepoint.notes import Recall

_ROUNDS: Final = 5
"""How often an item may change while we write, before the photo is tried again later."""


class FieldsRefusedError(Exception):
    """Raised when Graph refuses the fields as a whole (400). The columns may have changed."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Reports what happened to the fields."""

    etag: str
    """The list item's, after the write."""
    sent: tuple[str, ...] = ()
    """Internal names of the columns that were written."""
    kept: dict[str, FieldText] = {}
    """By internal name: what a person put where we would have written something else."""
    unclear: frozenset[str] = frozenset()
    """The columns among `kept` whose author is unknown."""
    draft: bool = False
    """Whether the write made a version that is not published."""
    rejected: dict[str, str] = {}
    """Columns whose value the library does not accept (unique values, validation), with its sentence."""
    refused: tuple[str, ...] = ()
    """Columns that Graph cannot write, by a limit of its own; they need a person."""


class FieldWriter:
    """Writes fields through one client."""

    def __init__(self, client: GraphClient) -> None:
        self._client = client
        self._unwritable: set[tuple[str, str]] = set()
        self._prefixed: set[tuple[str, str]] = set()
        """Columns that this library takes under their REST name only."""

    async def write(
        self,
        library: LibraryRef,
        schema: LibrarySchema,
        item: Item,
        values: Mapping[str, FieldText],
        recall: Recall,
        *,
        photo_id: str,
        quick_xor_hash: str,
        stored_hash: str | None = None,
        fresh: bool = False,
        one_by_one: bool = False,
    ) -> Written:
        """Write `values` into the item. Empty values are not written: they clear nothing.

        `fresh`: we have just created the item, so every value in it is SharePoint's own. `one_by_one`: after
        FieldsRefusedError, to find the column that is refused. `stored_hash`: of the file just uploaded, as
        SharePoint reports it.
        Raises FieldsRefusedError, PermanentError naming the column (one by one), ItemChangedError if the item
        is gone, TransientError if it changes all the time.
        """
        wanted = self._wanted(library, schema, values)
        before, reason = item.fields_etag, ""
        for _ in range(_ROUNDS):
            stored = from_graph(schema, item.fields)
            send, kept = decide(schema, wanted, stored, recall, item.item_id, fresh=fresh)
            if (send or kept) and not fresh:
                # Another worker may have written what we read after we read the notes.
                await recall.refresh()
                send, kept = decide(schema, wanted, stored, recall, item.item_id, fresh=fresh)
            if kept and (later := await self._changed(library, item)):
                item = later
                continue
            unclear: frozenset[str] = frozenset()
            if kept:
                ours, unclear = await self._judged(library, schema, item, recall, kept)
                send |= {name: wanted[name] for name in ours}
                kept = {name: value for name, value in kept.items() if name not in ours}
            known = self._known(schema, stored, recall, item.item_id) | send
            note = Note(
                item_id=item.item_id,
                values=known,
                done=False,
                photo_id=photo_id,
                quick_xor_hash=quick_xor_hash,
                stored_hash=stored_hash or recall.stored_hash,
            )
            etag, version = item.fields_etag, ""
            refused: list[str] = []
            rejected: dict[str, str] = {}
            try:
                if send:
                    await recall.intend(note)
                    if one_by_one:
                        etag, version, refused, rejected = await self._each(library, schema, item, send)
                    else:
                        etag, version = await self._patch(library, schema, item.item_id, send, etag)
            except ItemChangedError as error:
                reason = str(error)
                later = await self._changed(library, item)
                item, fresh = later or item, False
                continue
            for name in (*refused, *rejected):
                known.pop(name, None)
            unsettled = recall.pending(item.item_id) or not recall.finished(item.item_id)
            if send or (unsettled and not recall.under_way(item.item_id, photo_id)):
                await recall.finish(msgspec.structs.replace(note, values=known, done=True))
            return Written(
                etag=etag,
                sent=tuple(name for name in send if name not in refused and name not in rejected),
                kept=kept,
                unclear=unclear,
                rejected=rejected,
                draft=is_draft(version),
                refused=tuple(name for name in values if (library.list_id, name) in self._unwritable),
            )
        raise TransientError(f"writing the fields of {item.name}: {_why_not(item, before)}; {reason}")

    async def _changed(self, library: LibraryRef, item: Item) -> Item | None:
        """Read the item again; None if it has not changed. Raises ItemChangedError if it is gone."""
        now = await read_item(self._client, library.drive_id, item.item_id)
        if now is None:
            raise ItemChangedError(f"{item.name} was removed meanwhile")
        return now if now.fields_etag != item.fields_etag else None

    async def _judged(
        self,
        library: LibraryRef,
        schema: LibrarySchema,
        item: Item,
        recall: Recall,
        kept: Mapping[str, FieldText],
    ) -> tuple[list[str], frozenset[str]]:
        """Find who wrote the values that differ: the columns that are ours, and those nobody can tell."""
        versions = await read_versions(self._client, library, schema, item)
        untouched = not recall.finished(item.item_id) and not recall.pending(item.item_id)
        authors = {
            name: author_of(column, versions, untouched=untouched)
            for name in kept
            if (column := schema.column(name)) is not None
        }
        ours = [name for name, author in authors.items() if author == "us"]
        return ours, frozenset(name for name, author in authors.items() if author == "unknown")

    def _wanted(
        self, library: LibraryRef, schema: LibrarySchema, values: Mapping[str, FieldText]
    ) -> dict[str, FieldText]:
        """Leave out empty values and columns that Graph is known not to write."""
        wanted = {
            name: value
            for name, value in values.items()
            if not is_empty(value) and (library.list_id, name) not in self._unwritable
        }
        to_graph(schema, wanted)
        return wanted

    @staticmethod
    def _known(
        schema: LibrarySchema, stored: Mapping[str, FieldText], recall: Recall, item_id: str
    ) -> dict[str, FieldText]:
        """Collect our own values: the stored one if it is from us, else the last one we wrote."""
        known: dict[str, FieldText] = {}
        for column in schema.columns:
            ours = recall.ours(item_id, column.name)
            if ours:
                now = stored.get(column.name)
                known[column.name] = next((v for v in reversed(ours) if same(column, v, now)), ours[-1])
        return known

    async def _patch(
        self,
        library: LibraryRef,
        schema: LibrarySchema,
        item_id: str,
        send: Mapping[str, FieldText],
        etag: str,
    ) -> tuple[str, str]:
        """Send one PATCH and return the new eTag and the new version's number.

        Raises ItemChangedError, FieldsRefusedError.
        """
        doing = f"writing {len(send)} fields in {library.library!r}"
        prefixed = [name for name in send if (library.list_id, name) in self._prefixed]
        try:
            answer = await self._client.send(
                "PATCH",
                f"/drives/{segment(library.drive_id)}/items/{segment(item_id)}/listItem/fields",
                doing=doing,
                json=to_graph(schema, send, prefixed=prefixed),
                headers={"If-Match": etag} if etag else None,
            )
        except GraphError as error:
            # 409 resourceModified: SharePoint itself still works on a file that has just arrived.
            if error.status in (404, 409, 412):
                raise ItemChangedError(str(error)) from error
            if error.status == 400:
                raise FieldsRefusedError(str(error)) from error
            raise
        written = answer.decode(FieldValueSet, doing)
        return written.odata_etag or "", written.version or ""

    async def _each(
        self, library: LibraryRef, schema: LibrarySchema, item: Item, send: Mapping[str, FieldText]
    ) -> tuple[str, str, list[str], dict[str, str]]:
        """Write column by column, so that a refusal names its column.

        Returns the eTag, the version's number, the columns that Graph cannot write, and those whose value the
        library rejects, with its sentence.

        Raises PermanentError naming every other refused column; what was accepted stays written.
        """
        etag, version = item.fields_etag, ""
        wrong: list[str] = []
        limits: list[str] = []
        rejected: dict[str, str] = {}
        for name, value in send.items():
            column = schema.column(name)
            try:
                etag, version = await self._patch(library, schema, item.item_id, {name: value}, etag)
            except FieldsRefusedError as error:
                if name.startswith("_") and (library.list_id, name) not in self._prefixed:
                    # SharePoint's REST interface calls such a column OData__…; Graph may, too.
                    self._prefixed.add((library.list_id, name))
                    try:
                        etag, version = await self._patch(library, schema, item.item_id, {name: value}, etag)
                    except FieldsRefusedError:
                        self._prefixed.discard((library.list_id, name))
                        self._unwritable.add((library.list_id, name))
                        limits.append(name)
                    continue
                if column is not None and _is_persons(column, error):
                    rejected[name] = str(error)
                    continue
                shown = column.display_name if column else name
                wrong.append(f"the column {shown!r} ({name}): {error}")
        if wrong:
            raise PermanentError(
                f"the library {library.library!r} refuses {'; '.join(wrong)}."
                " Check the column's settings in SharePoint, then replay the photo"
            )
        return etag, version, limits, rejected


def decide(
    schema: LibrarySchema,
    wanted: Mapping[str, FieldText],
    stored: Mapping[str, FieldText],
    recall: Recall,
    item_id: str,
    *,
    fresh: bool,
) -> tuple[dict[str, FieldText], dict[str, FieldText]]:
    """Decide what to send, and what to leave because a person wrote it (with its stored value)."""
    send: dict[str, FieldText] = {}
    kept: dict[str, FieldText] = {}
    for name, value in wanted.items():
        column = schema.column(name)
        now = stored.get(name)
        if column is None or same(column, value, now):
            continue
        if fresh or _ours(column, now, recall, item_id):
            send[name] = value
        else:
            kept[name] = now
    return send, kept


def _why_not(item: Item, before: str) -> str:
    """Say why no round wrote the fields. `before`: the eTag of the fields in the first one."""
    if item.fields_etag == before:
        return f"refused {_ROUNDS} times, although the item does not change"
    return "the item changes while it is written"


def _ours(column: Column, now: FieldText, recall: Recall, item_id: str) -> bool:
    """Return whether our notes say that the stored value is ours, or nothing is stored."""
    if not is_empty(now) and any(same(column, value, now) for value in recall.ours(item_id, column.name)):
        return True
    if recall.certain(item_id, column.name):
        return False
    # Nobody has written anything yet: an intent of ours may not have taken effect.
    return is_empty(now)


def _is_persons(column: Column, error: FieldsRefusedError) -> bool:
    """Return whether a person has to find another value: the library requires unique ones, or validates them.

    Graph v1.0 does not show a column's validation, so the refusal's words are all there is.
    """
    return column.unique or "validation" in str(error).casefold()
