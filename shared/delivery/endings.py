"""How deliveries end: what an agent returned, or failed with, as a settlement."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import codec, identities, topology
from events.codec import Envelope
from events.types import Event, Step
from shared.delivery.dead_letter import Reason, letter_fields
from shared.delivery.photo_record import record_fields
from shared.delivery.postponed import delays_of, overdue
from shared.delivery.scripts import Claimed
from shared.delivery.settler import SessionMove, Settlement
from shared.retry.classify import Kind, sentence_of
from shared.telemetry.tracing import DeliverySpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events.keys import Keys
    from events.topology import Stage
    from shared.retry.policy import Attempt, Failed, Succeeded

MAX_OUTPUTS: Final = 16
"""Events one delivery may publish; a script call adds them all."""


class HandlerError(TypeError):
    """An agent returned something the topology does not let it write: a bug, and a dead letter."""


class Ending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a delivery ends, before it is settled."""

    settlement: Settlement
    outcome: str
    reason: Reason | None = None
    error: BaseException | None = None
    message: str = ""
    attempts: int = 1
    unwell: str = ""
    """Not empty: it was this machine, in these words; reading stops."""


class Case(msgspec.Struct, frozen=True, gc=False):
    """One delivery: the entry, what it was decoded to, its span, and when it came into hand (Unix time)."""

    entry: Claimed
    stream: str
    envelope: Envelope | None
    span: DeliverySpan
    started: float


class Endings:
    """Makes the settlements of one agent in one lane."""

    def __init__(
        self, stage: Stage, keys: Keys, consumer: str, *, photo_records: bool, sessions: bool
    ) -> None:
        """`sessions`: whether progress is counted (SESSION_BACKEND=redis)."""
        self._stage = stage
        self._keys = keys
        self._consumer = consumer
        self._photo_records = photo_records
        self._sessions = sessions
        self._first = topology.INTAKE in stage.reads
        self._source = f"erni:{stage.agent}"

    def done(self, case: Case, envelope: Envelope, result: Succeeded[Any]) -> Ending:
        """The agent returned its event or events."""
        attempts = len(result.failures) + 1
        try:
            events = self._checked(result.value)
        except HandlerError as error:
            return self.dead(case, "permanent", error, str(error))
        step = self._step(case, attempts)
        steps = codec.with_step(envelope.steps, step)
        span, keys = case.span, self._keys
        outputs = []
        validated = False
        for event in events:
            name = topology.NAMES[type(event)]
            validated = validated or name == topology.VALIDATED
            fields = codec.encode(
                event,
                event_id=identities.new_event_id(),
                source=self._source,
                photo_id=getattr(event, "photo_id", None) or envelope.photo_id,
                session_id=envelope.session_id,
                traceparent=span.traceparent,
                tracestate=span.tracestate,
                steps=steps,
                extras=envelope.extras,
            )
            outputs.append((keys.stream(name), fields))
        settlement = Settlement(
            entry_id=case.entry.entry_id,
            deliveries=case.entry.deliveries,
            what="done",
            outputs=outputs,
            photo=self._photo(envelope, span, step, "done"),
            session=self._counted(envelope, validated=validated),
        )
        return Ending(settlement=settlement, outcome="done", attempts=attempts)

    def without_output(self, case: Case, message: str) -> Ending:
        """End an entry whose event another entry carries: in its own lane, or published before."""
        settlement = Settlement(entry_id=case.entry.entry_id, deliveries=case.entry.deliveries, what="done")
        return Ending(settlement=settlement, outcome="done", message=message)

    def failed(self, case: Case, envelope: Envelope, result: Failed, *, stopping: bool) -> Ending:
        """The agent did not come through, for whatever reason."""
        message = sentence_of(result.error)
        if result.kind is Kind.UNWELL:
            return self.interrupted(
                case,
                "shutting down" if stopping else message,
                result.error,
                unwell="" if stopping else message,
                attempts=len(result.failures),
            )
        if result.kind is Kind.POSTPONE and not overdue(delays_of(envelope.delayed)):
            return self._postponed(case, envelope, result, message)
        reason: Reason = "permanent" if result.kind is Kind.PERMANENT else "exhausted"
        return self.dead(case, reason, result.error, message, result.failures)

    def interrupted(
        self,
        case: Case,
        message: str,
        error: BaseException | None = None,
        *,
        unwell: str = "",
        attempts: int = 0,
    ) -> Ending:
        """It is not the photo: the entry is given back as if it had not been delivered."""
        settlement = Settlement(
            entry_id=case.entry.entry_id, deliveries=case.entry.deliveries, what="interrupted"
        )
        return Ending(
            settlement=settlement,
            outcome="interrupted",
            error=error,
            message=message,
            attempts=attempts,
            unwell=unwell,
        )

    def dead(
        self,
        case: Case,
        reason: Reason,
        error: BaseException | None,
        message: str,
        failures: Sequence[Attempt] = (),
    ) -> Ending:
        """To the dead letters."""
        envelope, entry = case.envelope, case.entry
        session_id = envelope.session_id if envelope else getattr(error, "session_id", None)
        replays = _replays(envelope, entry)
        attempts = max(1, len(failures))
        file_name = _file_name(envelope)
        fields = letter_fields(
            agent=self._stage.agent,
            stream=case.stream,
            entry_id=entry.entry_id,
            consumer=self._consumer,
            reason=reason,
            error_type=type(error).__name__ if error else reason,
            message=message,
            attempts=failures,
            deliveries=entry.deliveries + (delays_of(envelope.delayed).deliveries if envelope else 0),
            photo_id=envelope.photo_id if envelope else None,
            session_id=session_id,
            file_name=file_name,
            traceparent=case.span.traceparent,
            replays=replays,
        )
        settlement = Settlement(
            entry_id=entry.entry_id,
            deliveries=entry.deliveries,
            what="dead",
            outputs=[(self._keys.dead(self._stage.agent), fields)],
            photo=self._photo(envelope, case.span, self._step(case, attempts), "dead", message),
            # a report that could not be written is no photo
            session=self._counted_dead(envelope, session_id, replayed=replays > 0)
            if case.stream != topology.COMPLETED
            else None,
        )
        return Ending(
            settlement=settlement,
            outcome="dead",
            reason=reason,
            error=error,
            message=message,
            attempts=attempts,
        )

    def _postponed(self, case: Case, envelope: Envelope, result: Failed, message: str) -> Ending:
        session = None
        if self._sessions and envelope.session_id and envelope.photo_id:
            session = SessionMove(
                key=self._keys.session(envelope.session_id),
                session_id=envelope.session_id,
                deltas={"postponed": 1},
                create=self._first,
                expected=_expected(envelope),
            )
        settlement = Settlement(
            entry_id=case.entry.entry_id,
            deliveries=case.entry.deliveries,
            what="postponed",
            delayed_key=self._keys.delayed(self._stage.agent),
            delay_ms=max(1, int(result.seconds * 1000)),
            session=session,
        )
        return Ending(
            settlement=settlement,
            outcome="postponed",
            error=result.error,
            message=f"{message} (again in {result.seconds:.0f} s)",
            attempts=len(result.failures),
        )

    def _checked(self, value: object) -> Sequence[Event]:
        """What the agent returned, as a list of events it may write. Raises HandlerError."""
        events: Any = value if isinstance(value, (list, tuple)) else (value,)
        if len(events) > MAX_OUTPUTS:
            raise HandlerError(
                f"{self._stage.agent} returned {len(events)} events, {MAX_OUTPUTS} are allowed"
            )
        for event in events:
            if topology.NAMES.get(type(event)) not in self._stage.writes:
                raise HandlerError(
                    f"{self._stage.agent} returned {type(event).__name__}; the topology lets it write"
                    f" {', '.join(self._stage.writes)}"
                )
        checked: Sequence[Event] = events
        return checked

    def _step(self, case: Case, attempts: int) -> Step:
        return Step(
            agent=self._stage.agent,
            started=round(case.started, 3),
            seconds=round(time.time() - case.started, 3),
            attempts=attempts,
            deliveries=case.entry.deliveries,
        )

    def _counted(self, envelope: Envelope, *, validated: bool) -> SessionMove | None:
        """What a hand-off counts: the entry received (first agent), the agent's own, and its good end."""
        session_id = envelope.session_id
        if not self._sessions or session_id is None or envelope.photo_id is None:
            return None
        deltas = {self._stage.agent: 1}
        if validated:
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
        )

    def _counted_dead(
        self, envelope: Envelope | None, session_id: str | None, *, replayed: bool
    ) -> SessionMove | None:
        if not self._sessions or session_id is None or (envelope is not None and envelope.photo_id is None):
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
        )

    def _photo(
        self, envelope: Envelope | None, span: DeliverySpan, step: Step, outcome: str, message: str = ""
    ) -> tuple[str, list[str | bytes]] | None:
        if not self._photo_records or envelope is None or envelope.photo_id is None:
            return None
        fields = record_fields(
            step, outcome, message, span.traceparent, envelope.session_id, _file_name(envelope)
        )
        return self._keys.photo(envelope.photo_id), fields


def _expected(envelope: Envelope | None) -> int:
    """How many photos the session has, if this event says so."""
    return (getattr(envelope.event, "expected", None) or 0) if envelope else 0


def _replays(envelope: Envelope | None, entry: Claimed) -> int:
    """How often it was replayed; what cannot be decoded may have been, too."""
    pairs = dict(zip(entry.fields[::2], entry.fields[1::2], strict=False))
    field = envelope.replay if envelope else codec.replay_of(pairs)
    return int(field.partition(b" ")[0] or 0)


def _file_name(envelope: Envelope | None) -> str | None:
    """What people call the photo: its file name, else the end of its address."""
    if envelope is None:
        return None
    name = getattr(envelope.event, "file_name", None)
    if name:
        return str(name)
    url: str = getattr(envelope.event, "source_url", "")
    return url.split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1][:255] or None
