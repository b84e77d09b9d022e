"""Turns what an agent returned, or its failure, into the outcome that settle.lua carries out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from events import codec, identities, topology
from events.types import Event, Step, WebhookQueued
from shared.delivery import packing
from shared.delivery.dead_letter import Reason, beginnings, failed_event, letter_fields
from shared.delivery.photo_record import record_fields
from shared.delivery.postponed import delays_of, overdue, scheduled
from shared.reports.german import FINAL
from shared.retry.classify import Kind, sentence_of
from shared.retry.errors import OF_A_TARGET, PermanentError, PostponeError, answer_of, cause_of, status_of
from shared.webhooks import notices

if TYPE_CHECKING:
    from events.codec import Envelope
    from events.keys import Keys
    from events.types import PhotoFailed
    from shared.delivery.delivery import Delivery
    from shared.delivery.runtime import Runtime
    from shared.retry.attempt import Attempt
    from shared.retry.policy import Failed, Succeeded

_NOT_THE_PHOTO: Final[Mapping[str, frozenset[int]]] = {
    "filing": OF_A_TARGET | {401},
    # 404: the photo itself is missing
    "readback": frozenset({401, 403}),
}
"""By the code of what failed: what SharePoint answers to every photo alike."""
_OUR_FIELDS: Final = 1024
"""Bytes, more than `ernidelayed`, `ernireplay` and their names take."""
MAX_OUTPUTS: Final = 16
"""Events one delivery may publish; a script call adds them all."""

What: TypeAlias = Literal["done", "dead", "postponed", "released"]
Fields: TypeAlias = Sequence[str | bytes]


class HandlerError(TypeError):
    """Report that an agent returned something the topology forbids: a bug, and a dead letter."""


class SessionMove(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold what a settlement changes in its session."""

    key: str
    session_id: str
    deltas: Mapping[str, int]
    create: bool = False
    expected: int = 0
    photos_key: str = ""
    """Where the photo is noted as one of the session's; '' where it was noted before."""
    photo_id: str = ""
    source: bytes = b""
    """The source of the photo; b'' where the session has one already."""
    first_key: str = ""
    """Where the first event of the session was noted, whose source counts more than this photo's."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold how one delivery ends: for settle.lua, and for metrics, span and log line."""

    what: What
    outputs: Sequence[tuple[str, Fields]] = ()
    """Key and fields: the output events; or the dead letter and, where it names a photo, `photo.failed`.

    After an end that web hooks want, the notices for them."""
    delayed_key: str = ""
    delay_ms: int = 0
    held: bool = False
    """It was postponed without being tried, which counts for no step of a stage's schedule."""
    photo: tuple[str, Fields] | None = None
    session: SessionMove | None = None
    raw: bytes | None = None
    """What a dead letter keeps of an entry that is too large, packed; None: the script keeps all of it."""
    reason: Reason | None = None
    """Why it is a dead letter."""
    error: BaseException | None = None
    message: str = ""
    attempts: int = 1
    unhealthy: str = ""
    """Not empty: it was this machine, in these words; reading stops."""

    @property
    def label(self) -> str:
        """Return the word of metrics and log lines, which keep older words than `what`."""
        return "interrupted" if self.what == "released" else self.what


MOVED: Final = Outcome(what="done", message="moved to its own lane")
REPEATED: Final = Outcome(what="done", message="the same event was published before")
"""Another entry carries the event: here it ends without output."""


class Outcomes:
    """Make the outcomes of one agent in one lane."""

    def __init__(self, runtime: Runtime, keys: Keys) -> None:
        self._runtime = runtime
        self._stage = runtime.stage
        self._keys = keys
        self._writes = frozenset(runtime.stage.writes)
        about_photos = runtime.stage.about_photos
        self._records = about_photos and runtime.ttls.photo > 0
        self._counts = about_photos and runtime.settings.session_backend == "redis"
        self._subscriptions = runtime.subscriptions
        self._first = topology.INTAKE in runtime.stage.reads
        self._source = f"erni:{runtime.stage.agent}"

    def done(self, delivery: Delivery, envelope: Envelope, result: Succeeded[Any]) -> Outcome:
        """Make the outcome of a delivery whose agent returned its event or events."""
        attempts = len(result.failures) + 1
        value = result.value
        events: Sequence[Event] = value if isinstance(value, (list, tuple)) else (value,)
        if value is None and not self._writes:
            events = ()
        names = [topology.NAMES.get(type(event)) for event in events]
        if not self._writes.issuperset(names) or len(names) > MAX_OUTPUTS:
            wrong = self._wrong(events)
            return self.dead(delivery, "permanent", wrong, str(wrong))
        step = self._step(delivery, attempts)
        steps = codec.with_step(envelope.steps, step)
        span, keys = delivery.span, self._keys
        bulk = delivery.stream >= len(self._stage.reads)
        outputs: list[tuple[str, Fields]] = []
        for event, name in zip(events, names, strict=True):
            event_id = identities.new_event_id()
            fields = codec.encode(
                event,
                event_id=event_id,
                source=self._source,
                photo_id=getattr(event, "photo_id", None) or envelope.photo_id,
                session_id=envelope.session_id,
                traceparent=span.traceparent,
                tracestate=span.tracestate,
                steps=steps,
                origin=envelope.origin,
                extras=envelope.extras,
            )
            stream = str(name)
            if bulk and stream in topology.BULK:
                stream = topology.bulk_of(stream)
            outputs.append((keys.prefix + stream, fields))
            if self._subscriptions.exist:
                outputs += self._notices(event, event_id, delivery, envelope)
        return Outcome(
            what="done",
            outputs=outputs,
            photo=self._photo(delivery, step, "done") if self._records else None,
            session=self._counted(envelope, events) if envelope.session_id else None,
            attempts=attempts,
        )

    def failed(self, delivery: Delivery, envelope: Envelope, result: Failed) -> Outcome:
        """Make the outcome of a delivery whose agent failed, for whatever reason."""
        message = sentence_of(result.error)
        delays, schedule = delays_of(envelope.delayed), self._stage.schedule
        if schedule is not None:
            result = scheduled(result, schedule, delays)
        if result.kind is Kind.UNHEALTHY:
            stopping = self._runtime.stopping.is_set()
            return Outcome(
                what="released",
                error=result.error,
                message="shutting down" if stopping else message,
                attempts=len(result.failures),
                unhealthy="" if stopping else message,
            )
        if result.kind is Kind.POSTPONE and not overdue(delays, schedule):
            return self._postponed(delivery, envelope, result, message)
        reason: Reason = "permanent" if result.kind is Kind.PERMANENT else "exhausted"
        return self.dead(delivery, reason, result.error, message, result.failures)

    def dead(
        self,
        delivery: Delivery,
        reason: Reason,
        error: BaseException | None,
        message: str,
        failures: Sequence[Attempt] = (),
    ) -> Outcome:
        """Make the outcome that sends the entry to the dead letters."""
        envelope, stream = delivery.envelope, self._stage.streams[delivery.stream]
        session_id = envelope.session_id if envelope else getattr(error, "session_id", None)
        replays = _replays(delivery)
        size = sum(map(len, delivery.fields))
        # what the engine appends to an entry that comes back does not make it too large
        cut = size if size > codec.MAX_ENTRY_BYTES + _OUR_FIELDS else 0
        attempts = max(1, len(failures))
        fields = letter_fields(
            agent=self._stage.agent,
            stream=stream,
            entry_id=delivery.entry_id,
            consumer=self._runtime.consumer,
            reason=reason,
            error_type=type(error).__name__ if error else reason,
            message=message,
            attempts=failures,
            deliveries=delivery.deliveries + (delays_of(envelope.delayed).deliveries if envelope else 0),
            photo_id=envelope.photo_id if envelope else None,
            # a notice that was not delivered is none of the session's dead photos
            session_id=session_id if self._stage.about_photos else None,
            file_name=_file_name(envelope),
            traceparent=delivery.traceparent,
            replays=replays,
            cut=cut,
            answer=answer_of(error) if error else "",
            cause=_cause(error) if error and reason == "permanent" else "",
        )
        outputs: list[tuple[str, Fields]] = [(self._keys.dead(self._stage.agent), fields)]
        # a report that could not be written is no photo
        if envelope and envelope.photo_id and stream != topology.COMPLETED:
            event, event_id = failed_event(fields), self._failed_id(delivery, stream)
            failed = self._failed(event, event_id, delivery, envelope)
            outputs.append((self._keys.stream(topology.FAILED), failed))
            if self._subscriptions.exist:
                outputs += self._notices(event, event_id, delivery, envelope)
        return Outcome(
            what="dead",
            outputs=outputs,
            raw=packing.pack(beginnings(delivery.fields)) if cut else None,
            photo=self._photo(delivery, self._step(delivery, attempts), "dead", message),
            # a report that could not be written is no photo
            session=self._counted_dead(envelope, session_id, replayed=replays > 0)
            if stream != topology.COMPLETED
            else None,
            reason=reason,
            error=error,
            message=message,
            attempts=attempts,
        )

    def _failed_id(self, delivery: Delivery, stream: str) -> str:
        """Return the id of a `photo.failed`: the same however often this is repeated.

        An entry id is unique in its stream only. So where the agent's entries are in several streams, the id
        names the stream.
        """
        key = self._keys.stream(stream)
        where = "" if key == f"erni:{self._stage.reads[0]}" else f"{key.removeprefix('erni:')}:"
        return f"dead:{self._stage.agent}:{where}{delivery.entry_id}:{delivery.deliveries}"

    def _failed(self, event: PhotoFailed, event_id: str, delivery: Delivery, envelope: Envelope) -> Fields:
        """Return the public event beside a dead letter."""
        span = delivery.span
        return codec.encode(
            event,
            event_id=event_id,
            source=self._source,
            photo_id=envelope.photo_id,
            session_id=envelope.session_id,
            traceparent=span.traceparent,
            tracestate=span.tracestate,
            steps=envelope.steps,
            origin=envelope.origin,
            extras=envelope.extras,
        )

    def _notices(
        self, event: Event, event_id: str, delivery: Delivery, envelope: Envelope
    ) -> list[tuple[str, Fields]]:
        """Return a notice of an event for each web hook that wants it, for the same script."""
        name = topology.NAMES[type(event)]
        wanting = self._subscriptions.of(envelope.origin, name)
        if not wanting:
            return []
        key, body, span = self._keys.stream(topology.QUEUED), notices.body(event, name), delivery.span
        return [
            (
                key,
                codec.encode(
                    WebhookQueued(endpoint=endpoint, body=body),
                    # the id of the end itself, which every attempt sends as webhook-id
                    event_id=event_id,
                    source=f"erni:webhook:{endpoint}",
                    photo_id=getattr(event, "photo_id", None),
                    session_id=envelope.session_id,
                    traceparent=span.traceparent,
                    tracestate=span.tracestate,
                ),
            )
            for endpoint in wanting
        ]

    def _postponed(self, delivery: Delivery, envelope: Envelope, result: Failed, message: str) -> Outcome:
        session = None
        if self._counts and envelope.session_id and envelope.photo_id:
            session = SessionMove(
                key=self._keys.session(envelope.session_id),
                session_id=envelope.session_id,
                deltas={"postponed": 1},
                create=self._first,
                expected=_expected(envelope),
                photos_key=self._keys.session_photos(envelope.session_id) if self._first else "",
                photo_id=envelope.photo_id if self._first else "",
                source=envelope.origin if self._first else b"",
                first_key=self._keys.session_first(envelope.session_id),
            )
        return Outcome(
            what="postponed",
            delayed_key=self._keys.delayed(self._stage.agent),
            delay_ms=max(1, int(result.seconds * 1000)),
            held=self._stage.schedule is not None and isinstance(result.error, PostponeError),
            photo=self._photo(
                delivery,
                self._step(delivery, max(1, len(result.failures))),
                "postponed",
                message,
                until=int((time.time() + result.seconds) * 1000) / 1000,
            ),
            session=session,
            error=result.error,
            message=f"{message} (again in {result.seconds:.0f} s)",
            attempts=len(result.failures),
        )

    def _wrong(self, events: Sequence[Event]) -> HandlerError:
        """Return what is wrong with what the agent returned."""
        for event in events:
            if topology.NAMES.get(type(event)) not in self._stage.writes:
                return HandlerError(
                    f"{self._stage.agent} returned {type(event).__name__}; the topology lets it write"
                    f" {', '.join(self._stage.writes)}"
                )
        return HandlerError(f"{self._stage.agent} returned {len(events)} events, {MAX_OUTPUTS} are allowed")

    def _step(self, delivery: Delivery, attempts: int) -> Step:
        return Step(
            agent=self._stage.agent,
            started=int(delivery.started * 1000) / 1000,
            seconds=int((time.time() - delivery.started) * 1000) / 1000,
            attempts=attempts,
            deliveries=delivery.deliveries,
        )

    def _counted(self, envelope: Envelope, events: Sequence[Event]) -> SessionMove | None:
        """Return what a hand-off counts: received (by the first agent), the agent's own count, validated."""
        session_id = envelope.session_id
        if not self._counts or session_id is None or envelope.photo_id is None:
            return None
        deltas = {self._stage.agent: 1}
        if any(topology.NAMES[type(event)] == topology.VALIDATED for event in events):
            deltas["validated"] = 1
        if not self._first:
            return SessionMove(key=self._keys.session(session_id), session_id=session_id, deltas=deltas)
        # a replayed entry was received when it died
        if not envelope.replay:
            deltas["received"] = 1
        return SessionMove(
            key=self._keys.session(session_id),
            session_id=session_id,
            deltas=deltas,
            create=True,
            expected=_expected(envelope),
            photos_key=self._keys.session_photos(session_id),
            photo_id=envelope.photo_id,
            source=envelope.origin,
            first_key=self._keys.session_first(session_id),
        )

    def _counted_dead(
        self, envelope: Envelope | None, session_id: str | None, *, replayed: bool
    ) -> SessionMove | None:
        if not self._counts or session_id is None or (envelope is not None and envelope.photo_id is None):
            return None
        deltas = {"dead": 1}
        if self._first and not replayed:
            deltas["received"] = 1
        photo = envelope.photo_id if envelope else None
        return SessionMove(
            key=self._keys.session(session_id),
            session_id=session_id,
            deltas=deltas,
            create=self._first,
            expected=_expected(envelope),
            photos_key=self._keys.session_photos(session_id) if photo else "",
            photo_id=photo or "",
            source=envelope.origin if envelope and self._first else b"",
            first_key=self._keys.session_first(session_id),
        )

    def _photo(
        self, delivery: Delivery, step: Step, outcome: str, message: str = "", until: float = 0.0
    ) -> tuple[str, Fields] | None:
        envelope = delivery.envelope
        if not self._records or envelope is None or envelope.photo_id is None:
            return None
        fields = record_fields(
            step, outcome, message, delivery.traceparent, envelope.session_id, _file_name(envelope), until
        )
        if delivery.unknown is not None:
            # an empty value replaces what an earlier submission of the photo left
            fields += ("unknown_fields", ", ".join(delivery.unknown).encode("utf-8", "replace"))
        return self._keys.photo(envelope.photo_id), fields


def _cause(error: BaseException) -> str:
    """Return what is to blame. Only a PermanentError blames the file; any other may be a mistake of ours."""
    cause = cause_of(error)
    if status_of(error) in _NOT_THE_PHOTO.get(cause, ()):
        return "library"
    return "" if cause in FINAL and not isinstance(error, PermanentError) else cause


def _expected(envelope: Envelope | None) -> int:
    """Return how many photos the session has, if this event contains the number."""
    return (getattr(envelope.event, "expected", None) or 0) if envelope else 0


def _replays(delivery: Delivery) -> int:
    """Return how often the entry was replayed; it may be one that cannot be decoded."""
    if delivery.envelope:
        field = delivery.envelope.replay
    else:
        field = codec.replay_of(dict(zip(delivery.fields[::2], delivery.fields[1::2], strict=False)))
    return int(field.partition(b" ")[0] or 0)


def _file_name(envelope: Envelope | None) -> str | None:
    """Return the name people know the photo by: its file name, else the end of its address."""
    if envelope is None:
        return None
    name = getattr(envelope.event, "file_name", None)
    if name:
        return str(name)
    url: str = getattr(envelope.event, "source_url", "")
    return url.split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1][:255] or None
