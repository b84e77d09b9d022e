"""Handles a delivery: decodes it, runs the agent with retries, and finds its outcome."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from events import codec, intake, submission, topology
from events.connection import RedisError
from shared.delivery.agent import current_delivery
from shared.delivery.outcome import MOVED, REPEATED, Outcome, Outcomes
from shared.retry.classify import sentence_of
from shared.retry.policy import ATTEMPTS, Failed, attempt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from events.codec import Envelope
    from shared.delivery.accounting import Accounting
    from shared.delivery.delivery import Delivery
    from shared.delivery.lane import Lane
    from shared.delivery.runtime import Runtime
    from shared.delivery.settler import Settler
    from shared.retry.limit import TimeLimit
    from shared.telemetry.tracing import DeliverySpan

_SHUTTING_DOWN: Final = Outcome(what="released", message="shutting down", attempts=0)
_OVER_THE_LIMIT: Final = (
    "delivered {} times and never settled: each time its process died or was killed while handling it"
)
_log = structlog.get_logger(__name__)


class Handler:
    """Run the agent on the entries of one lane, each in one task of a set that grows when necessary.

    A task takes the next entry as soon as its settler has the last one, so an agent that never waits needs a
    single task. While that task waits, `_wake` lets another one take the next entry.
    """

    def __init__(
        self, runtime: Runtime, lane: Lane, settlers: Sequence[Settler], accounting: Accounting
    ) -> None:
        """Start without tasks. `settlers`: one for each stream that the stage reads, in its order."""
        self._runtime = runtime
        self._lane = lane
        self._outcomes = Outcomes(runtime, lane.keys)
        self._settlers = settlers
        self._accounting = accounting
        self._types = runtime.stage.types
        self._first = topology.INTAKE in runtime.stage.reads
        # a stage with a schedule waits outside the process, where an entry holds no slot
        self._attempts = 1 if runtime.stage.schedule else ATTEMPTS
        self._max_deliveries = runtime.settings.max_deliveries
        self._lanes = runtime.settings.lanes
        self._streams = [lane.keys.stream(name) for name in runtime.stage.streams]
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Delivery] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking = False

    def handle(self, delivery: Delivery) -> None:
        """Give this delivery to a task; its settler gets it back."""
        self._waiting.append(delivery)
        if not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake)

    async def close(self) -> None:
        """End the tasks. Call it when they have nothing to do any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _wake(self) -> None:
        """Let one more task take entries, and check again after its turn."""
        self._waking = False
        if not self._waiting:
            return
        if self._idle:
            self._idle.pop().set_result(None)
        else:
            task = self._loop.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._waking = True
        self._loop.call_soon(self._wake)

    async def _work(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("this coroutine runs as a task")
        with self._runtime.limits.of(task) as limit:
            while True:
                while self._waiting:
                    await self._deliver(self._waiting.popleft(), task, limit)
                news: asyncio.Future[None] = self._loop.create_future()
                self._idle.append(news)
                await news

    async def _deliver(self, delivery: Delivery, task: asyncio.Task[None], limit: TimeLimit) -> None:
        """Handle one entry and pass it to its settler."""
        delivery.task = task
        try:
            delivery.outcome = await self._outcome_of(delivery, limit)
        except asyncio.CancelledError:
            if not delivery.cancelled:
                raise
            delivery.outcome = _SHUTTING_DOWN
        except Exception:  # noqa: BLE001 - logged with its traceback; the process goes on
            # an error of the engine, not the handler's: the entry stays pending and is reclaimed as an orphan
            _log.exception("the delivery engine failed on an entry", entry_id=delivery.entry_id)
            self._accounting.release((delivery,))
            return
        finally:
            delivery.task = None
            if delivery.cancelled:
                # the request was for this delivery; the task goes on with the next one
                while task.cancelling():
                    task.uncancel()
        delivery.handled = time.time()
        if delivery.lost:
            self._accounting.end((delivery,), ("FENCED",))
        else:
            self._settlers[delivery.stream].settle(delivery)

    async def _outcome_of(self, delivery: Delivery, limit: TimeLimit) -> Outcome:
        delivery.started = time.time()
        stream, entry_id, failure = self._types[delivery.stream], delivery.entry_id, None
        try:
            delivery.envelope = codec.decode(stream, entry_id, delivery.fields)
        except codec.UndecodableError as error:
            failure = error
        envelope = delivery.envelope
        delivery.span = self._begin_span(delivery, failure)
        with delivery.span:
            if envelope is None:
                return self._outcomes.dead(delivery, "undecodable", failure, str(failure))
            if delivery.deliveries > self._max_deliveries:
                message = _OVER_THE_LIMIT.format(delivery.deliveries - 1)
                return self._outcomes.dead(delivery, "delivery_limit", None, message)
            if self._first:
                # one lane, and marked when it was published: nothing to ask
                known = envelope.marked and self._lanes == 1
                if not known and (ended := await self._take_in(delivery, envelope)):
                    return ended
                if not envelope.canonical:
                    self._note_unknown(delivery)
            current_delivery.set(delivery)
            result = await attempt(
                self._runtime.agent.handle,
                envelope.event,
                limit=limit,
                breakers=self._runtime.breakers,
                observer=self,
                stopping=self._runtime.stopping,
                attempts=self._attempts,
            )
            if isinstance(result, Failed):
                return self._outcomes.failed(delivery, envelope, result)
            if result.failures:
                self._runtime.metrics.retry_success.inc()
            return self._outcomes.done(delivery, envelope, result)

    def _begin_span(self, delivery: Delivery, failure: codec.UndecodableError | None) -> DeliverySpan:
        envelope, stage = delivery.envelope, self._runtime.stage
        link = None
        context: Mapping[str, str] | Mapping[bytes, bytes]
        if envelope is None:
            # an entry that cannot be decoded may still name its trace
            context = dict(zip(delivery.fields[::2], delivery.fields[1::2], strict=False))
            session = failure.session_id if failure else None
        else:
            context = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
            session = envelope.session_id
            if envelope.replay:
                link = envelope.replay.partition(b" ")[2].decode("ascii", "replace") or None
        return self._runtime.spans.start(
            stage.agent,
            stage.handoff_type,
            context,
            delivery.entry_id,
            self._streams[delivery.stream],
            delivery.deliveries,
            session,
            envelope.photo_id if envelope else None,
            link_traceparent=link,
            file_name=getattr(envelope.event, "file_name", None) if envelope else None,
        )

    async def _take_in(self, delivery: Delivery, envelope: Envelope) -> Outcome | None:
        """End an entry that is not handled here: of another lane, published twice, or with a reused id."""
        lane = self._lane
        while True:
            try:
                admission = await intake.take_in(
                    lane.writing,
                    lane.keys,
                    self._lanes,
                    delivery.entry_id,
                    delivery.fields,
                    envelope,
                    bulk=delivery.stream > 0,
                )
            except (RedisError, OSError) as error:
                await lane.trouble_with(error, "taking an entry in")
            else:
                break
        if admission == "first":
            return None
        if admission == "reused":
            message = intake.reused(intake.source_of(delivery.fields), envelope.event_id)
            return self._outcomes.dead(delivery, "permanent", None, message)
        return MOVED if admission == "moved" else REPEATED

    def _note_unknown(self, delivery: Delivery) -> None:
        """Note the names in a submission that no field has, which are mostly typing errors."""
        names, values = delivery.fields[::2], delivery.fields[1::2]
        delivery.unknown = submission.unknown_fields(values[names.index(b"data")])
        envelope = delivery.envelope
        first = delivery.deliveries == 1 and not (envelope and (envelope.delayed or envelope.replay))
        if delivery.unknown and first:
            self._runtime.metrics.unknown_fields.inc()
            _log.warning("unknown fields in a submission are ignored", fields=delivery.unknown)

    def retrying(self, attempt: int, wait: float, error: BaseException) -> None:
        """Note an attempt that is made again: metrics, the delivery's span, a log line."""
        kind, sentence = type(error).__name__, sentence_of(error)
        self._runtime.metrics.retry_attempt(error)
        current_delivery.get().span.retry(attempt, wait, kind, sentence)
        _log.info("retrying", attempt=attempt, wait=round(wait, 2), error_type=kind, error=sentence[:300])
