"""Stores a photo in its library: its bytes once, its fields where they differ, however often it is asked.

The picture is found by the notes about it, then by its name. Two processes that store it at the same time end
with one file, because a new file is only created where there is none (``conflictBehavior=fail``).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from events.types import FieldText, NeedsPerson, StoredItem
from shared.columns import needs as codes
from shared.columns.checks import check_value
from shared.retry.errors import PermanentError, PostponeError, TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.fields import is_empty
from shared.sharepoint.items import Item, content_sha256, find_item, read_item
from shared.sharepoint.names import stored_name
from shared.sharepoint.notes import Memory
from shared.sharepoint.publication import check_out, publish
from shared.sharepoint.quickxor import quick_xor_hash
from shared.sharepoint.uploads import ItemChangedError, NameTakenError, Uploader
from shared.sharepoint.writing import FieldsRefusedError, FieldWriter, Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from events.types import PhotoAnalyzed
    from shared.columns.schema import LibrarySchema
    from shared.photo_store import BlobStore
    from shared.settings import Settings
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.libraries import Libraries
    from shared.sharepoint.notes import Recall

_Outcome: TypeAlias = Literal["created", "replaced", "unchanged"]

_ROUNDS: Final = 4
_RESERVED_SECONDS: Final = 300.0
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
_REJECTED: Final = "Das Foto wurde in SharePoint abgelehnt."
_HIDDEN: Final = (
    "SharePoint does not show the file to the app. If the library requires approval, approve the file or"
    " grant the app the role 'fullcontrol' on this site: it may see only what is approved"
)
_SERVER_ERROR: Final = 500
_QUOTA: Final = 507
_QUOTA_SECONDS: Final = 900.0
_LOCKED: Final = 423
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


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """Says what became of the bytes. `fresh`: we have just created the item."""

    item: Item
    outcome: _Outcome
    fresh: bool = False
    stored_hash: str | None = None
    """Of an upload of ours, as SharePoint reports it."""
    needs: list[NeedsPerson] = []


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
        self._uploader = uploader or Uploader(client)
        self._writer = FieldWriter(client)

    async def file(self, photo: PhotoAnalyzed) -> Filed:
        """Store a photo and its fields, or the part of them that is missing.

        Raises PermanentError naming the column if a value does not fit the library as it is now, and what
        the client raises.
        """
        values = {name: field.value for name, field in photo.fields.items() if not is_empty(field.value)}
        schema = await self._checked(photo, values)
        name = stored_name(self._settings.file_name_template, photo, schema.time_zone)
        recall, new = await self._memory.recall(
            photo.library, photo.sha256, name=name, photo_id=photo.photo_id
        )
        picture = _Picture(self._store, photo, recall.quick_xor_hash)
        reason = ""
        interrupted = recall.claimed_by == photo.photo_id and not new
        taken = kept_by_upload = False
        for _ in range(_ROUNDS):
            try:
                # A picture without notes is not looked up: if it is there, the upload is refused.
                item = None if new else await self._find(photo, recall)
                kept_by_upload = taken and item is None
                new = False
                return await self._bring(
                    photo, values, schema, recall, picture, item, interrupted=interrupted
                )
            except (NameTakenError, ItemChangedError) as error:
                taken = isinstance(error, NameTakenError)
                if taken and kept_by_upload:
                    # Taken, not there, and taken again: an upload that has not ended keeps the name.
                    raise PostponeError(
                        f"{error}; an upload that has not ended keeps the name, or {_HIDDEN}",
                        _RESERVED_SECONDS,
                    ) from error
                reason = str(error)
                await recall.refresh()
        raise TransientError(f"storing {recall.name}: it changed {_ROUNDS} times meanwhile; {reason}")

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
        picture: _Picture,
        item: Item | None,
        *,
        interrupted: bool,
    ) -> Filed:
        """Do one round: upload the bytes if they are missing, then write the fields.

        `interrupted`: an earlier delivery of this photo began to store the picture as the first.
        """
        file = await self._bytes(photo, recall, picture, item, interrupted=interrupted)
        item = file.item
        try:
            written = await self._fields(photo, values, schema, file, recall, picture)
        except PostponeError as error:
            cause = error.__cause__
            if item.checked_out or not (isinstance(cause, GraphError) and cause.status == _LOCKED):
                raise
            # The library may want a file checked out before it is changed. If a person has it, this says so.
            await check_out(self._client, photo.library.drive_id, item)
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
        if shown.fields_etag != item.fields_etag and (shown.checked_out, shown.draft) == ("", False):
            written = msgspec.structs.replace(written, etag=shown.fields_etag)
        return _filed(schema, shown, file.outcome, written, file.needs + _visibility(shown))

    async def _bytes(
        self, photo: PhotoAnalyzed, recall: Recall, picture: _Picture, item: Item | None, *, interrupted: bool
    ) -> _File:
        """Upload the bytes if they are missing, and find out what a person has to know about them."""
        drive_id = photo.library.drive_id
        if item is None:
            data = await picture.data()
            with _about(photo.library.library):
                made = await self._uploader.create(drive_id, recall.name, data, photo.media_type)
            return await self._uploaded(photo, picture, made, "created", fresh=True)
        first: _Outcome = "created" if interrupted and not recall.finished(item.item_id) else "unchanged"
        if await self._same_bytes(photo, item, recall, picture):
            return _File(item=item, outcome=first)
        if self._altered(photo, item, recall):
            return _File(item=item, outcome=first, needs=[_altered_need()])
        if recall.finished(item.item_id) or (item.touched_by_person and item.size):
            need = NeedsPerson(column=FILE, reason=_OTHER_BYTES, code=codes.FILE_REPLACED)
            return _File(item=item, outcome="unchanged", needs=[need])
        data = await picture.data()
        with _about(photo.library.library):
            made = await self._uploader.replace(drive_id, item, data, photo.media_type)
        return await self._uploaded(photo, picture, made, "replaced", fresh=False)

    async def _uploaded(
        self, photo: PhotoAnalyzed, picture: _Picture, made: Item, outcome: _Outcome, *, fresh: bool
    ) -> _File:
        item = await self._after(photo, made)
        changed = await self._changed(photo, item, picture)
        return _File(
            item=item,
            outcome=outcome,
            fresh=fresh,
            stored_hash=item.quick_xor_hash,
            needs=[_altered_need()] if changed else [],
        )

    async def _after(self, photo: PhotoAnalyzed, made: Item) -> Item:
        """Read the item after the upload, with the fields that SharePoint set."""
        item = await read_item(self._client, photo.library.drive_id, made.item_id)
        if item is None:
            raise PostponeError(f"{made.name} was stored, but {_HIDDEN}", _RESERVED_SECONDS)
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
    async def _changed(photo: PhotoAnalyzed, item: Item, picture: _Picture) -> bool:
        """Return whether SharePoint holds other bytes than we have just uploaded."""
        if item.quick_xor_hash is None:
            return item.size != photo.size
        return item.quick_xor_hash != await picture.hash()

    async def _same_bytes(self, photo: PhotoAnalyzed, item: Item, recall: Recall, picture: _Picture) -> bool:
        """Return whether the item holds the picture. SharePoint may not have computed the hash yet."""
        if item.quick_xor_hash is not None:
            return item.quick_xor_hash == await picture.hash()
        if item.size != photo.size:
            return False
        if recall.finished(item.item_id):
            return True
        return await content_sha256(self._client, photo.library.drive_id, item.item_id) == photo.sha256

    async def _fields(
        self,
        photo: PhotoAnalyzed,
        values: dict[str, FieldText],
        schema: LibrarySchema,
        file: _File,
        recall: Recall,
        picture: _Picture,
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
        problems = _problems(live.schema, values)
        if problems and not refresh and live.digest != photo.schema_digest:
            # Our cached columns may be older than those the photo was described with.
            live = await self._libraries.schema(photo.library, refresh=True)
            problems = _problems(live.schema, values)
        if problems:
            changed = live.digest != photo.schema_digest
            raise PermanentError(
                f"the library {photo.library.library!r} does not take {'; '.join(problems)}."
                + (
                    " Its columns were changed since the photo was described: submit the photo again"
                    if changed
                    else ""
                )
            )
        return live.schema


class _Picture:
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


@contextmanager
def _about(library: str) -> Iterator[None]:
    """Name the library in what its uploads raise.

    Raises PostponeError for a full quota: it says nothing about other libraries, and lasts until somebody
    makes room.
    """
    try:
        yield
    except GraphError as error:
        if error.status < _SERVER_ERROR:
            raise
        sentence = f"the library {library!r}: {error}"
        if error.status == _QUOTA:
            raise PostponeError(sentence, _QUOTA_SECONDS) from error
        raise GraphError(
            sentence, status=error.status, retry_after=error.retry_after, codes=error.codes
        ) from error


def _visibility(item: Item) -> list[NeedsPerson]:
    """Say why people do not see the photo as it is, if they do not."""
    if item.checked_out:
        return [NeedsPerson(column=FILE, reason=_CHECKED_OUT, code=codes.CHECKED_OUT)]
    if item.moderation:
        reason = _REJECTED if item.moderation == _MODERATION_REJECTED else _NOT_APPROVED
        return [NeedsPerson(column=FILE, reason=reason, code=codes.APPROVAL)]
    return []


def _altered_need() -> NeedsPerson:
    return NeedsPerson(column=FILE, reason=_ALTERED_BYTES, code=codes.FILE_ALTERED)


def _problems(schema: LibrarySchema, values: dict[str, FieldText]) -> list[str]:
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


def _filed(
    schema: LibrarySchema, item: Item, outcome: _Outcome, written: Written, needs: list[NeedsPerson]
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
