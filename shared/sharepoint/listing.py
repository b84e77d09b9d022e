"""Lists a library as the source of photos: what is in it, and what is new or changed since last time.

Only delta is complete while others write (learn.microsoft.com, "driveItem: delta"). It also reports items
whose fields alone have changed, and that includes our own writes. So a photo counts as changed when its
bytes have changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from shared.photo_store import SCHEME, BlobMissingError
from shared.retry.errors import TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.client import segment, unreadable
from shared.sharepoint.source import ByIds
from shared.sharepoint.wire import DriveItem, Page

if TYPE_CHECKING:
    from shared.photo_store import BlobStore
    from shared.sharepoint.client import GraphClient

_log = structlog.get_logger(__name__)

_RESYNCS: Final = 2
_DOING: Final = "listing the library's changes"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one file of a library."""

    item_id: str
    name: str
    path: str
    """Below the library's top folder, with the name; empty if Graph does not report it."""
    size: int
    """Bytes."""
    media_type: str
    version: str
    """Changes with the bytes: their quickXorHash, else Graph's cTag."""
    source_url: str
    """``sharepoint:<drive id>/<item id>``, for a photo.submitted event."""

    @property
    def is_photo(self) -> bool:
        """Return whether SharePoint says that it is an image."""
        return self.media_type.startswith("image/")


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a library's delta reported: the files that are new or changed, and those that are gone."""

    entries: tuple[Entry, ...]
    deleted: frozenset[str]
    """Item ids."""
    delta_link: str
    """Where the next delta goes on."""
    complete: bool
    """All of the library, not only the changes: what is not among the entries is not there any more."""


async def changes(client: GraphClient, drive_id: str, since: str | None = None) -> Changes:
    """List all files of a library, or those changed since the delta link `since`; folders are left out.

    When Graph has forgotten `since` (410) everything is listed again.
    """
    link = since or f"/drives/{segment(drive_id)}/root/delta"
    complete = since is None
    for _ in range(_RESYNCS + 1):
        try:
            return await _follow(client, drive_id, link, complete=complete)
        except GraphError as error:
            if error.status != 410:
                raise
            # The answer names the address to start again at; without one, start at the beginning.
            link = error.location or f"/drives/{segment(drive_id)}/root/delta"
            complete = True
    raise TransientError(f"{_DOING}: SharePoint asked {_RESYNCS + 1} times to begin again (410)")


async def can_list(client: GraphClient, drive_id: str) -> None:
    """Read one file of a library's top folder. Raises what a listing would raise."""
    path = f"/drives/{segment(drive_id)}/root/children"
    await client.get(path, Page, doing=_DOING, params={"$top": "1"})


async def _follow(client: GraphClient, drive_id: str, link: str, *, complete: bool) -> Changes:
    entries: dict[str, Entry] = {}
    deleted: set[str] = set()
    while True:
        page = await client.get(link, Page, doing=_DOING)
        for raw in page.value:
            try:
                item = msgspec.json.decode(raw, type=DriveItem)
            except msgspec.DecodeError as error:
                raise unreadable(_DOING, error) from error
            # The same item may come several times; the last one counts.
            entries.pop(item.id, None)
            deleted.discard(item.id)
            if item.deleted is not None:
                deleted.add(item.id)
            elif item.file is not None:
                entries[item.id] = _entry(drive_id, item)
        if page.delta_link is not None:
            return Changes(
                entries=tuple(entries.values()),
                deleted=frozenset(deleted),
                delta_link=page.delta_link,
                complete=complete,
            )
        if page.next_link is None:
            raise TransientError(f"{_DOING}: SharePoint's answer has neither a next page nor an end")
        link = page.next_link


def _entry(drive_id: str, item: DriveItem) -> Entry:
    hashes = item.file.hashes if item.file else None
    folder = (item.parent_reference.path or "") if item.parent_reference else ""
    _, root, below = folder.partition("root:")
    return Entry(
        item_id=item.id,
        name=item.name,
        path=f"{below.strip('/')}/{item.name}".lstrip("/") if root else "",
        size=item.size,
        media_type=(item.file.mime_type or "") if item.file else "",
        version=(hashes.quick_xor_hash if hashes else None) or item.c_tag,
        source_url=str(ByIds(drive_id=drive_id, item_id=item.id)),
    )


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a watch knows: where delta goes on, and the version of every photo that was handed over."""

    delta_link: str
    versions: dict[str, str]
    """By item id."""


class Watch:
    """Finds the new and changed photos of one library, each once; the photo store remembers them.

    ``found = await watch.look()``, publish them, then ``await watch.keep()``. A process that dies in between
    finds them again.
    """

    def __init__(self, client: GraphClient, store: BlobStore, drive_id: str) -> None:
        self._client = client
        self._store = store
        self._drive_id = drive_id
        self._key = f"sharepoint/{re.sub(r'[^A-Za-z0-9-]', '_', drive_id)}/seen.json"
        self._next: Seen | None = None

    async def look(self, *, again: bool = False) -> list[Entry]:
        """Find the photos whose bytes are new since the last `keep`, or `again` all of them."""
        seen = Seen(delta_link="", versions={}) if again else await self._seen()
        found = await changes(self._client, self._drive_id, seen.delta_link or None)
        versions = (
            {} if found.complete else {k: v for k, v in seen.versions.items() if k not in found.deleted}
        )
        photos: list[Entry] = []
        for entry in found.entries:
            if not entry.is_photo:
                continue
            if seen.versions.get(entry.item_id) != entry.version:
                photos.append(entry)
            versions[entry.item_id] = entry.version
        self._next = Seen(delta_link=found.delta_link, versions=versions)
        return photos

    async def keep(self) -> None:
        """Remember that what the last `look` found has been handed over."""
        if self._next is not None:
            await self._store.replace(self._key, msgspec.json.encode(self._next))
            self._next = None

    async def _seen(self) -> Seen:
        try:
            return msgspec.json.decode(await self._store.get(SCHEME + self._key), type=Seen)
        except BlobMissingError:
            pass
        except msgspec.DecodeError as error:
            _log.warning("what was seen of a library cannot be read; all is listed", error=str(error))
        return Seen(delta_link="", versions={})
