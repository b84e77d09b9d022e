"""Finds the target library of a photo and reads its columns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from events.identities import SchemaDigest, StoreUrl
from shared.columns.schema import LibrarySchema
from shared.retry.errors import OF_A_TARGET, PermanentError, aimed_at
from shared.sharepoint.cache import TtlCache
from shared.sharepoint.client import DEPENDENCY
from shared.sharepoint.columns import read_columns
from shared.sharepoint.in_use import note_in_use
from shared.sharepoint.sites import find_library, find_site
from shared.sharepoint.target import about, about_library, library_target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from events.types import LibraryRef, Target
    from shared.photo_store import BlobStore
    from shared.settings import Settings
    from shared.sharepoint.client import GraphClient


def aimed_at_library(
    site: str, library: str, refusals: Collection[int] = OF_A_TARGET
) -> AbstractContextManager[None]:
    """Make one library the target of all calls in a block (`aimed_at`); a site may name its host or not."""
    return aimed_at(DEPENDENCY, library_target(site, library), refusals)


class LiveSchema(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a library's columns as they were read at most SCHEMA_TTL seconds ago."""

    schema: LibrarySchema
    digest: SchemaDigest
    reference: StoreUrl
    """``store:schemas/<digest>.json``: the schema as JSON."""


class Libraries:
    """Finds libraries and reads their columns; remembers both for SCHEMA_TTL seconds. A process has one."""

    def __init__(
        self,
        client: GraphClient,
        store: BlobStore,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._store = store
        self._settings = settings
        self._resolved: TtlCache[LibraryRef] = TtlCache(settings.schema_ttl, clock=clock)
        self._schemas: TtlCache[LiveSchema] = TtlCache(settings.schema_ttl, clock=clock)

    async def resolve(self, target: Target | None) -> LibraryRef:
        """Find the library of a target. What the target does not name is taken from the settings.

        Raises PermanentError if no site is named anywhere, or if site or library do not exist.
        """
        site, library = self.names(target)
        return await self._resolved.get((site, library), lambda: self._find(site, library))

    def names(self, target: Target | None) -> tuple[str, str]:
        """Return site and library of a target as they are named. Raises PermanentError if one is not."""
        site = (target.site if target else None) or self._settings.sharepoint_site
        library = (target.library if target else None) or self._settings.sharepoint_library
        if not site:
            raise PermanentError(
                "the photo names no target site, and none is configured:"
                " set SHAREPOINT_SITE to host:/sites/Name"
            )
        if not library:
            raise PermanentError(
                "the photo names no target library, and none is configured: set SHAREPOINT_LIBRARY"
            )
        return site, library

    async def schema(self, library: LibraryRef, *, refresh: bool = False) -> LiveSchema:
        """Read the library's columns and store them under their digest. `refresh`: do not use the cache."""
        key = (library.site_id, library.list_id)
        if refresh:
            self._schemas.forget(key)
        return await self._schemas.get(key, lambda: self._read(library))

    async def close(self) -> None:
        """Cancel the look-ups that are running."""
        await self._resolved.close()
        await self._schemas.close()

    async def _find(self, site: str, library: str) -> LibraryRef:
        with about(library_target(site, library)):
            found = await find_site(self._client, site, main=self._settings.sharepoint_site)
            ref = await find_library(self._client, found, site, library)
        await note_in_use(self._store, ref, "target")
        return ref

    async def _read(self, library: LibraryRef) -> LiveSchema:
        with about_library(library):
            columns = await read_columns(self._client, library)
        schema = LibrarySchema(
            library=library.library,
            columns=columns,
            time_zone=self._settings.sharepoint_time_zone,
        )
        digest = schema.digest()
        reference = await self._store.put(f"schemas/{digest}.json", msgspec.json.encode(schema))
        return LiveSchema(schema=schema, digest=digest, reference=reference)
