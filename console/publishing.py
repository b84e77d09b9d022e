"""Publishes many photos: bytes into the store, then the event. A repeated run continues where it stopped."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from obstore import exceptions as blob_errors
from opentelemetry import trace

from console.publish_traces import command_span, photo_span, traceparent
from events import identities, keys, topology
from events.identities import SessionId
from events.publisher import EventReusedError, Publisher, PublishRefusedError
from events.types import Hints, PhotoSubmitted, Target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from opentelemetry.trace import SpanContext, Tracer
    from redis.asyncio import Redis

    from console.photo_files import PhotoFile
    from events.publisher import Published
    from shared.photo_store import BlobStore
    from shared.settings import Settings

T = TypeVar("T")
_SOMEWHERE: Final = f"store:originals/{'0' * 64}"
"""An address as long as the one that a file gets in the store."""
_AT_ONCE: Final = 8
"""Photos that are stored at the same time."""


class StoreError(RuntimeError):
    """Raised when the photo store does not take a photo that can be read."""


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """Records one photo that was published, now or before."""

    file: str
    photo_id: str
    event_id: str
    entry_id: str
    fresh: bool
    """False: it had been published before, and nothing was done."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what all photos of one publish have in common."""

    session_id: SessionId
    hints: Hints | None = None
    target: Target | None = None
    event_id: str | None = None
    """Only for a single photo."""
    bulk: bool = False
    """They wait while there are other photos."""


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
            wait_replicas=settings.wait_replicas,
        )
        self._lanes = settings.lanes
        self._redis_url = settings.redis_url
        self.submitted: list[Submission] = []
        self.failed: list[tuple[str, str]] = []
        """Files that could not be read any more: not published, and not counted."""
        self.reused: list[tuple[str, str]] = []
        """Photos whose event id had been published with other content, and what to do: nothing was done."""
        self.unanswered = 0
        """Events that were sent without an answer of Redis: they may be published or not."""
        self.expected = 0
        """Photos of the session as it knows them; the first number counts. 0: unknown."""

    async def publish(
        self,
        photos: Sequence[PhotoFile],
        batch: Batch,
        *,
        tracer: Tracer | None = None,
        on_photo: Callable[[], None] = lambda: None,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Publish all, then set the session's number of photos; `submitted` and `failed` grow meanwhile.

        All events are checked before anything is stored or sent. The number comes last, so that an
        interrupted publish leaves no session that waits for photos which never come.
        `on_wait` receives a sentence when there is no room and the agents must make some.
        Raises InvalidEventError, InvalidIdError, StoreError, or what redis-py raises when Redis is away.
        """
        for photo in photos:
            event, event_id = _event(photo, photo.url or _SOMEWHERE, batch)
            self._publisher.check(event, event_id=event_id)
        rest = iter(photos)
        stream = keys.lane_of(batch.session_id, self._lanes).stream(topology.INTAKE)

        async def work(around: SpanContext | None) -> None:
            for photo in rest:
                with photo_span(
                    tracer,
                    around,
                    batch.session_id,
                    stream=stream,
                    redis_url=self._redis_url,
                    file_name=photo.file_name,
                ):
                    await self._publish_one(photo, batch, on_wait)
                on_photo()

        with command_span(tracer, batch.session_id, len(photos)) as around:
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(_AT_ONCE, len(photos))):
                        workers.create_task(work(around))
            except ExceptionGroup as errors:
                # The others were cancelled because of it, or failed alike.
                raise errors.exceptions[0] from None
            await self._announce(batch, around, on_wait)

    async def _announce(
        self, batch: Batch, around: SpanContext | None, on_wait: Callable[[str], None]
    ) -> None:
        """Set the session's number of photos, target and trace; it completes when they have ended."""
        # An id of the caller's own that was known before may be another photo's, of another session.
        mine = [one for one in self.submitted if one.fresh or batch.event_id is None]
        if self._sessions and mine:
            self.expected = await _with_room(
                lambda: self._publisher.open_session(
                    batch.session_id,
                    expected=len(mine),
                    target=batch.target,
                    traceparent=traceparent(around) if around else "",
                ),
                on_wait,
            )

    async def _publish_one(self, photo: PhotoFile, batch: Batch, on_wait: Callable[[str], None]) -> None:
        source_url = photo.url
        if photo.path is not None:
            stored = await self._stored(photo.path)
            if stored is None:
                return
            source_url = stored
        event, event_id = _event(photo, source_url, batch)
        try:
            published = await _with_room(lambda: self._send(event, event_id, bulk=batch.bulk), on_wait)
        except EventReusedError as error:
            self.reused.append((photo.name or photo.url, _other_content(error, batch)))
            return
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

    async def _send(self, event: PhotoSubmitted, event_id: str, *, bulk: bool) -> Published:
        self.unanswered += 1
        try:
            published = await self._publisher.publish(event, event_id=event_id, bulk=bulk)
        except (PublishRefusedError, EventReusedError):
            self.unanswered -= 1
            raise
        self.unanswered -= 1
        return published

    async def _stored(self, path: Path) -> str | None:
        """Put a file into the store and return its address, or None if the file cannot be read any more.

        Raises StoreError if the store fails.
        """
        try:
            sha256 = await asyncio.to_thread(_sha256, path)
        except OSError as error:
            self._unreadable(path, error)
            return None
        try:
            return await self._store.put_file(f"originals/{sha256}", path)
        except (blob_errors.BaseError, OSError) as error:
            try:
                await asyncio.to_thread(_sha256, path)
            except OSError as gone:
                self._unreadable(path, gone)
                return None
            raise StoreError(str(error)) from error

    def _unreadable(self, path: Path, error: OSError) -> None:
        self.failed.append((str(path), error.strerror or str(error)))


def _event(photo: PhotoFile, source_url: str, batch: Batch) -> tuple[PhotoSubmitted, str]:
    """Return a photo's event and the event's id."""
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
    return event, f"{batch.session_id}/{photo_id}" if batch.event_id is None else batch.event_id


def _other_content(error: EventReusedError, batch: Batch) -> str:
    """Return a sentence for a photo that cannot be published because its event id has other content."""
    if batch.event_id is not None:
        return f"{error}. Nothing was done now"
    return (
        f"was published into {batch.session_id} before with other hints, another target or another address;"
        " nothing was done now. Publish it unchanged, or into another session"
    )


async def _with_room(call: Callable[[], Awaitable[T]], on_wait: Callable[[str], None]) -> T:
    """Repeat a call until there is room for it; return its result."""
    while True:
        try:
            return await call()
        except PublishRefusedError as refusal:
            on_wait(str(refusal))
            await asyncio.sleep(refusal.retry_after)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
