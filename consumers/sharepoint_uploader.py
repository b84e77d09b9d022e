"""Stores the photo and its fields in the library. The same picture is one item, however often it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from events.keys import all_lanes
from events.types import PhotoAnalyzed, PhotoUploaded
from shared.delivery.agent import Agent
from shared.photo_store import BlobStore
from shared.retry.errors import because
from shared.sharepoint.client import DEPENDENCY, GraphClient
from shared.sharepoint.filing import Filing
from shared.sharepoint.libraries import Libraries, aimed_at_library
from shared.sharepoint.names import check_template
from shared.sharepoint.open_sessions import OpenSessions
from shared.sharepoint.uploads import Uploader

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings


class SharepointUploader(Agent[PhotoAnalyzed, PhotoUploaded]):
    """Turns a described photo into an item in SharePoint."""

    name = "sharepoint_uploader"
    dependencies: ClassVar[frozenset[str]] = frozenset({DEPENDENCY})

    def __init__(self, settings: Settings, redis: Redis) -> None:
        super().__init__(settings, redis)
        store = BlobStore(settings.photo_store_url)
        self._client = GraphClient(settings)
        self._libraries = Libraries(self._client, store, settings)
        sessions = OpenSessions(redis, all_lanes(settings.lanes)[0])
        uploader = Uploader(self._client, sessions=sessions)
        self._filing = Filing(self._client, store, self._libraries, settings, uploader=uploader)

    async def open(self) -> None:
        """Open the session with Graph. Raises PermanentError if FILE_NAME_TEMPLATE cannot be used."""
        check_template(self.settings.file_name_template)
        await self._client.open()

    async def close(self) -> None:
        """Close the session."""
        await self._libraries.close()
        await self._client.close()

    async def handle(self, event: PhotoAnalyzed) -> PhotoUploaded:
        """Store what is not stored yet. `created`, `replaced` and `unchanged` describe the bytes.

        Raises PermanentError naming the column if a value does not fit the library as it is now.
        """
        with because("filing"), aimed_at_library(event.library.site, event.library.library):
            filed = await self._filing.file(event)
        carried = {name: getattr(event, name) for name in event.__struct_fields__}
        needs = [*event.needs_person, *filed.needs_person]
        return PhotoUploaded(**(carried | {"needs_person": needs}), item=filed.item)
