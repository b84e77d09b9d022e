"""Reads the target library's columns, so that the later agents know what may be filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from events.identities import derived_photo_id
from events.types import Hints, PhotoSubmitted, SchemaExtracted
from shared.delivery.agent import Agent
from shared.photo_store import BlobStore
from shared.retry.errors import because
from shared.sharepoint.client import DEPENDENCY, GraphClient
from shared.sharepoint.libraries import Libraries, aimed_at_library

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings


class SchemaExtractor(Agent[PhotoSubmitted, SchemaExtracted]):
    """Finds the target library of a photo and reads its columns."""

    name = "schema_extractor"
    dependencies: ClassVar[frozenset[str]] = frozenset({DEPENDENCY})

    def __init__(self, settings: Settings, redis: Redis) -> None:
        super().__init__(settings, redis)
        self._client = GraphClient(settings)
        self._libraries = Libraries(self._client, BlobStore(settings.photo_store_url), settings)

    async def open(self) -> None:
        """Open the session with Graph."""
        await self._client.open()

    async def close(self) -> None:
        """Close the session."""
        await self._libraries.close()
        await self._client.close()

    async def handle(self, event: PhotoSubmitted) -> SchemaExtracted:
        """Resolve the target and read its columns, both remembered for SCHEMA_TTL seconds.

        Raises PermanentError if there is no such site or library; the sentence names those that exist.
        """
        with because("library"), aimed_at_library(*self._libraries.names(event.target)):
            library = await self._libraries.resolve(event.target)
            live = await self._libraries.schema(library)
        return SchemaExtracted(
            photo_id=event.photo_id or derived_photo_id(event.session_id, event.source_url),
            session_id=event.session_id,
            source_url=event.source_url,
            file_name=event.file_name,
            hints=event.hints or Hints(),
            library=library,
            schema_digest=live.digest,
            schema_ref=live.reference,
        )
