"""Accounts for a delivery's end: metrics, the end of its span, its log line, and its release."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import structlog

from events.connection import RedisError
from shared.delivery.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.delivery.delivery import Delivery, InFlight
    from shared.delivery.runtime import Runtime

_NOT_OURS: Final = ("fenced", "gone")
_DROPPED: Final = "the entry was no longer ours: the result was dropped"
_log = structlog.get_logger(__name__)


class Accounting:
    """Account for the deliveries of one lane, batch by batch."""

    def __init__(self, runtime: Runtime, in_flight: InFlight) -> None:
        self._runtime = runtime
        self._in_flight = in_flight
        self._bulk = len(runtime.stage.reads)
        """The index of the first stream with bulk work."""
        self.done = 0
        """Entries handed on since the start: no dead letter and nothing postponed is progress."""
        self.recent = Recent()

    def end(self, deliveries: Sequence[Delivery], replies: Sequence[str]) -> None:
        """Account for deliveries whose settlement was answered (OK, FENCED or GONE), and release them."""
        now, metrics = time.time(), self._runtime.metrics
        seconds = [now - delivery.started for delivery in deliveries]
        labels = [
            delivery.outcome.label if reply == "OK" else reply.lower()
            for delivery, reply in zip(deliveries, replies, strict=True)
        ]
        for outcome in set(labels):
            metrics.delivered_many(
                outcome, [took for label, took in zip(labels, seconds, strict=True) if label == outcome]
            )
        logs = _log.is_enabled_for(logging.INFO)
        for delivery, label, took in zip(deliveries, labels, seconds, strict=True):
            plain = label == "done" and not delivery.outcome.message
            if plain:
                delivery.span.end(label)
            else:
                self._end_otherwise(delivery, label)
            if logs or not plain:
                self._log(delivery, label, took)
        # a Redis that is silent for a while makes no agent slow
        self.recent.note(labels, [(delivery.handled or now) - delivery.started for delivery in deliveries])
        if done := labels.count("done"):
            self.done += done
            self._runtime.gate.succeeded()
        self.release(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Take deliveries out of flight and give their slots back."""
        self._in_flight.release(deliveries)
        self._give_back(deliveries)

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        number = bulk = 0
        for delivery in deliveries:
            if delivery.slots:
                number += delivery.slots
                bulk += delivery.stream >= self._bulk
                delivery.slots = 0
        slots = self._runtime.slots
        slots.bulk -= bulk
        slots.give(number)

    def lend_slots(self, deliveries: Sequence[Delivery]) -> None:
        """Give the slots of handled deliveries to the other lanes, because this one cannot settle now.

        The reader reads nothing more of this lane until they are settled, so at most CONCURRENCY entries of
        each lane are in flight. The only lane there is keeps its slots.
        """
        if self._runtime.settings.lanes == 1:
            return
        self._in_flight.without_slots.update(deliveries)
        self._give_back(deliveries)

    def set_apart(self, delivery: Delivery) -> None:
        """Let the lane read on although this delivery, whose slot may be lent, is refused."""
        self._in_flight.without_slots.discard(delivery)

    def _end_otherwise(self, delivery: Delivery, label: str) -> None:
        """Account for deliveries that did not end as they should."""
        outcome, metrics = delivery.outcome, self._runtime.metrics
        error: BaseException | str | None = outcome.error or outcome.message
        if label in _NOT_OURS:
            metrics.fenced.inc()
            error = _DROPPED
        elif outcome.reason:
            metrics.dead_lettered[outcome.reason].inc()
            if outcome.reason == "exhausted" and outcome.error:
                metrics.retry_exhausted(outcome.error)
        good = label in ("done", "interrupted")
        delivery.span.end(label, None if good else error, reason=outcome.reason)
        if outcome.unhealthy:
            self._runtime.gate.shut(outcome.unhealthy, only_redis=isinstance(outcome.error, RedisError))
        if outcome.error is not None:
            _forget_frames(outcome.error)

    def _log(self, delivery: Delivery, label: str, seconds: float) -> None:
        """Write the delivery's line."""
        outcome = delivery.outcome
        details: dict[str, object] = {
            "outcome": label,
            "seconds": round(seconds, 4),
            "attempts": outcome.attempts,
            "deliveries": delivery.deliveries,
        }
        with delivery.span:
            if label in _NOT_OURS:
                _log.warning("fenced", outcome=label, stream=self._runtime.stage.streams[delivery.stream])
                details["error"] = _DROPPED
            elif outcome.message:
                details["error"] = outcome.message[:500]
            if outcome.reason:
                details["reason"] = outcome.reason
            log = _log.info if label in ("done", "interrupted", "postponed") else _log.warning
            log("delivery", **details)


def _forget_frames(error: BaseException) -> None:
    """Release what a failure's frames hold: the entry, the photo's bytes.

    The frames and the error form a reference cycle. Only the garbage collector would free it, and the
    collector does not know how much memory the cycle holds.
    """
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            rest += (one.__cause__, one.__context__)
