"""Remembers which libraries photos go to and come from, so that `erni doctor` can look at every one of them.

Photos may name libraries that no setting names. Notes lie in the photo store, one for each library and use:
``libraries/<target or source>-<drive id>.json``.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from shared.photo_store import SCHEME, BlobMissingError

if TYPE_CHECKING:
    from events.types import LibraryRef
    from shared.photo_store import BlobStore

Use: TypeAlias = Literal["target", "source"]

_FOLDER: Final = "libraries/"
_IN_USE_SECONDS: Final = 30 * 24 * 3600.0
"""A library that no photo named for a month is not looked at any more."""


class LibraryInUse(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what finds a library again."""

    site: str
    """As the photo or the setting named it."""
    library: str
    drive_id: str
    use: Use
    seen: float
    """Unix time in seconds when a photo last named it; noted every SCHEMA_TTL seconds."""


async def note_in_use(store: BlobStore, library: LibraryRef, use: Use) -> None:
    """Remember that photos go to, or come from, this library."""
    note = LibraryInUse(
        site=library.site,
        library=library.library,
        drive_id=library.drive_id,
        use=use,
        seen=time.time(),
    )
    key = f"{_FOLDER}{use}-{re.sub(r'[^A-Za-z0-9-]', '_', library.drive_id)}.json"
    await store.replace(key, msgspec.json.encode(note))


async def libraries_in_use(store: BlobStore) -> list[LibraryInUse]:
    """Read the notes of the last month, targets first. A note that cannot be read is left out."""
    found: list[LibraryInUse] = []
    async for key in store.keys(_FOLDER):
        try:
            note = msgspec.json.decode(await store.get(SCHEME + key), type=LibraryInUse)
        except (BlobMissingError, msgspec.DecodeError):
            continue
        if time.time() - note.seen < _IN_USE_SECONDS:
            found.append(note)
    return sorted(found, key=lambda note: (note.use == "source", note.site, note.library))
