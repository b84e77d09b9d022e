"""Downloads photos from SharePoint by their ``sharepoint:`` address.

Two forms::

    sharepoint:<drive id>/<item id>                 what a listing returns: survives renaming and moving
    sharepoint:/sites/Bau/Referenzfotos/2024/a.jpg  what people write: site, library, path (percent-encoded)

The second also with a host, ``sharepoint://host/sites/Bau/…``; without one it is on the host of
SHAREPOINT_SITE.
A OneDrive is ``sharepoint://contoso-my.sharepoint.com/personal/NAME/Documents/…``.
An address that ends with the library is the whole library, to be listed.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import msgspec

from shared.photo_store import BlobStore
from shared.retry.errors import PermanentError
from shared.sharepoint.cache import TtlCache
from shared.sharepoint.client import GraphClient
from shared.sharepoint.in_use import note_in_use
from shared.sharepoint.items import content, content_at
from shared.sharepoint.sites import find_library, find_site
from shared.sharepoint.target import about, library_target

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from events.types import LibraryRef
    from shared.settings import Settings
    from shared.sharepoint.wire import Site

SCHEME: Final = "sharepoint:"
_SUBSITES: Final = 3
"""Levels of subsites below the site of an address. Each level costs calls before the next one is known."""


class ByIds(msgspec.Struct, frozen=True, kw_only=True):
    """Names a file by Graph's ids."""

    drive_id: str
    item_id: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.drive_id}/{self.item_id}"


class ByPath(msgspec.Struct, frozen=True, kw_only=True):
    """Names a file or, with an empty path, a library, by the names people see."""

    site: str
    """As `shared.sharepoint.sites.site_address` reads it."""
    library: str
    path: str
    """Below the library, decoded, without a leading slash."""


def parse(url: str) -> ByIds | ByPath:
    """Read a ``sharepoint:`` address. Raises PermanentError with what is expected."""
    parts = urlsplit(url)
    names = [unquote(name) for name in parts.path.split("/") if name]
    # "/" may come from %2F; no file or folder of SharePoint has one of these in its name
    misleading = any(name in (".", "..") or any(sign in name for sign in "/\\\0") for name in names)
    if parts.scheme == "sharepoint" and not parts.query and not misleading:
        if not parts.netloc and not parts.path.startswith("/") and len(names) == 2:
            return ByIds(drive_id=names[0], item_id=names[1])
        depth = 2 if names and names[0].casefold() in ("sites", "teams", "personal") else 0
        if (parts.netloc or parts.path.startswith("/")) and len(names) > depth:
            where = "/" + "/".join(names[:depth])
            return ByPath(
                site=f"{parts.hostname}:{where}" if parts.hostname else where,
                library=names[depth],
                path="/".join(names[depth + 1 :]),
            )
    raise PermanentError(
        f"the address {url[:200].partition('?')[0]!r} cannot be read:"
        " expected sharepoint:<drive id>/<item id> or sharepoint:/sites/Name/Library/path"
    )


class SharePointSource:
    """Downloads photos from SharePoint. The first download opens the session.

    An installation without SharePoint can create one too; only its use fails.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = BlobStore(settings.photo_store_url)
        self._client = GraphClient(settings)
        self._open = False
        self._sites: TtlCache[Site] = TtlCache(settings.schema_ttl)
        self._libraries: TtlCache[LibraryRef] = TtlCache(settings.schema_ttl)

    async def close(self) -> None:
        """Close the session if it is open."""
        self._open = False
        await self._sites.close()
        await self._libraries.close()
        await self._client.close()

    async def download(self, url: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a ``sharepoint:`` address, piece by piece.

        Raises PermanentError for an address that cannot be read, GraphError 404 for a file that is not there.
        """
        place = parse(url)
        await self._opened()
        if isinstance(place, ByIds):
            chunks = content(self._client, place.drive_id, place.item_id, target=place.drive_id)
        else:
            library, path = await self.place(place)
            if not path:
                raise PermanentError(f"the address {url[:200]!r} is a library, not a photo in it")
            target = library_target(library.site, library.library)
            chunks = content_at(self._client, library.drive_id, path, target=target)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def place(self, place: ByPath, *, levels: int = _SUBSITES) -> tuple[LibraryRef, str]:
        """Find the library of an address, and the path below it; remembered for SCHEMA_TTL seconds.

        If the site has no such library, the name is tried as a subsite, and the next one as its library, so
        many levels down. Raises PermanentError if there is no such site, or no such library in any of them.
        """
        try:
            site = await self._site(place.site)
        except PermanentError as error:
            # an app may be allowed to see a subsite of the root site, and not the root site itself
            if place.site.rpartition(":")[2] != "/":
                raise
            missing = error
        else:
            try:
                return await self._library(site, place), place.path
            except PermanentError as error:
                missing = error
        library, _, path = place.path.partition("/")
        if library and levels:
            below = ByPath(site=f"{place.site.rstrip('/')}/{place.library}", library=library, path=path)
            with suppress(PermanentError):
                return await self.place(below, levels=levels - 1)
        # outside of the handlers above: the cache keeps this object, and `raise` there would change it
        raise missing

    async def _site(self, name: str) -> Site:
        await self._opened()
        return await self._sites.get(name, lambda: self._find_site(name))

    async def _library(self, site: Site, place: ByPath) -> LibraryRef:
        return await self._libraries.get((place.site, place.library), lambda: self._find_library(site, place))

    async def _find_site(self, name: str) -> Site:
        with about(name):
            return await find_site(self._client, name, main=self._settings.sharepoint_site)

    async def _find_library(self, site: Site, place: ByPath) -> LibraryRef:
        with about(place.site):
            library = await find_library(self._client, site, place.site, place.library)
        await note_in_use(self._store, library, "source")
        return library

    async def _opened(self) -> None:
        if not self._open:
            # Set before the first await: a second caller must not open a second session.
            self._open = True
            try:
                await self._client.open()
            except BaseException:
                self._open = False
                raise
