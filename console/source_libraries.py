"""SharePoint libraries as what `erni publish` is pointed at: their new and changed photos."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec

from console.errors import CommandError
from console.explain import cause_of
from console.photo_files import PHOTO_ENDINGS, PhotoFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events.types import LibraryRef
    from shared.photo_store import BlobStore
    from shared.settings import Settings
    from shared.sharepoint.listing import Watch
    from shared.sharepoint.source import ByPath


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the libraries, and the words that name none."""

    photos: tuple[PhotoFile, ...]
    libraries: tuple[str, ...]
    others: tuple[str, ...]


class SourceLibraries:
    """Lists libraries. Nothing counts as handed over before `keep`: who is interrupted finds it again."""

    def __init__(self, settings: Settings, store: BlobStore) -> None:
        self._settings = settings
        self._store = store
        self._watches: list[Watch] = []

    async def __aenter__(self) -> Self:
        from shared.sharepoint.client import GraphClient
        from shared.sharepoint.source import SharePointSource

        self._client = GraphClient(self._settings)
        self._source = SharePointSource(self._settings)
        self._open = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._source.close()
        if self._open:
            await self._client.close()

    async def look(self, words: Sequence[str], *, again: bool = False) -> Listed:
        """The photos in every library among the words that are new or changed, or `again` all of them.

        Raises CommandError.
        """
        from shared.retry.errors import HttpStatusError, PermanentError, TransientError
        from shared.sharepoint.source import SCHEME, ByPath, parse

        photos: list[PhotoFile] = []
        libraries, others = [], []
        for word in words:
            try:
                place = parse(word) if word.startswith(SCHEME) else None
                library = await self._library(place) if isinstance(place, ByPath) else None
                if library is None:
                    others.append(word)
                else:
                    libraries.append(word)
                    photos += await self._new(library, again=again)
            except HttpStatusError as error:
                wait = f": try again in {error.retry_after:.0f} s" if error.retry_after else ""
                raise CommandError(f"{error}{wait}") from error
            except (PermanentError, TransientError) as error:
                raise CommandError(str(error)) from error
            except (aiohttp.ClientError, OSError) as error:
                raise CommandError(
                    f"listing {word}: SharePoint does not answer ({cause_of(error)})"
                ) from error
        return Listed(photos=tuple(photos), libraries=tuple(libraries), others=tuple(others))

    async def keep(self) -> None:
        """What was listed is handed over: the next `look` does not find it again."""
        for watch in self._watches:
            await watch.keep()

    async def _library(self, place: ByPath) -> LibraryRef | None:
        """The library that an address names; None if it names one photo in it.

        An address that ends like a photo's is not looked up: the agents do that.
        """
        if PurePosixPath(place.path).suffix.lower() in PHOTO_ENDINGS:
            return None
        library, path = await self._source.place(place)
        return None if path else library

    async def _new(self, library: LibraryRef, *, again: bool) -> list[PhotoFile]:
        from shared.sharepoint.listing import Watch

        if not self._open:
            await self._client.open()
            self._open = True
        watch = Watch(self._client, self._store, library.drive_id)
        found = await watch.look(again=again)
        self._watches.append(watch)
        return [
            PhotoFile(name=entry.path or entry.name, url=entry.source_url, version=entry.version)
            for entry in found
        ]
