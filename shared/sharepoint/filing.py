"""Stores a photo in its library: its bytes once, its fields where they differ, however often it is asked.

The picture is found by the notes about it, then by its name. Two processes that store it at the same time end
with one file, because a new file is only created where there is none (``conflictBehavior=fail``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from shared.retry.errors import PermanentError, PostponeError, TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.fields import is_empty
from shared.sharepoint.file_bytes import HIDDEN, RESERVED_SECONDS, FileBytes, Picture, StoredFile
from shared.sharepoint.findings import Filed, filed, problems, visibility
from shared.sharepoint.items import Item, find_item, read_item
from shared.sharepoint.names import stored_name
from shared.sharepoint.notes import Memory
from shared.sharepoint.publication import check_out, publish
from shared.sharepoint.target import about_library
from shared.sharepoint.uploads import ItemChangedError, NameTakenError, Uploader
from shared.sharepoint.writing import FieldsRefusedError, FieldWriter

if TYPE_CHECKING:
    from events.types import FieldText, PhotoAnalyzed
    from shared.columns.schema import LibrarySchema
    from shared.photo_store import BlobStore
    from shared.settings import Settings
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.libraries import Libraries
    from shared.sharepoint.notes import Recall
    from shared.sharepoint.writing import Written


_ROUNDS: Final = 4
_LOCKED: Final = 423


class Filing:
    """Stores photos and their fields in SharePoint. A process has one."""

    def __init__(
        self,
        client: GraphClient,
        store: BlobStore,
        libraries: Libraries,
        settings: Settings,
        *,
        uploader: Uploader | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._libraries = libraries
        self._settings = settings
        self._memory = Memory(store)
        self._bytes = FileBytes(client, uploader or Uploader(client))
        self._writer = FieldWriter(client)

    async def file(self, photo: PhotoAnalyzed) -> Filed:
        """Store a photo and its fields, or the part of them that is missing.

        Raises PermanentError naming the column if a value does not fit the library as it is now, and what
        the client raises.
        """
        with about_library(photo.library):
            return await self._file(photo)

    async def _file(self, photo: PhotoAnalyzed) -> Filed:
        values = {name: field.value for name, field in photo.fields.items() if not is_empty(field.value)}
        schema = await self._checked(photo, values)
        name = stored_name(self._settings.file_name_template, photo, schema.time_zone)
        recall, new = await self._memory.recall(
            photo.library, photo.sha256, name=name, photo_id=photo.photo_id
        )
        picture = Picture(self._store, photo, recall.quick_xor_hash)
        reason = ""
        interrupted = recall.claimed_by == photo.photo_id and not new
        taken = kept_by_upload = False
        states: set[str] = set()
        for _ in range(_ROUNDS):
            try:
                # A picture without notes is not looked up: if it is there, the upload is refused.
                item = None if new else await self._find(photo, recall)
                kept_by_upload = taken and item is None
                if item is not None:
                    states.add(item.etag)
                new = False
                return await self._bring(
                    photo, values, schema, recall, picture, item, interrupted=interrupted
                )
            except (NameTakenError, ItemChangedError) as error:
                taken = isinstance(error, NameTakenError)
                if taken and kept_by_upload:
                    # Taken, not there, and taken again: an upload that has not ended keeps the name.
                    raise PostponeError(
                        f"{error}; an upload that has not ended keeps the name, or {HIDDEN}",
                        RESERVED_SECONDS,
                    ) from error
                reason = str(error)
                await recall.refresh()
        if len(states) > 1:
            raise TransientError(f"storing {recall.name}: it changes while it is stored; {reason}")
        raise TransientError(
            f"storing {recall.name}: refused {_ROUNDS} times, although it does not change; {reason}"
        )

    async def _find(self, photo: PhotoAnalyzed, recall: Recall) -> Item | None:
        """Find the picture's item: the noted one, wherever people moved it, else the one of its name."""
        drive_id = photo.library.drive_id
        if recall.item_id is not None:
            item = await read_item(self._client, drive_id, recall.item_id)
            if item is not None:
                return item
        return await find_item(self._client, drive_id, recall.name)

    async def _bring(
        self,
        photo: PhotoAnalyzed,
        values: dict[str, FieldText],
        schema: LibrarySchema,
        recall: Recall,
        picture: Picture,
        item: Item | None,
        *,
        interrupted: bool,
    ) -> Filed:
        """Do one round: upload the bytes if they are missing, then write the fields.

        `interrupted`: an earlier delivery of this photo began to store the picture as the first.
        """
        file = await self._bytes.bring(photo, recall, picture, item, interrupted=interrupted)
        item = file.item
        try:
            written = await self._fields(photo, values, schema, file, recall, picture)
        except PostponeError as error:
            cause = error.__cause__
            if item.checked_out or not (isinstance(cause, GraphError) and cause.status == _LOCKED):
                raise
            # The library may want a file checked out before it is changed. If a person has it, this says so.
            if refused := await check_out(self._client, photo.library.drive_id, item):
                # Its values come when the lock has ended, or a person has changed the library's settings.
                raise PostponeError(f"{error}; and {refused}", error.seconds) from refused
            later = await read_item(self._client, photo.library.drive_id, item.item_id)
            if later is None:
                raise ItemChangedError(f"{item.name} was removed meanwhile") from None
            item, file = later, msgspec.structs.replace(file, item=later, fresh=False)
            written = await self._fields(photo, values, schema, file, recall, picture)
        shown = await publish(
            self._client,
            photo.library.drive_id,
            msgspec.structs.replace(item, draft=written.draft if written.sent else item.draft),
        )
        if shown.fields_etag != item.fields_etag and not shown.checked_out:
            written = msgspec.structs.replace(written, etag=shown.fields_etag)
        return filed(schema, shown, file.outcome, written, file.needs + visibility(shown))

    async def _fields(
        self,
        photo: PhotoAnalyzed,
        values: dict[str, FieldText],
        schema: LibrarySchema,
        file: StoredFile,
        recall: Recall,
        picture: Picture,
    ) -> Written:
        item = file.item
        known = await picture.hash()
        try:
            return await self._writer.write(
                photo.library,
                schema,
                item,
                values,
                recall,
                photo_id=photo.photo_id,
                quick_xor_hash=known,
                stored_hash=file.stored_hash,
                fresh=file.fresh,
            )
        except FieldsRefusedError:
            # Somebody may have changed the columns a moment ago. If not, find the column that is refused.
            schema = await self._checked(photo, values, refresh=True)
            again = await read_item(self._client, photo.library.drive_id, item.item_id)
            if again is None:
                raise ItemChangedError(f"{item.name} was removed meanwhile") from None
            return await self._writer.write(
                photo.library,
                schema,
                again,
                values,
                recall,
                photo_id=photo.photo_id,
                quick_xor_hash=known,
                stored_hash=file.stored_hash,
                fresh=file.fresh and again.fields_etag == item.fields_etag,
                one_by_one=True,
            )

    async def _checked(
        self, photo: PhotoAnalyzed, values: dict[str, FieldText], *, refresh: bool = False
    ) -> LibrarySchema:
        """Read the library's columns as they are now. Raises PermanentError if a value does not fit them."""
        live = await self._libraries.schema(photo.library, refresh=refresh)
        wrong = problems(live.schema, values)
        if wrong and not refresh and live.digest != photo.schema_digest:
            # Our cached columns may be older than those the photo was described with.
            live = await self._libraries.schema(photo.library, refresh=True)
            wrong = problems(live.schema, values)
        if wrong:
            changed = live.digest != photo.schema_digest
            raise PermanentError(
                f"the library {photo.library.library!r} does not take {'; '.join(wrong)}."
                + (
                    " Its columns were changed since the photo was described: submit the photo again"
                    if changed
                    else ""
                )
            )
        return live.schema
