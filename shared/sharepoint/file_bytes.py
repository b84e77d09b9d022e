"""Uploads a photo's bytes if they are missing, and finds out whether what is stored is still ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from events.types import NeedsPerson
from shared.retry.errors import PostponeError
from shared.sharepoint.findings import FileOutcome, altered_need, replaced_need
from shared.sharepoint.items import Item, content_sha256, read_item
from shared.sharepoint.quickxor import quick_xor_hash

if TYPE_CHECKING:
    from events.types import PhotoAnalyzed
    from shared.photo_store import BlobStore
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.notes import Recall
    from shared.sharepoint.uploads import Uploader

RESERVED_SECONDS: Final = 300.0
"""Seconds until a photo is tried again whose name or file SharePoint does not show us."""
HIDDEN: Final = (
    "SharePoint does not show the file to the app. If the library requires approval, approve the file or"
    " grant the app the role 'fullcontrol' on this site: it may see only what is approved"
)


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """Says what became of the bytes. `fresh`: we have just created the item."""

    item: Item
    outcome: FileOutcome
    fresh: bool = False
    stored_hash: str | None = None
    """Of an upload of ours, as SharePoint reports it."""
    needs: list[NeedsPerson] = []


class Picture:
    """Loads the photo's bytes and their hash when they are needed."""

    def __init__(self, store: BlobStore, photo: PhotoAnalyzed, known_hash: str | None) -> None:
        self._store = store
        self._photo = photo
        self._data: bytes | None = None
        self._hash = known_hash

    async def data(self) -> bytes:
        """Load the original bytes. Raises BlobMissingError."""
        if self._data is None:
            self._data = await self._store.get(self._photo.dataref)
        return self._data

    async def hash(self) -> str:
        """Compute their quickXorHash."""
        if self._hash is None:
            self._hash = quick_xor_hash(await self.data())
        return self._hash


class FileBytes:
    """Brings the bytes of photos into libraries, through one client."""

    def __init__(self, client: GraphClient, uploader: Uploader) -> None:
        self._client = client
        self._uploader = uploader

    async def bring(
        self, photo: PhotoAnalyzed, recall: Recall, picture: Picture, item: Item | None, *, interrupted: bool
    ) -> StoredFile:
        """Upload the bytes if they are missing, and find out what a person has to know about them."""
        drive_id = photo.library.drive_id
        if item is None:
            data = await picture.data()
            made = await self._uploader.create(drive_id, recall.name, data, photo.media_type)
            return await self._uploaded(photo, picture, made, "created", fresh=True)
        first: FileOutcome = "created" if interrupted and not recall.finished(item.item_id) else "unchanged"
        if await self._same_bytes(photo, item, recall, picture):
            return StoredFile(item=item, outcome=first)
        if self._altered(photo, item, recall):
            return StoredFile(item=item, outcome=first, needs=[altered_need()])
        if recall.finished(item.item_id) or (item.touched_by_person and item.size):
            return StoredFile(item=item, outcome="unchanged", needs=[replaced_need()])
        data = await picture.data()
        made = await self._uploader.replace(drive_id, item, data, photo.media_type)
        return await self._uploaded(photo, picture, made, "replaced", fresh=False)

    async def _uploaded(
        self, photo: PhotoAnalyzed, picture: Picture, made: Item, outcome: FileOutcome, *, fresh: bool
    ) -> StoredFile:
        item = await self._after(photo, made)
        changed = await self._changed(photo, item, picture)
        return StoredFile(
            item=item,
            outcome=outcome,
            fresh=fresh,
            stored_hash=item.quick_xor_hash,
            needs=[altered_need()] if changed else [],
        )

    async def _after(self, photo: PhotoAnalyzed, made: Item) -> Item:
        """Read the item after the upload, with the fields that SharePoint set."""
        item = await read_item(self._client, photo.library.drive_id, made.item_id)
        if item is None:
            raise PostponeError(f"{made.name} was stored, but {HIDDEN}", RESERVED_SECONDS)
        return item

    @staticmethod
    def _altered(photo: PhotoAnalyzed, item: Item, recall: Recall) -> bool:
        """Return whether other bytes than ours are SharePoint's own doing.

        They are if SharePoint reported them right after our upload. If nobody noted that (the upload's answer
        was lost), a file that no person has touched and that is longer than ours is ours: an upload is all or
        nothing, and SharePoint adds to files.
        """
        if recall.stored_hash is not None:
            return item.quick_xor_hash == recall.stored_hash
        unfinished = not recall.finished(item.item_id)
        return unfinished and not item.touched_by_person and item.size > photo.size

    @staticmethod
    async def _changed(photo: PhotoAnalyzed, item: Item, picture: Picture) -> bool:
        """Return whether SharePoint holds other bytes than we have just uploaded."""
        if item.quick_xor_hash is None:
            return item.size != photo.size
        return item.quick_xor_hash != await picture.hash()

    async def _same_bytes(self, photo: PhotoAnalyzed, item: Item, recall: Recall, picture: Picture) -> bool:
        """Return whether the item holds the picture. SharePoint may not have computed the hash yet."""
        if item.quick_xor_hash is not None:
            return item.quick_xor_hash == await picture.hash()
        if item.size != photo.size:
            return False
        if recall.finished(item.item_id):
            return True
        return await content_sha256(self._client, photo.library.drive_id, item.item_id) == photo.sha256
