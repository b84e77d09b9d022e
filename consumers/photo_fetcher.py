"""Fetches a photo's bytes, checks and hashes them, reads EXIF and puts the original into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from events.types import ExifFacts, PhotoFetched, SchemaExtracted
from shared.delivery.agent import Agent
from shared.fetching.sources import Sources, name_of
from shared.photo_store import BlobStore
from shared.photos.decoders import Decoders
from shared.retry.errors import because
from shared.sharepoint.source import SharePointSource
from shared.telemetry.redact import public_source

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings


class PhotoFetcher(Agent[SchemaExtracted, PhotoFetched]):
    """Turns an address into bytes in the store.

    The key is the hash of the bytes, so the same bytes are stored once, also if they are sent again.
    """

    name = "photo_fetcher"
    # Photos of other hosts go on while one host is down, so no breaker stops the reading here.
    dependencies: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, redis: Redis) -> None:
        """Keep the settings; the store and the connections are opened in `open`."""
        super().__init__(settings, redis)
        self._blobs = BlobStore(settings.photo_store_url)
        self._sharepoint = SharePointSource(settings)
        self._decoders = Decoders()
        self._sources = Sources(settings, self._blobs, sharepoint=self._sharepoint.download)

    async def open(self) -> None:
        """Open the connections of the sources, and start the decoder."""
        await self._decoders.open()
        await self._sources.open()

    async def close(self) -> None:
        """Close them."""
        await self._decoders.close()
        await self._sources.close()
        await self._sharepoint.close()

    async def handle(self, event: SchemaExtracted) -> PhotoFetched:
        """Fetch one photo.

        Raises PermanentError for what is no whole photo of a kind we take, too large or not allowed.
        """
        name = event.file_name or name_of(event.source_url)
        with because("source"):
            async with self._sources.fetch(event.source_url, name=name) as file:
                with because("file"):
                    examined = await self._decoders.examine(file.path, name=name)
                original = await self._blobs.put_file(f"originals/{file.sha256}", file.path)
        header, facts = examined.header, examined.facts
        # Replaced, not kept: a later version of this agent may read more out of the same bytes.
        reference = await self._blobs.replace(f"facts/{file.sha256}.json", msgspec.json.encode(facts))
        # Nobody fetches this address again, so a permission in it is not passed on.
        carried = {field: getattr(event, field) for field in event.__struct_fields__}
        return PhotoFetched(
            **(carried | {"file_name": name, "source_url": public_source(event.source_url)}),
            dataref=original,
            sha256=file.sha256,
            size=file.size,
            media_type=header.media_type,
            width=header.width,
            height=header.height,
            orientation=facts.orientation,
            exif=ExifFacts(
                taken_at=facts.taken_at,
                camera=facts.camera,
                has_position=facts.position is not None,
                reference=reference,
            ),
        )
