"""Describe a photo in the library's own terms, and decide for every column which source wins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import msgspec

from events.identities import StoreUrl
from events.types import Analysis, PhotoAnalyzed, PhotoFetched
from shared.columns.merge import Sources, merge
from shared.columns.schema import LibrarySchema
from shared.delivery.agent import Agent
from shared.photo_store import SCHEME, BlobStore
from shared.photos.decoders import Decoders
from shared.photos.facts import PhotoFacts
from shared.retry.errors import because
from shared.retry.limit import waiting
from shared.vision.cache import AnswerCache, answer_key
from shared.vision.choose import make_analyzer
from shared.vision.contract import Answer, PhotoContext, Usage
from shared.vision.inference import infer
from shared.vision.people import face_finder, hinted, people_columns

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings

# From this EXIF orientation on, the picture lies on its side: width and height change places.
_TURNED = 5


class VisionAnalyzer(Agent[PhotoFetched, PhotoAnalyzed]):
    """Show the analyzer a preview, never the original. The same question is asked once.

    A face hint (VISION_FACES) is not part of the kept answer, so switching it on or off asks and pays for
    nothing.
    """

    name = "vision_analyzer"
    # the local analyzer never fails as this dependency, so its breaker stays closed there
    dependencies: ClassVar[frozenset[str]] = frozenset({"vision"})

    def __init__(self, settings: Settings, redis: Redis) -> None:
        super().__init__(settings, redis)
        self._store = BlobStore(settings.photo_store_url)
        self._analyzer = make_analyzer(settings, redis)
        self._faces = face_finder(settings)
        self._decoders = Decoders()
        # An original has up to MAX_PHOTO_BYTES: only the one being decoded and the next one are in memory.
        self._originals = asyncio.Semaphore(2)
        self._answers = AnswerCache(self._store, redis, lease=settings.lease_seconds)

    async def open(self) -> None:
        """Start the decoder, and load the model or make the connections."""
        await self._decoders.open()
        if self._faces is not None:
            await self._faces.open()
        await self._analyzer.open()

    async def close(self) -> None:
        """Stop the decoder, and release the model or the connections."""
        await self._decoders.close()
        await self._analyzer.close()

    async def handle(self, event: PhotoFetched) -> PhotoAnalyzed:
        """Put the preview into the store, describe it, merge what is known into fields."""
        schema = msgspec.json.decode(await self._store.get(event.schema_ref), type=LibrarySchema)
        facts = await self._facts(event)
        preview_ref = StoreUrl(f"{SCHEME}previews/{event.sha256}.jpg")
        preview: bytes | None = None
        if not await self._store.exists(preview_ref):
            preview = await self._preview(event)
            await self._store.put(f"previews/{event.sha256}.jpg", preview)
        answer, cached = await self._answer(event, schema, preview)
        prompt_version = self._analyzer.prompt_version
        if self._faces is not None and people_columns(schema):
            prompt_version += f"-{self._faces.version}"
            # the stored preview, whatever its size, because people see that one in the report
            seen = await infer(self._faces.look, preview or await self._store.get(preview_ref))
            answer = answer if seen is None else hinted(answer, schema, seen)
        merged = merge(
            schema,
            Sources(
                hints=event.hints,
                exif_taken_at=facts.taken_at,
                exif_position=facts.position.text if facts.position else None,
                file_name=event.file_name,
                vision=answer.fields,
                vision_needs=answer.needs_person,
            ),
        )
        # the photo that asked first has paid for a kept answer
        usage = Usage() if cached else answer.usage
        return PhotoAnalyzed(
            **msgspec.structs.asdict(event),
            fields=merged.fields,
            needs_person=merged.needs_person,
            analysis=Analysis(
                model=self._analyzer.model,
                prompt_version=prompt_version,
                cached=cached,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
            ),
            preview_ref=preview_ref,
        )

    async def _answer(
        self, event: PhotoFetched, schema: LibrarySchema, preview: bytes | None
    ) -> tuple[Answer, bool]:
        """Return the analyzer's answer, and whether it was kept from an earlier question."""
        turned = event.orientation >= _TURNED
        context = PhotoContext(
            hints=event.hints,
            taken_at=event.exif.taken_at,
            camera=event.exif.camera,
            width=event.height if turned else event.width,
            height=event.width if turned else event.height,
            session_id=event.session_id,
        )

        async def ask() -> Answer:
            # the stored preview may have another size than VISION_PREVIEW_SIDE, so it is not read back
            shown = preview or await self._preview(event)
            with because("vision"):
                return await self._analyzer.describe(shown, schema, context)

        key = answer_key(event.sha256, event.schema_digest, self._analyzer, context)
        return await self._answers.answer(key, ask)

    async def _preview(self, event: PhotoFetched) -> bytes:
        """Upright, without EXIF. Raises PermanentError for an original that cannot be decoded."""
        with waiting():
            await self._originals.acquire()
        try:
            original = await self._store.get(event.dataref)
            side = self.settings.vision_preview_side
            with because("file"):
                return await self._decoders.preview(original, side, name=event.file_name)
        finally:
            self._originals.release()

    async def _facts(self, event: PhotoFetched) -> PhotoFacts:
        """Return all facts of the EXIF data. The position is only there, not in the event."""
        if event.exif.reference is None:
            return PhotoFacts(taken_at=event.exif.taken_at, camera=event.exif.camera)
        return msgspec.json.decode(await self._store.get(event.exif.reference), type=PhotoFacts)
