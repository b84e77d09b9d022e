"""Notes what we last wrote to an item, so that a person's later edit can be recognised.

The library itself gets no column for that. Notes lie in the photo store, one folder for each picture in a
library::

    sharepoint/<list id>/<sha256>/name.json             the name the picture has there, claimed once
    sharepoint/<list id>/<sha256>/<time>-<random>.json  one note for each write

A note is written before the write (an intent: these values, soon) and one after it (done: these values,
certainly). No note is ever changed, so processes cannot overwrite each other's. A stored value is ours if it
equals that of the last done note or of an intent after it: a worker may have died between its intent and its
done. Every write carries If-Match, so once we have written ourselves no earlier intent can take effect any
more: the done note replaces all others, and one remains.

Without notes (the store was emptied) nothing that stands in the library counts as ours: that errs on the
side of the people.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from events.types import FieldText
from shared.photo_store import SCHEME, BlobMissingError

if TYPE_CHECKING:
    from events.identities import PhotoId, Sha256
    from events.types import LibraryRef
    from shared.photo_store import BlobStore

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_CLAIM: Final = "name.json"
_LISTINGS: Final = 5
_WRITE_SECONDS: Final = 600
"""An intent older than this was left by a worker that died."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the name of a picture in a library, and the photo that brought it first."""

    name: str
    photo_id: str


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one write, intended or done."""

    item_id: str
    values: dict[str, FieldText]
    """All that we have ever written and not seen replaced, by internal column name."""
    done: bool
    photo_id: str
    """Whose delivery wrote it."""
    quick_xor_hash: str
    """Of the bytes we uploaded."""
    stored_hash: str | None = None
    """Of what SharePoint made of these bytes; None in notes that do not know it."""


class Recall:
    """Reads and adds the notes about one picture in one library."""

    def __init__(self, store: BlobStore, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._notes: dict[str, Note] = {}
        self.name = ""
        self.claimed_by = ""

    async def open(self, claim: Claim) -> bool:
        """Read the notes. If the picture is new here, make the claim and return True."""
        await self.refresh()
        place = f"{self._folder}/{_CLAIM}"
        new = not self._notes and not await self._store.exists(SCHEME + place)
        if new:
            await self._store.put(place, msgspec.json.encode(claim))
        try:
            won = await self._read(place, Claim)
        except BlobMissingError:
            won = None
        won = won or Claim(name=claim.name, photo_id="")
        self.name, self.claimed_by = won.name, won.photo_id
        return new

    async def refresh(self) -> None:
        """Read the notes again: another process may have written some."""
        for _ in range(_LISTINGS):
            found: dict[str, Note] = {}
            complete = True
            async for key in self._store.keys(self._folder):
                if key.endswith(_CLAIM):
                    continue
                try:
                    note = await self._read(key, Note)
                except BlobMissingError:
                    # Replaced since the listing, perhaps by a note that the listing does not have.
                    complete = False
                    continue
                if note is not None:
                    found[key] = note
            if complete:
                break
        self._notes = dict(sorted(found.items()))

    @property
    def item_id(self) -> str | None:
        """Return the item that the last note is about."""
        return next((note.item_id for note in reversed(self._notes.values())), None)

    @property
    def quick_xor_hash(self) -> str | None:
        """Return the hash of the picture's bytes, if it was noted."""
        return next((note.quick_xor_hash for note in reversed(self._notes.values())), None)

    @property
    def stored_hash(self) -> str | None:
        """Return the hash of what SharePoint made of the bytes we uploaded, if it was noted."""
        known = (note.stored_hash for note in reversed(self._notes.values()))
        return next((found for found in known if found is not None), None)

    def finished(self, item_id: str) -> bool:
        """Return whether a write to that item was ever finished."""
        return any(note.done and note.item_id == item_id for note in self._notes.values())

    def pending(self, item_id: str) -> bool:
        """Return whether there is an intent whose write may not have happened."""
        return any(not note.done for note in self._current(item_id))

    def under_way(self, item_id: str, photo_id: str) -> bool:
        """Return whether another photo's delivery may be writing to the item right now."""
        recent = time.time_ns() - _WRITE_SECONDS * 1_000_000_000
        return any(
            not note.done
            and note.item_id == item_id
            and note.photo_id != photo_id
            and int(key.rpartition("/")[2].partition("-")[0]) > recent
            for key, note in self._notes.items()
        )

    def ours(self, item_id: str, column: str) -> list[FieldText]:
        """Return the values that column may have from us, the latest last. Empty: we never wrote it."""
        return [note.values[column] for note in self._current(item_id) if column in note.values]

    def certain(self, item_id: str, column: str) -> bool:
        """Return whether a write of that column was finished. Else its value may be SharePoint's."""
        return any(note.done and column in note.values for note in self._current(item_id))

    async def intend(self, note: Note) -> None:
        """Add a note of what will be written next."""
        await self._add(note)

    async def finish(self, note: Note) -> None:
        """Add a note of our values that are now in the item, and remove the notes that it replaces."""
        old = list(self._notes)
        await self._add(note)
        for key in old:
            await self._store.delete(SCHEME + key)
            del self._notes[key]

    def _current(self, item_id: str) -> list[Note]:
        """Return the last done note about the item and the intents after it."""
        found: list[Note] = []
        for note in self._notes.values():
            if note.item_id == item_id:
                found = [note] if note.done else [*found, note]
        return found

    async def _add(self, note: Note) -> None:
        # Sorted by time; two of the same nanosecond differ in the rest.
        key = f"{self._folder}/{time.time_ns():020d}-{secrets.token_hex(4)}.json"
        await self._store.put(key, msgspec.json.encode(note))
        self._notes[key] = note

    async def _read(self, key: str, kind: type[_T]) -> _T | None:
        """Read a blob; None if it cannot be decoded. Raises BlobMissingError."""
        data = await self._store.get(SCHEME + key)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            _log.warning("a note about a SharePoint item cannot be read", key=key, error=str(error))
            return None


class Memory:
    """Finds the notes in the photo store."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    async def recall(
        self, library: LibraryRef, sha256: Sha256, *, name: str, photo_id: PhotoId
    ) -> tuple[Recall, bool]:
        """Read the notes about a picture, and whether it is new here.

        A new picture claims `name`; of two that do so at once one wins, and both use its name. Later
        submissions keep that name, whatever theirs would be: the same picture is one item.
        """
        folder = f"sharepoint/{re.sub(r'[^A-Za-z0-9-]', '_', library.list_id)}/{sha256}"
        recall = Recall(self._store, folder)
        return recall, await recall.open(Claim(name=name, photo_id=photo_id))
