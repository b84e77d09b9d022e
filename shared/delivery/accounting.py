"""What follows from a delivery's end: metrics, the end of its span, its log line, and its release."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from events.connection import RedisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.delivery.delivery import Delivery, InFlight
    from shared.delivery.runtime import Runtime

_log = structlog.get_logger(__name__)


class Accounting:
    """Accounts for the deliveries of one lane, batch by batch."""

    def __init__(self, runtime: Runtime, in_flight: InFlight) -> None:
        self._runtime = runtime
        self._in_flight = in_flight
        self.done = 0
        """Entries settled since the start."""

    def end(self, deliveries: Sequence[Delivery], replies: Sequence[str]) -> None:
        """Account for deliveries whose settlement was answered (OK, FENCED or GONE), and release them."""
        now = time.time()
        for delivery, reply in zip(deliveries, replies, strict=True):
            self._end(delivery, reply, now - delivery.started)
        self.release(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Take deliveries out of flight and give their slots back."""
        self._in_flight.release(deliveries)
        self._runtime.slots.give(sum([delivery.slots for delivery in deliveries]))

    def _end(self, delivery: Delivery, reply: str, seconds: float) -> None:
        outcome, metrics = delivery.outcome, self._runtime.metrics
        label, error, message = outcome.label, outcome.error, outcome.message
        if reply != "OK":
            label, error = reply.lower(), None
            message = "the entry was no longer ours: the result was dropped"
            metrics.fenced.inc()
            _log.warning("fenced", outcome=label, stream=self._runtime.stage.reads[delivery.stream])
        else:
            self.done += 1
        metrics.delivered(label, seconds)
        if outcome.reason and reply == "OK":
            metrics.dead_lettered[outcome.reason].inc()
            if outcome.reason == "exhausted" and error:
                metrics.retry_exhausted(error)
        good = label in ("done", "interrupted")
        delivery.span.end(label, None if good else error or message)
        if outcome.unhealthy:
            self._runtime.gate.shut(outcome.unhealthy, only_redis=isinstance(outcome.error, RedisError))
        details: dict[str, object] = {
            "outcome": label,
            "seconds": round(seconds, 4),
            "attempts": outcome.attempts,
            "deliveries": delivery.deliveries,
        }
        if message:
            details["error"] = message[:500]
        if outcome.reason:
            details["reason"] = outcome.reason
        with delivery.span.activate():
            (_log.info if good or label == "postponed" else _log.warning)("delivery", **details)
        if outcome.error is not None:
            _forget_frames(outcome.error)


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
