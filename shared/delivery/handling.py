"""One delivery: decode, handle with retries, and say how it ends."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

from events import codec, intake, topology
from events.connection import RedisError
from shared.delivery.agent import Delivery, current_delivery
from shared.delivery.endings import Case
from shared.retry.classify import sentence_of
from shared.retry.policy import Failed, attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from events.codec import Envelope
    from events.topology import Stage
    from shared.delivery.agent import Agent
    from shared.delivery.endings import Ending, Endings
    from shared.delivery.in_flight import InHand
    from shared.delivery.lane import Lane
    from shared.delivery.settler import Settler
    from shared.retry.breaker import Breakers
    from shared.retry.limit import TimeLimits
    from shared.telemetry.metrics import AgentMetrics
    from shared.telemetry.tracing import DeliverySpan, DeliverySpans

_log = structlog.get_logger(__name__)


class Handling:
    """Turns entries of one lane into settlements, with the agent in the middle."""

    def __init__(
        self,
        agent: Agent[Any, Any],
        stage: Stage,
        lane: Lane,
        *,
        lanes: int,
        endings: Endings,
        settlers: Sequence[Settler],
        breakers: Breakers,
        metrics: AgentMetrics,
        spans: DeliverySpans,
        limits: TimeLimits,
        max_deliveries: int,
        stopping: asyncio.Event,
        unwell: Callable[[str, bool], None],
    ) -> None:
        """`settlers`: one per stream the stage reads, in its order.

        `unwell` is told when this machine is, and whether it is only that a handler found Redis away.
        """
        self._agent = agent
        self._stage = stage
        self._lane = lane
        self._lanes = lanes
        self._endings = endings
        self._settlers = settlers
        self._breakers = breakers
        self._metrics = metrics
        self._spans = spans
        self._limits = limits
        self._max_deliveries = max_deliveries
        self._stopping = stopping
        self._unwell = unwell
        self.done = 0
        """Entries settled since the start."""

    async def deliver(self, hand: InHand) -> None:
        """Handle one entry and settle it. Returns when Redis has answered, or the entry is no longer ours."""
        started = time.time()
        entry = hand.claimed
        stream = self._stage.reads[entry.stream]
        envelope: Envelope | None
        try:
            envelope, failure = codec.decode(stream, entry.entry_id, entry.fields), None
        except codec.UndecodableError as error:
            envelope, failure = None, error
        span = self._span(stream, hand, envelope, failure)
        case = Case(entry, stream, envelope, span, started)
        with span.activate():
            ending: Ending | None
            if envelope is None:
                ending = self._endings.dead(case, "undecodable", failure, str(failure))
            else:
                ending = await self._end(hand, case, envelope)
            if ending is None:
                reply = "FENCED"
            else:
                hand.settling = True
                reply = await self._settlers[entry.stream].settle(ending.settlement)
            self._account(hand, ending, reply, span, time.time() - started)
        cause = failure or (ending.error if ending else None)
        if cause is not None:
            _forget_frames(cause)

    def _span(
        self, stream: str, hand: InHand, envelope: Envelope | None, failure: codec.UndecodableError | None
    ) -> DeliverySpan:
        entry = hand.claimed
        session = envelope.session_id if envelope else failure.session_id if failure else None
        link = None
        context: dict[str, str] = {}
        if envelope is not None:
            context = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
            if envelope.replay:
                link = envelope.replay.partition(b" ")[2].decode("ascii", "replace") or None
        return self._spans.start(
            self._stage.agent,
            self._stage.handoff_type,
            {name: value for name, value in context.items() if value},
            entry.entry_id,
            self._lane.keys.stream(stream),
            entry.deliveries,
            session,
            envelope.photo_id if envelope else None,
            link_traceparent=link,
        )

    async def _end(self, hand: InHand, case: Case, envelope: Envelope) -> Ending | None:
        """How the delivery ends; None if the entry was lost on the way."""
        entry = case.entry
        if entry.deliveries > self._max_deliveries:
            return self._endings.dead(
                case,
                "delivery_limit",
                None,
                f"delivered {entry.deliveries - 1} times and never settled: each time its process died or was"
                " killed while handling it",
            )
        if case.stream == topology.INTAKE and (stays := await self._intake(case, envelope)) is not None:
            return stays
        task = hand.task
        if task is None:
            raise RuntimeError("deliver runs in the entry's own task")
        token = current_delivery.set(
            Delivery(
                entry_id=entry.entry_id,
                stream=case.stream,
                deliveries=entry.deliveries,
                steps=codec.read_steps(envelope.steps) if envelope.steps else (),
                traceparent=case.span.traceparent,
            )
        )
        try:
            result = await attempt(
                lambda: self._agent.handle(envelope.event),
                limit=self._limits.of(task),
                breakers=self._breakers,
                observer=_Watcher(case.span, self._metrics),
                stopping=self._stopping,
            )
        except asyncio.CancelledError:
            if hand.lost:
                return None
            # the grace is over: the entry goes back as if it had never been delivered
            return self._endings.interrupted(case, "shutting down")
        finally:
            current_delivery.reset(token)
        if isinstance(result, Failed):
            return self._endings.failed(case, envelope, result, stopping=self._stopping.is_set())
        if result.failures:
            self._metrics.retry_success.inc()
        return self._endings.done(case, envelope, result)

    async def _intake(self, case: Case, envelope: Envelope) -> Ending | None:
        """End an entry that is not handled here: of another lane, published twice, or with a reused id."""
        entry = case.entry
        while True:
            try:
                admission = await intake.take_in(
                    self._lane.writing, self._lane.keys, self._lanes, entry.entry_id, entry.fields, envelope
                )
            except (RedisError, OSError) as error:
                await self._lane.trouble_with(error, "taking an entry in")
            else:
                break
        if admission == "first":
            return None
        if admission == "reused":
            message = intake.reused(intake.source_of(entry.fields), envelope.event_id)
            return self._endings.dead(case, "permanent", None, message)
        return self._endings.without_output(
            case, "moved to its own lane" if admission == "moved" else "the same event was published before"
        )

    def _account(
        self, hand: InHand, ending: Ending | None, reply: str, span: DeliverySpan, seconds: float
    ) -> None:
        """Count, end the span, and write the delivery's one line."""
        outcome = (
            "fenced" if reply == "FENCED" else "gone" if reply == "GONE" or ending is None else ending.outcome
        )
        error = ending.error if ending else None
        message = ending.message if ending else "taken over by another process while this one stood still"
        self._metrics.delivered(outcome, seconds)
        if outcome in ("fenced", "gone"):
            self._metrics.fenced.inc()
            message = "the entry was no longer ours: the result was dropped"
            _log.warning("fenced", outcome=outcome, stream=self._stage.reads[hand.claimed.stream])
        else:
            self.done += 1
        if outcome == "dead" and ending and ending.reason:
            self._metrics.dead_lettered[ending.reason].inc()
            if ending.reason == "exhausted" and ending.error:
                self._metrics.retry_exhausted(ending.error)
        span.end(outcome, (error or message) if outcome in ("dead", "postponed", "fenced", "gone") else None)
        if ending and ending.unwell:
            self._unwell(ending.unwell, isinstance(ending.error, RedisError))
        details: dict[str, object] = {
            "outcome": outcome,
            "seconds": round(seconds, 4),
            "attempts": ending.attempts if ending else 0,
            "deliveries": hand.claimed.deliveries,
        }
        if message:
            details["error"] = message[:500]
        if ending and ending.reason:
            details["reason"] = ending.reason
        (_log.info if outcome in ("done", "interrupted", "postponed") else _log.warning)(
            "delivery", **details
        )


def _forget_frames(error: BaseException) -> None:
    """Let go of what a failure's frames hold: the entry, the photo's bytes.

    They form a ring with the error, which only the garbage collector would open, and it does not know how
    much memory hangs on it.
    """
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            rest += (one.__cause__, one.__context__)


class _Watcher:
    """Tells metrics and span of each attempt that is made again."""

    __slots__ = ("_metrics", "_span")

    def __init__(self, span: DeliverySpan, metrics: AgentMetrics) -> None:
        self._span = span
        self._metrics = metrics

    def retrying(self, attempt: int, wait: float, error: BaseException) -> None:
        self._metrics.retry_attempt(error)
        self._span.retry(attempt, wait, type(error).__name__, sentence_of(error))
        _log.info(
            "retrying",
            attempt=attempt,
            wait=round(wait, 2),
            error_type=type(error).__name__,
            error=sentence_of(error)[:300],
        )
