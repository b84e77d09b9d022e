"""Reads a stored photo back from SharePoint, compares it with what was sent, and repairs it once at most."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec

from events.types import NeedsPerson, StoredItem
from shared.photo_store import BlobMissingError
from shared.reports.photo_report import FieldReport
from shared.reports.verdict import compare, needs_after, require, to_repair
from shared.retry.errors import PermanentError, PostponeError
from shared.sharepoint.fields import from_graph
from shared.sharepoint.file_bytes import HIDDEN, RESERVED_SECONDS
from shared.sharepoint.items import content, find_item, read_item
from shared.sharepoint.notes import Memory
from shared.sharepoint.quickxor import quick_xor_hash
from shared.sharepoint.target import about_library
from shared.sharepoint.uploads import ItemChangedError, Uploader
from shared.sharepoint.writing import FieldsRefusedError, FieldWriter, Written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from events.types import FieldText, PhotoUploaded
    from shared.columns.schema import LibrarySchema
    from shared.photo_store import BlobStore
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.items import Item
    from shared.sharepoint.libraries import Libraries


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the read-back found."""

    item: StoredItem
    """As it is now."""
    fields: list[FieldReport]
    needs_person: list[NeedsPerson]
    file_same: bool | None
    time_zone: str

    @property
    def verdict(self) -> Literal["ok", "needs_person"]:
        """Return whether a person has to look."""
        return "needs_person" if self.needs_person else "ok"


class ReadBack:
    """Check photos through one client; a process has one."""

    def __init__(self, client: GraphClient, store: BlobStore, libraries: Libraries) -> None:
        self._client = client
        self._store = store
        self._libraries = libraries
        self._memory = Memory(store)
        self._writer = FieldWriter(client)
        self._uploader = Uploader(client)

    async def check(self, photo: PhotoUploaded) -> Checked:
        """Compare the item with the event; write fields that SharePoint altered once more.

        Raises PermanentError if the item is gone, or if a required column differs after the repair,
        PostponeError while the app may not see the item, and what the client raises.
        """
        with about_library(photo.library):
            return await self._check(photo)

    async def _check(self, photo: PhotoUploaded) -> Checked:
        schema = (await self._libraries.schema(photo.library)).schema
        item = await self._item(photo)
        untouched = item.fields_etag == photo.item.etag
        lines = self._compare(photo, schema, item, untouched=untouched)
        if values := to_repair(lines):
            written = await self._repair(photo, schema, item, values)
            item = await self._item(photo)
            untouched = item.fields_etag == written.etag
            lines = self._compare(photo, schema, item, untouched=untouched, written=written)
            require(lines, item.name)
        file_same = await self._same_bytes(photo, item)
        return Checked(
            item=StoredItem(
                item_id=item.item_id,
                name=item.name,
                web_url=item.web_url,
                etag=item.fields_etag,
                outcome=photo.item.outcome,
                quick_xor_hash=item.quick_xor_hash,
            ),
            fields=lines,
            needs_person=needs_after(schema, lines, photo.needs_person, file_same=file_same),
            file_same=file_same,
            time_zone=schema.time_zone,
        )

    @staticmethod
    def _compare(
        photo: PhotoUploaded,
        schema: LibrarySchema,
        item: Item,
        *,
        untouched: bool,
        written: Written | None = None,
    ) -> list[FieldReport]:
        return compare(
            schema,
            photo.fields,
            from_graph(schema, item.fields),
            photo.needs_person,
            untouched=untouched,
            edited=written.kept if written else (),
            repaired=written.sent if written else (),
        )

    async def _item(self, photo: PhotoUploaded) -> Item:
        drive_id, name = photo.library.drive_id, photo.item.name
        item = await read_item(self._client, drive_id, photo.item.item_id)
        if item is not None:
            return item
        there = await find_item(self._client, drive_id, name)
        if there is not None and there.item_id == photo.item.item_id:
            # approved between the two calls
            return there
        # another file of that name: the photo was submitted again after it was removed
        if there is None and await self._uploader.is_taken(drive_id, name):
            raise PostponeError(f"{name} was stored, but {HIDDEN}", RESERVED_SECONDS)
        raise PermanentError(
            f"{name} was stored in {photo.library.library!r} and is not there any more:"
            " somebody removed it before it was checked. Submit the photo again if it is still wanted"
        )

    async def _repair(
        self, photo: PhotoUploaded, schema: LibrarySchema, item: Item, values: Mapping[str, FieldText]
    ) -> Written:
        """Write the values once more.

        `fresh` is true because the item has not changed since our own write (`compare` checked that, and
        If-Match enforces it). So only changes that SharePoint made itself are overwritten.
        """
        recall, _ = await self._memory.recall(
            photo.library, photo.sha256, name=item.name, photo_id=photo.photo_id
        )
        known = recall.quick_xor_hash or photo.item.quick_xor_hash or ""
        try:
            return await self._writer.write(
                photo.library,
                schema,
                item,
                values,
                recall,
                photo_id=photo.photo_id,
                quick_xor_hash=known,
                fresh=True,
            )
        except FieldsRefusedError:
            # Then the value stays as SharePoint has it, and is judged so.
            return Written(etag=item.fields_etag)
        except ItemChangedError:
            # The item is gone, which the next look reports.
            return Written(etag="")

    async def _same_bytes(self, photo: PhotoUploaded, item: Item) -> bool | None:
        """Return whether the item holds the original; None if neither hash nor bytes can show it."""
        if item.quick_xor_hash is None:
            # SharePoint computes the hash some time after the upload.
            if item.size != photo.size:
                return False
            digest = hashlib.sha256()
            async for chunk in content(self._client, photo.library.drive_id, item.item_id):
                digest.update(chunk)
            return digest.hexdigest() == photo.sha256
        try:
            original = await self._store.get(photo.dataref)
        except BlobMissingError:
            # The original's retention is over: a late replay.
            return None
        return await asyncio.to_thread(quick_xor_hash, original) == item.quick_xor_hash
