"""Publishing many photos: bytes into the store, then the event. Done again, it goes on where it stopped."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
from obstore import exceptions as blob_errors
from opentelemetry import trace

from events import identities
from events.identities import SessionId
from events.publisher import Publisher, PublishRefusedError
from events.types import Hints, PhotoSubmitted, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from opentelemetry.trace import SpanContext, Tracer
    from redis.asyncio import Redis

    from console.photo_files import PhotoFile
    from shared.blobs import BlobStore
    from shared.settings import Settings

_AT_ONCE: Final = 8
"""Photos on their way into the store at the same time."""


class StoreError(RuntimeError):
    """The photo store does not take a photo that can be read."""


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """One photo that was published, now or before."""

    file: str
    photo_id: str
    event_id: str
    entry_id: str
    fresh: bool
    """False: it had been published before, and nothing was done."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What all photos of one publish have in common."""

    session_id: SessionId
    hints: Hints | None = None
    target: Target | None = None
    event_id: str | None = None
    """Only for a single photo."""


class BatchPublisher:
    """Publishes the photos of one session."""

    def __init__(self, redis: Redis, store: BlobStore, settings: Settings, *, source: str) -> None:
        self._store = store
        self._sessions = settings.session_backend == "redis"
        self._publisher = Publisher(
            redis,
            source=source,
            lanes=settings.lanes,
            max_event_bytes=settings.max_event_bytes,
            max_backlog=settings.max_backlog,
            session_ttl=settings.session_ttl,
        )
        self.submitted: list[Submission] = []
        self.failed: list[tuple[str, str]] = []
        """Files that could not be read any more: published by their address, so that the session ends."""

    async def publish(
        self,
        photos: Sequence[PhotoFile],
        batch: Batch,
        *,
        tracer: Tracer | None = None,
        on_photo: Callable[[], None] = lambda: None,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the session, then publish all; `submitted` and `failed` grow meanwhile.

        `on_wait` gets the sentence when there is no room and we wait for the agents to make some.
        Raises InvalidEventError, InvalidIdError, or what redis-py raises when Redis is away.
        """
        rest = iter(photos)

        async def work(around: SpanContext | None) -> None:
            for photo in rest:
                with _photo_span(tracer, around, batch.session_id):
                    await self._publish_one(photo, batch, on_wait)
                on_photo()

        with _command_span(tracer, batch.session_id, len(photos)) as around:
            if self._sessions:
                await self._publisher.open_session(
                    batch.session_id,
                    expected=len(photos),
                    target=batch.target,
                    traceparent=_traceparent(around) if around else "",
                )
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(_AT_ONCE, len(photos))):
                        workers.create_task(work(around))
            except ExceptionGroup as errors:
                # The others were cancelled because of it, or failed alike.
                raise errors.exceptions[0] from None

    async def _publish_one(self, photo: PhotoFile, batch: Batch, on_wait: Callable[[str], None]) -> None:
        source_url = photo.url
        if photo.path is not None:
            source_url = await self._stored(photo.path)
        # Two files of one content are two photos, and the same file again is the same photo.
        photo_id = identities.derived_photo_id(
            batch.session_id, f"{source_url}#{photo.name}#{photo.version}".removesuffix("#")
        )
        event = PhotoSubmitted(
            source_url=source_url,
            photo_id=photo_id,
            session_id=batch.session_id,
            file_name=photo.file_name,
            target=batch.target,
            hints=batch.hints,
        )
        event_id = batch.event_id or f"{batch.session_id}/{photo_id}"
        while True:
            try:
                published = await self._publisher.publish(event, event_id=event_id)
                break
            except PublishRefusedError as refusal:
                on_wait(str(refusal))
                await asyncio.sleep(refusal.retry_after)
        trace.get_current_span().set_attributes(
            {"photo.id": published.photo_id, "messaging.message.id": published.entry_id}
        )
        self.submitted.append(
            Submission(
                file=photo.name or photo.url,
                photo_id=published.photo_id,
                event_id=published.event_id,
                entry_id=published.entry_id,
                fresh=published.fresh,
            )
        )

    async def _stored(self, path: Path) -> str:
        """Put a file into the store; gives its address there. Raises StoreError if that is the trouble."""
        try:
            sha256 = await asyncio.to_thread(_sha256, path)
        except OSError as error:
            return await self._unreadable(path, error)
        try:
            return await self._store.put_file(f"originals/{sha256}", path)
        except (blob_errors.BaseError, OSError) as error:
            try:
                await asyncio.to_thread(_sha256, path)
            except OSError as gone:
                return await self._unreadable(path, gone)
            raise StoreError(str(error)) from error

    async def _unreadable(self, path: Path, error: OSError) -> str:
        """The session counts on this photo: the dead letter of its address says what became of it."""
        self.failed.append((str(path), error.strerror or str(error)))
        return await asyncio.to_thread(lambda: path.resolve().as_uri())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def tracing(settings: Settings) -> Iterator[Tracer | None]:
    """A tracer for a publish, if somebody listens: else each photo's trace begins at the first agent."""
    endpoint = urlsplit(settings.otlp_endpoint)
    if not settings.enable_tracing or not _listens(endpoint.hostname or "localhost", endpoint.port or 4317):
        yield None
        return
    from shared.telemetry.manager import TelemetryManager
    from shared.telemetry.tracing import SCOPE

    telemetry = TelemetryManager(settings, consumer="erni-publish")
    telemetry.start()
    try:
        yield trace.get_tracer(SCOPE) if telemetry.tracing else None
    finally:
        telemetry.shutdown()


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def _command_span(tracer: Tracer | None, session_id: str, photos: int) -> Iterator[SpanContext | None]:
    """The command's own span: each photo's trace links to it."""
    if tracer is None:
        yield None
        return
    with tracer.start_as_current_span(
        "erni publish", attributes={"session.id": session_id, "messaging.batch.message_count": photos}
    ) as span:
        yield span.get_span_context()


def _traceparent(span: SpanContext) -> str:
    """A span's context as W3C Trace Context writes it: a session's report belongs to the command's trace."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


@contextmanager
def _photo_span(tracer: Tracer | None, around: SpanContext | None, session_id: str) -> Iterator[None]:
    """Where a photo's trace begins: a root span of its own, linked to the command's."""
    if tracer is None or around is None:
        yield
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind

    with tracer.start_as_current_span(
        "publish photo.submitted",
        context=Context(),
        kind=SpanKind.PRODUCER,
        links=[Link(around)],
        attributes={
            "session.id": session_id,
            "messaging.system": "redis",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": "photo.submitted",
        },
    ):
        yield
