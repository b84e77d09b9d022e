"""Publishes what a request brought, through the same Publisher as every other way in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import msgspec
from opentelemetry import trace

from console.gateway import problems
from console.gateway.answers import Accepted
from console.gateway.merging import MergedPublishes, ReusedError
from console.gateway.observing import PUBLISHED, REPLAYED
from console.gateway.problems import Problem, ProblemError
from events.publisher import (
    EventsReusedError,
    EventTooLargeError,
    InvalidEventError,
    Publisher,
    PublishRefusedError,
    parse_submission,
)
from shared.operations import submissions
from shared.telemetry import trace_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from redis.asyncio import Redis

    from console.gateway.access import Caller
    from console.gateway.cloud_events import CloudEvent
    from events.publisher import Prepared, Published
    from events.types import PhotoSubmitted
    from shared.delivery.photo_record import Submitted
    from shared.settings import Settings

_TRACE: Final = ("traceparent", "tracestate")
_TYPE: Final = "photo.submitted"
_OWN: Final = frozenset(
    {
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "sessionid"),
        *_TRACE,
    }
)
"""Attributes that the entry has of its own; all others travel along."""


_MAX_PUBLISHERS: Final = 256
"""Publishers that are kept, one a source: a key without a source may name as many as it likes."""


class Refused(Exception):  # noqa: N818 - the event is, nothing failed
    """Raised for one event that cannot be published."""

    def __init__(self, kind: problems.Kind, error: ProblemError) -> None:
        super().__init__(error.detail)
        self.kind = kind
        self.error = error


class Intake:
    """Publishes events for callers, and notes who published what."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._publishers: dict[str, Publisher] = {}
        self._singles = MergedPublishes(self._sent)

    async def close(self) -> None:
        """End what is under way."""
        await self._singles.close()

    def publisher(self, source: str) -> Publisher:
        """Return the publisher of a source. Raises InvalidEventError for what is no source."""
        known = self._publishers.get(source)
        if known is None:
            if len(self._publishers) >= _MAX_PUBLISHERS:
                self._publishers.clear()
            known = self._publishers[source] = self._new_publisher(source)
        return known

    def _new_publisher(self, source: str) -> Publisher:
        settings = self._settings
        return Publisher(
            self._redis,
            source=source,
            lanes=settings.lanes,
            max_event_bytes=settings.max_event_bytes,
            max_backlog=settings.max_backlog,
            session_ttl=settings.session_ttl,
            wait_replicas=settings.wait_replicas,
        )

    def prepare(
        self, caller: Caller, received: CloudEvent, trace_fields: Mapping[str, str]
    ) -> tuple[Prepared, str]:
        """Check an event and return its entry and the photo's file name or ''. Raises Refused.

        `trace_fields`: traceparent and tracestate around the request; the event's own attributes go before
        them.
        """
        found = received.attributes
        refuse_source(caller, found["source"])
        if found["type"] != _TYPE:
            raise refused(f"type {found['type'][:80]!r} cannot be published: send {_TYPE}", "/type")
        event = _submission(received)
        context = found if "traceparent" in found else trace_fields
        extras = {name: value for name, value in found.items() if name not in _OWN}
        return self.prepared(
            found["source"], event, found["id"], context, made_at=found.get("time", ""), extras=extras
        )

    def prepared(
        self,
        source: str,
        event: PhotoSubmitted,
        event_id: str,
        context: Mapping[str, str],
        *,
        made_at: str = "",
        extras: Mapping[str, str] | None = None,
    ) -> tuple[Prepared, str]:
        """Make the entry of an event inside its trace. Raises Refused."""
        found = trace_context.read({name: context[name] for name in _TRACE if name in context})
        around: AbstractContextManager[object] = nullcontext()
        if found.traceparent:
            parent = trace_context.span_context_of(found.traceparent, found.tracestate)
            around = trace.use_span(trace.NonRecordingSpan(parent))
        try:
            with around:
                prepared = self.publisher(source).prepare(
                    event, event_id=event_id, made_at=made_at, extras=extras or {}
                )
        except EventTooLargeError as error:
            raise Refused(problems.TOO_LARGE, ProblemError(detail=str(error))) from None
        except InvalidEventError as error:
            raise refused(str(error)) from None
        return prepared, event.file_name or ""

    async def publish(self, source: str, event: Prepared, file_name: str) -> Accepted:
        """Publish one event. Raises Problem, and what redis-py raises."""
        try:
            return await self._singles.publish(source, event, file_name)
        except ReusedError as error:
            raise Problem(problems.IDEMPOTENCY_KEY_REUSED, str(error)) from None
        except PublishRefusedError as refusal:
            raise no_room(refusal) from None

    async def publish_all(self, source: str, events: Sequence[tuple[Prepared, str]]) -> list[Accepted]:
        """Publish events of one source, all or none. Raises Problem, and what redis-py raises."""
        try:
            return await self._sent(source, events)
        except EventsReusedError as error:
            raise Problem(
                problems.IDEMPOTENCY_KEY_REUSED,
                f"{len(error.sentences)} of {len(events)} events have ids of other content: none was sent",
                errors=[
                    ProblemError(detail=sentence, pointer=f"/{number}/id")
                    for number, sentence in sorted(error.sentences.items())
                ],
            ) from None
        except PublishRefusedError as refusal:
            raise no_room(refusal) from None

    async def _sent(self, source: str, events: Sequence[tuple[Prepared, str]]) -> list[Accepted]:
        """Publish events of one source, and note who published them."""
        published = await self.publisher(source).send_all([event for event, _ in events])
        fresh = sum(one.fresh for one in published)
        PUBLISHED.inc(fresh)
        REPLAYED.inc(len(published) - fresh)
        notes = await submissions.note(
            self._redis,
            source,
            [(event, file_name, one) for (event, file_name), one in zip(events, published, strict=True)],
            record_hours=self._settings.photo_record_hours,
        )
        return [
            Accepted(
                event_id=one.event_id,
                photo_id=one.photo_id,
                session_id=one.session_id,
                entry_id=one.entry_id,
                trace_id=_trace_id(event, one, note),
                replayed=not one.fresh,
                photo=f"/v1/photos/{one.photo_id}",
            )
            for (event, _), one, note in zip(events, published, notes, strict=True)
        ]


def refuse_source(caller: Caller, source: str) -> None:
    """Raise Refused if a key is bound to another source than the event's."""
    if caller.key.source and source != caller.key.source:
        raise Refused(
            problems.SOURCE_NOT_ALLOWED,
            ProblemError(
                detail=f"the key {caller.key.name} publishes for the source {caller.key.source}, and the"
                f" event names {source[:80]!r}",
                pointer="/source",
            ),
        )


def refused(detail: str, pointer: str = "") -> Refused:
    """Return the refusal of an event that no agent could process."""
    return Refused(problems.EVENT_REFUSED, ProblemError(detail=detail, pointer=pointer))


def no_room(refusal: PublishRefusedError) -> Problem:
    """Return the problem of a publish that Redis has no room for."""
    return Problem(
        problems.NO_ROOM, str(refusal), headers={"Retry-After": str(max(1, round(refusal.retry_after)))}
    )


def _submission(received: CloudEvent) -> PhotoSubmitted:
    """Return the photo of an event; its attributes name what its data does not. Raises Refused."""
    found = received.attributes
    if received.data is None:
        raise refused(
            "the event has no data, which names the photo: send a JSON object with source_url", "/data"
        )
    if not received.has_json:
        kind = found.get("datacontenttype", "")
        raise Refused(
            problems.MEDIA_TYPE_UNKNOWN,
            ProblemError(
                detail=f"the data is {kind[:80]!r}, and only JSON in UTF-8 is taken: send application/json"
                if kind
                else "nothing says what the data is: send it as application/json",
                pointer="/datacontenttype",
            ),
        )
    try:
        event = parse_submission(received.data)
    except InvalidEventError as error:
        raise refused(str(error), "/data") from None
    named = {"photo_id": found.get("subject"), "session_id": found.get("sessionid")}
    more = {name: value for name, value in named.items() if value and not getattr(event, name)}
    return msgspec.structs.replace(event, **more) if more else event


def _trace_id(event: Prepared, published: Published, note: Submitted) -> str | None:
    if published.fresh:
        return event.traceparent[3:35]
    return (note.traceparent[3:35] or None) if note.event_id == published.event_id else None
