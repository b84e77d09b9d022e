"""Publishes photo events, once per source and id, and refuses them when there is no room.

An upstream system needs no other module.
"""

from __future__ import annotations

import secrets
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import attributes, codec, identities, intake, keys, scripts, submission, topology
from .connection import NoScriptError, RedisError, Trouble, call, call_and_wait, trouble_of
from .identities import EntryId, EventId, PhotoId, SessionId
from .limits import MAX_EVENT_ID
from .publish_errors import (
    EventReusedError,
    EventsReusedError,
    EventTooLargeError,
    InvalidEventError,
    PublishRefusedError,
    PublishUnknownError,
)
from .types import MAX_EXPECTED, Hints, PhotoSubmitted, Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

WINDOW_SECONDS: Final = intake.WINDOW_SECONDS
"""How long an event is remembered: within this time the same source and id are the same event."""
DEFAULT_MAX_EVENT_BYTES: Final = 262_144
DEFAULT_MAX_BACKLOG: Final = 100_000
SESSION_TTL: Final = 3600
SESSION_TTL_IN_FLIGHT: Final = 7 * 24 * 3600
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

__all__ = [
    "EventReusedError",
    "EventTooLargeError",
    "EventsReusedError",
    "InvalidEventError",
    "Prepared",
    "PublishRefusedError",
    "PublishUnknownError",
    "Published",
    "Publisher",
    "parse_submission",
]

_OPEN_SESSION = scripts.load(scripts.HERE, "open_session", "session")
_PROPAGATOR = TraceContextTextMapPropagator()


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a publish. `fresh` is False for a repetition: the first answer comes again."""

    event_id: EventId
    photo_id: PhotoId
    session_id: SessionId | None
    entry_id: EntryId
    fresh: bool


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an event that was checked, as `Publisher.send` and `send_all` of the same publisher take it."""

    event_id: EventId
    photo_id: PhotoId
    session_id: SessionId | None
    lane: int | None
    once: str
    """The fingerprint of its content."""
    traceparent: str
    """Of the photo's trace."""
    bulk: bool = False
    """It waits while there is other work."""
    fields: list[str | bytes]
    """The entry: `ernionce` first, `data` last."""


class Publisher:
    """Publishes photo events. Many tasks may share one; after any error the caller may try again.

    Try again with the same `event_id`: within 24 hours the same source and id are one event, published once.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        source: str = "erni",
        lanes: int = 1,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        max_backlog: int = DEFAULT_MAX_BACKLOG,
        session_ttl: int = SESSION_TTL,
        wait_replicas: int = 0,
    ) -> None:
        """`redis` is a client of `events.connection.connect`; `source` is the CloudEvents source, a URI.

        `wait_replicas`: replicas that must have an event before `publish` returns.

        Raises InvalidEventError for a source that is no URI reference.
        """
        try:
            self._source = attributes.source(source)
        except ValueError as error:
            raise InvalidEventError(str(error)) from None
        self._redis = redis
        self._lanes = lanes
        self._max_event_bytes = max_event_bytes
        self._max_backlog = max_backlog
        self._session_ttl = session_ttl
        self._wait_replicas = wait_replicas

    async def publish(
        self, event: PhotoSubmitted, *, event_id: str | None = None, bulk: bool = False
    ) -> Published:
        """Publish one photo, with the context of the active span; without a span a trace begins here.

        `bulk`: it may wait while there is other work, as photos of past years may. What a session has beyond
        its first 50 photos is bulk work in any case.
        Raises InvalidEventError (EventReusedError if the id belongs to other content), PublishRefusedError,
        PublishUnknownError if too few replicas have it, or what redis-py raises when Redis is away.
        """
        return await self.send(self.prepare(event, event_id=event_id, bulk=bulk))

    def check(self, event: PhotoSubmitted, *, event_id: str | None = None) -> None:
        """Raise InvalidEventError where `publish` would; nothing is sent."""
        self.prepare(event, event_id=event_id)

    def prepare(
        self,
        event: PhotoSubmitted,
        *,
        event_id: str | None = None,
        made_at: str = "",
        extras: Mapping[str, str] = _NOTHING,
        bulk: bool = False,
    ) -> Prepared:
        """Check an event and make its entry, with the context of the active span; nothing is sent.

        `made_at`: the CloudEvents attribute `time`; `extras`: extension attributes, which travel along.
        Raises InvalidEventError; EventTooLargeError if its entry would be too big.
        """
        chosen = _event_id(event_id) if event_id is not None else identities.new_event_id()
        try:
            attributes.refuse_extras(extras, known=codec.ATTRIBUTES)
        except ValueError as error:
            raise InvalidEventError(str(error)) from None
        event, photo, session = _identified(event)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        traceparent = carrier.get("traceparent") or _new_trace()
        fields = codec.encode(
            event,
            event_id=chosen,
            source=self._source,
            photo_id=photo,
            session_id=session,
            traceparent=traceparent,
            tracestate=carrier.get("tracestate", ""),
            extras=[word for pair in extras.items() for word in pair],
            made_at=made_at,
        )
        data = fields[-1]
        once = intake.fingerprint(data if isinstance(data, bytes) else data.encode())
        fields[:0] = (intake.ONCE, once)
        self._refuse_too_large(fields)
        return Prepared(
            event_id=chosen,
            photo_id=photo,
            session_id=session,
            lane=keys.lane_of(session or photo, self._lanes).lane,
            once=once,
            traceparent=traceparent,
            bulk=bulk,
            fields=fields,
        )

    def _refuse_too_large(self, fields: Sequence[str | bytes]) -> None:
        """Raise EventTooLargeError for an entry with more bytes than are allowed."""
        # a character has at most four bytes, so that a usual event need not be encoded to be measured
        if 4 * sum(map(len, fields)) <= self._max_event_bytes:
            return
        size = sum(len(word) if isinstance(word, bytes) else len(word.encode()) for word in fields)
        if size > self._max_event_bytes:
            raise EventTooLargeError(
                f"the event has {size} bytes; {self._max_event_bytes} are allowed (bytes of the photo go into"
                " the store, the event carries a reference)"
            )

    async def send(self, event: Prepared) -> Published:
        """Publish an event that was prepared. Raises as `publish` does."""
        lane = keys.Keys(event.lane)
        marker = intake.marker(lane, self._source, event.event_id)
        (outcome, value, fresh), have = await self._run(
            intake.PUBLISH,
            [
                lane.stream(topology.INTAKE),
                marker,
                lane.refused,
                *self._session_keys(lane, event),
            ],
            [WINDOW_SECONDS * 1000, self._max_backlog, *event.fields],
        )
        if outcome == b"FULL":
            raise self._full(value, "nothing was published")
        entry_id = EntryId(value.decode())
        if outcome == b"REUSED":
            raise EventReusedError(self._source, event.event_id, entry_id)
        if not fresh:
            have = await self._wait_again(marker)
        self._require(have, f"the event {event.event_id}")
        return _published(event, entry_id, fresh=bool(fresh))

    async def send_all(self, events: Sequence[Prepared]) -> list[Published]:
        """Publish events together, each lane's all or none, and return their results in the same order.

        Nothing is published if one of them cannot be. Only trouble that begins between two lanes leaves a
        part; the same list again then publishes the rest. Raises EventsReusedError for events whose ids
        belong to other content, else as `publish` does.
        """
        by_lane: dict[int | None, list[int]] = {}
        for number, event in enumerate(events):
            by_lane.setdefault(event.lane, []).append(number)
        self._refuse_contradictions(events)
        if len(by_lane) > 1:
            for numbers in by_lane.values():
                await self._send_lane(events, numbers, look_only=True)
        found: dict[int, Published] = {}
        for numbers in by_lane.values():
            try:
                found |= await self._send_lane(events, numbers, look_only=False)
            except PublishRefusedError as refusal:
                if not found:
                    raise
                raise PublishRefusedError(
                    f"{len(found)} of {len(events)} events are published, the others are not ({refusal}):"
                    " send the same events again, and none is published twice",
                    retry_after=refusal.retry_after,
                ) from refusal
        return [found[number] for number in range(len(events))]

    def _refuse_contradictions(self, events: Sequence[Prepared]) -> None:
        """Raise EventsReusedError if two of the events have one id and different contents."""
        first: dict[str, Prepared] = {}
        wrong = [
            number
            for number, event in enumerate(events)
            if first.setdefault(event.event_id, event).once != event.once
        ]
        if wrong:
            raise EventsReusedError(self._source, {number: events[number].event_id for number in wrong})

    async def _send_lane(
        self, events: Sequence[Prepared], numbers: Sequence[int], *, look_only: bool
    ) -> dict[int, Published]:
        """Publish the events with these numbers, which belong to one lane; results by number."""
        lane = keys.Keys(events[numbers[0]].lane)
        words: list[str | bytes | int | float] = [
            WINDOW_SECONDS * 1000,
            self._max_backlog,
            int(look_only),
            len(numbers),
            self._source,
        ]
        markers = [intake.marker(lane, self._source, events[number].event_id) for number in numbers]
        names = [
            lane.stream(topology.INTAKE),
            lane.refused,
            lane.stream(topology.bulk_of(topology.INTAKE)),
            *markers,
        ]
        places: dict[str, int] = {}

        def place_of(key: str) -> int:
            return places.setdefault(key, len(names) + len(places) + 1)

        for number in numbers:
            event = events[number]
            what: str | int = "bulk" if event.bulk else 0
            if event.session_id and not event.bulk:
                what = place_of(intake.counter(lane, self._source, event.session_id))
            first = place_of(lane.session_first(event.session_id)) if event.session_id else 0
            words += (what, first, len(event.fields), *event.fields)
        names += places
        (outcome, *values), have = await self._run(intake.PUBLISH_ALL, names, words)
        if outcome == b"FULL":
            raise self._full(values[0], "nothing was published")
        if outcome == b"REUSED":
            wrong = [numbers[int(place) - 1] for place in values[::2]]
            raise EventsReusedError(self._source, {number: events[number].event_id for number in wrong})
        if look_only:
            return {}
        if not all(values[1::2]):
            # a replica that has this new write has every earlier one too, those of the first publish included
            have = await self._wait_again(markers[0])
        self._require(have, f"{len(numbers)} events: each of them")
        return {
            number: _published(events[number], EntryId(entry.decode()), fresh=bool(fresh))
            for number, entry, fresh in zip(numbers, values[::2], values[1::2], strict=True)
        }

    def _session_keys(self, lane: keys.Keys, event: Prepared) -> list[str]:
        """Return the keys by which publish.lua knows bulk work, and notes the first event of a session."""
        stream = lane.stream(topology.bulk_of(topology.INTAKE))
        if not event.session_id:
            return [stream] if event.bulk else []
        counter = stream if event.bulk else intake.counter(lane, self._source, event.session_id)
        return [stream, counter, lane.session_first(event.session_id)]

    def _full(self, entries: bytes, so_far: str) -> PublishRefusedError:
        return PublishRefusedError(
            f"{topology.INTAKE} holds {int(entries)} entries, at most {self._max_backlog} are allowed"
            f" (MAX_BACKLOG): {so_far}; try again later, or start more agents",
            retry_after=5.0,
        )

    async def _run(
        self, script: scripts.Script, keys: list[str], args: list[str | bytes | int | float]
    ) -> tuple[Any, int]:
        """Run a script that writes; return its reply, and how many replicas have what it wrote.

        A full server raises PublishRefusedError; other errors are redis-py's.
        """
        try:
            return await script.and_wait(self._redis, keys, args, replicas=self._wait_replicas)
        except NoScriptError as error:
            raise PublishRefusedError(
                f"Redis does not know the script {script.name} yet, and this user may not load it: agents do,"
                " when they start and after Redis restarted; nothing was published",
                retry_after=1.0,
            ) from error
        except RedisError as error:
            if trouble_of(error) is Trouble.OUT_OF_MEMORY:
                raise PublishRefusedError(
                    "Redis is at its memory limit and takes no new photos until there is room: agents drain"
                    " it, but dead letters stay (`erni doctor` says what fills it); nothing was published",
                    retry_after=15.0,
                ) from error
            raise

    async def _wait_again(self, marker: str) -> int:
        """Wait for the replicas of an event that was published before; return how many have it.

        The first publish may not have waited to its end. WAIT counts the writes of its own connection, so the
        marker is written once more, as it is.
        """
        if not self._wait_replicas:
            return 0
        value = await call(self._redis, "GET", marker)
        if value is None:
            # a fail-over came in between: this server has not got the event
            return 0
        words = ("SET", marker, value, "XX", "KEEPTTL")
        written, have = await call_and_wait(self._redis, self._wait_replicas, *words)
        return have if written else 0

    def _require(self, have: int, what: str) -> None:
        if have < self._wait_replicas:
            raise PublishUnknownError(
                f"{what} is written, but {have} of {self._wait_replicas} replicas (WAIT_REPLICAS) have it so"
                " far, and a fail-over now would lose it: publish it again with the same event id"
            )

    async def open_session(
        self, session_id: str, *, expected: int = 0, target: Target | None = None, traceparent: str = ""
    ) -> int:
        """Announce a session, before its first photo or later; return the `expected` that counts.

        `expected` is the number of photos in it, 0 if it is not known yet; the first number counts.
        Raises InvalidIdError, InvalidEventError, PublishRefusedError.
        """
        return await self._open(session_id, expected, target, traceparent, close=False)

    async def _open(
        self, session_id: str, expected: int, target: Target | None, traceparent: str, *, close: bool
    ) -> int:
        if not 0 <= expected <= MAX_EXPECTED:
            raise InvalidEventError(
                f"expected={expected}: give the number of photos in the session, at most {MAX_EXPECTED}, or 0"
            )
        session = identities.session_id(session_id)
        lane = keys.lane_of(session, self._lanes)
        reply, have = await self._run(
            _OPEN_SESSION,
            [
                lane.session(session),
                lane.session_open,
                lane.session_lru,
                lane.stream(topology.COMPLETED),
                lane.session_stats,
            ],
            [
                session,
                expected,
                (target.site if target else None) or "",
                (target.library if target else None) or "",
                self._session_ttl * 1000,
                SESSION_TTL_IN_FLIGHT * 1000,
                traceparent,
                int(close),
            ],
        )
        self._require(have, f"the session {session}")
        return int(reply)

    async def close_session(self, session_id: str, *, expected: int) -> int:
        """Set how many photos were published into a session, whatever was announced before.

        If all of them have ended, the session completes at once. Returns the `expected` that counts: 0 if
        its key holds something that is no session.
        """
        if expected < 1:
            raise InvalidEventError(f"expected={expected}: give the number of photos that were published")
        return await self._open(session_id, expected, None, "", close=True)


def _published(event: Prepared, entry_id: EntryId, *, fresh: bool) -> Published:
    return Published(
        event_id=event.event_id,
        photo_id=event.photo_id,
        session_id=event.session_id,
        entry_id=entry_id,
        fresh=fresh,
    )


def _event_id(text: str) -> EventId:
    """Check an upstream's event id and return it. Raises InvalidEventError."""
    if not text.strip() or len(text) > MAX_EVENT_ID or not text.isprintable():
        raise InvalidEventError(
            f"event id {text[:40]!r} cannot be used: give 1 to {MAX_EVENT_ID} printable characters, not only"
            " spaces"
        )
    return EventId(text)


def _identified(event: PhotoSubmitted) -> tuple[PhotoSubmitted, PhotoId, SessionId | None]:
    """Check an event's types and ids and set its photo id. Raises InvalidEventError.

    An event that no agent can decode must not reach the stream: its author would not see the error there.
    """
    try:
        event = msgspec.json.decode(msgspec.json.encode(event), type=PhotoSubmitted)
        session = identities.session_id(event.session_id) if event.session_id else None
        photo = (
            identities.photo_id(event.photo_id)
            if event.photo_id
            else identities.derived_photo_id(session, event.source_url)
        )
        submission.refuse(event)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidEventError(f"this is no photo.submitted event: {codec.reason(error)}") from error
    except ValueError as error:
        raise InvalidEventError(str(error)) from error
    return msgspec.structs.replace(event, photo_id=photo, session_id=session), photo, session


class _StrictTarget(Target, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _StrictHints(Hints, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Strict(PhotoSubmitted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    target: _StrictTarget | None = None
    hints: _StrictHints | None = None


def parse_submission(data: bytes | str) -> PhotoSubmitted:
    """Read a photo.submitted event from JSON. Refuses unknown fields: a typo would lose a hint silently.

    Raises InvalidEventError.
    """
    try:
        strict = msgspec.json.decode(data, type=_Strict)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidEventError(f"this is no photo.submitted event: {codec.reason(error)}") from error
    return msgspec.json.decode(msgspec.json.encode(strict), type=PhotoSubmitted)


def _new_trace() -> str:
    """Make a traceparent for a photo that has none: random ids, sampled (W3C Trace Context)."""
    noise = secrets.token_hex(24)
    return f"00-{noise[:32]}-{noise[32:]}-01"
