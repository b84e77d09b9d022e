"""Agents with the names and the places of the real ones, whose only outside is the effect service.

What shall happen to a photo stands in its address: ``https://bau.invalid/<way>/<agent number>/…`` with way
``ok``, ``die`` (the process ends at once, without a word) or ``refuse`` (a permanent error).
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, ClassVar, Final

from events import topology
from events.identities import SchemaDigest, Sha256, StoreUrl, derived_photo_id
from events.types import (
    Analysis,
    FieldValue,
    FieldVerdict,
    LibraryRef,
    PhotoAnalyzed,
    PhotoFetched,
    PhotoSubmitted,
    PhotoUploaded,
    PhotoValidated,
    SchemaExtracted,
    SessionCompleted,
    SessionReported,
    StoredItem,
)
from shared.delivery.agent import Agent
from shared.retry.errors import HttpStatusError, TransientError, dependency

if TYPE_CHECKING:
    import msgspec
    from redis.asyncio import Redis

    from shared.settings import Settings

EFFECTS: Final = "CHAOS_EFFECTS"
"""Environment variable: the port of the effect service."""
CALLS: Final = "CHAOS_CALLS"
"""Environment variable: calls that each attempt makes, one number per agent, with commas."""
DIED: Final = 13
"""The exit code of a process that a photo killed."""
PART: Final = "sharepoint"

_LIBRARY: Final = LibraryRef(
    site_id="s", list_id="l", drive_id="d", site="/sites/Bau", library="Fotos", web_url="https://bau.invalid"
)
_DIGEST: Final = SchemaDigest("0" * 64)
_ANALYSIS: Final = Analysis(model="none", prompt_version="1")


class Service:
    """A client of the effect service; connections are kept, one per call under way."""

    def __init__(self) -> None:
        self._port = int(os.environ[EFFECTS])
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, agent: str, whom: str, number: int, what: str) -> None:
        """Take an effect. Raises HttpStatusError, ConnectionError or TransientError."""
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        keep = False
        try:
            writer.write(f"POST /{agent}/{whom}/{number} HTTP/1.1\r\nHost: effects\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 "):
                raise TransientError(f"filing {what}: the answer is no HTTP")
            keep = True
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()
        status = int(head[9:12])
        if status != 200:
            wait = next((line[12:] for line in head.split(b"\r\n") if line[:12] == b"Retry-After:"), None)
            raise HttpStatusError(
                f"filing {what} was answered with {status}",
                status=status,
                retry_after=float(wait) if wait else None,
            )

    def close(self) -> None:
        """End the idle connections."""
        for _, writer in self._idle:
            writer.close()


class _Light:
    """What the light agents have in common."""

    name: ClassVar[str]

    def __init__(self, settings: Settings, redis: Redis) -> None:
        super().__init__(settings, redis)  # type: ignore[call-arg]  # mixed into Agent, which takes them
        self._number = topology.AGENTS.index(self.name)
        self._calls = int(os.environ.get(CALLS, "1,1,1,1,1").split(",")[self._number])
        self._service: Service | None = None

    async def open(self) -> None:
        self._service = Service()

    async def close(self) -> None:
        if self._service:
            self._service.close()

    async def effect(self, whom: str, source_url: str) -> None:
        """Do what the photo's address says, then what is to be done outside."""
        parts = source_url.split("/")
        if len(parts) > 4 and parts[4] == str(self._number):
            if parts[3] == "die":
                os._exit(DIED)
            if parts[3] == "refuse":
                raise ValueError(f"this photo is none: {source_url}")
        assert self._service is not None
        with dependency(PART):
            for number in range(self._calls):
                await self._service.call(self.name, whom, number, source_url)


class SchemaExtractor(_Light, Agent[PhotoSubmitted, SchemaExtracted]):
    name = "schema_extractor"
    dependencies = frozenset({PART})

    async def handle(self, event: PhotoSubmitted) -> SchemaExtracted:
        photo = event.photo_id or derived_photo_id(event.session_id, event.source_url)
        await self.effect(photo, event.source_url)
        return SchemaExtracted(
            photo_id=photo,
            session_id=event.session_id,
            source_url=event.source_url,
            file_name=event.file_name,
            library=_LIBRARY,
            schema_digest=_DIGEST,
            schema_ref=StoreUrl("store:schemas/x.json"),
        )


class PhotoFetcher(_Light, Agent[SchemaExtracted, PhotoFetched]):
    name = "photo_fetcher"

    async def handle(self, event: SchemaExtracted) -> PhotoFetched:
        await self.effect(event.photo_id, event.source_url)
        return PhotoFetched(
            **_carried(event),
            dataref=StoreUrl("store:originals/x"),
            sha256=Sha256("0" * 64),
            size=1,
            media_type="image/jpeg",
            width=4,
            height=3,
        )


class VisionAnalyzer(_Light, Agent[PhotoFetched, PhotoAnalyzed]):
    name = "vision_analyzer"

    async def handle(self, event: PhotoFetched) -> PhotoAnalyzed:
        await self.effect(event.photo_id, event.source_url)
        fields = {"Title": FieldValue(value="Dachstuhl", source="vision", confidence=0.9)}
        return PhotoAnalyzed(
            **_carried(event), fields=fields, analysis=_ANALYSIS, preview_ref=StoreUrl("store:previews/x")
        )


class SharepointUploader(_Light, Agent[PhotoAnalyzed, PhotoUploaded]):
    name = "sharepoint_uploader"
    dependencies = frozenset({PART})

    async def handle(self, event: PhotoAnalyzed) -> PhotoUploaded:
        await self.effect(event.photo_id, event.source_url)
        item = StoredItem(
            item_id="1", name="x.jpg", web_url="https://bau.invalid/x.jpg", etag="1", outcome="created"
        )
        return PhotoUploaded(**_carried(event), item=item)


class ValidationReporter(_Light, Agent[PhotoUploaded | SessionCompleted, PhotoValidated | SessionReported]):
    name = "validation_reporter"
    dependencies = frozenset({PART})

    async def handle(self, event: PhotoUploaded | SessionCompleted) -> PhotoValidated | SessionReported:
        if isinstance(event, SessionCompleted):
            await self.effect(f"{event.session_id}.{event.completion}", "")
            return SessionReported(
                session_id=event.session_id,
                completion=event.completion,
                report_ref=StoreUrl("store:reports/x"),
                validated=event.counters.get("validated", 0),
                dead=event.counters.get("dead", 0),
            )
        await self.effect(event.photo_id, event.source_url)
        return PhotoValidated(
            **_carried(event),
            verdicts={"Title": FieldVerdict(sent="Dachstuhl", stored="Dachstuhl", same=True)},
            verdict="ok",
            report_ref=StoreUrl("store:reports/x"),
        )


LIGHT: Final[dict[str, type[Agent[Any, Any]]]] = {
    agent.name: agent
    for agent in (SchemaExtractor, PhotoFetcher, VisionAnalyzer, SharepointUploader, ValidationReporter)
}


def _carried(event: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
