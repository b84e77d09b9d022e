"""Compares how long calls to an outside part take now with how long they usually take.

A process that waits for a slow part, or for one that does not answer, fails nothing for a minute and opens no
breaker. Without this comparison nobody would see why photos do not move.

Calls are compared with calls of the same HTTP method, because an upload takes longer than a question. A call
is late when it takes four times as long as usual and at least half a second. A part is slow when two of its
last three calls were late, of whatever methods, and some were for four seconds: a short burst of work makes
calls late, too. A call that still runs counts as soon as it is late; one that runs for four times that long
is enough. What is slow for an hour becomes the usual.

A part does not answer when it has answered no call for five seconds while calls waited. That holds between
the attempts of an entry, too, but not longer: after the longest pause nobody waits for the part.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

_FACTOR: Final = 4.0
_FLOOR_SECONDS: Final = 0.5
_SAMPLE: Final = 3
_MANY: Final = 2
"""Calls of the last three that have to be late."""
_ENOUGH_ALONE: Final = 4.0
"""One running call counts as two from so many limits on."""
_BURST_SECONDS: Final = 4.0
"""How long calls have to be late: a burst of work is over by then, or the part is slow for it."""
_SILENT_SECONDS: Final = 5.0
"""How long a part may leave all calls unanswered."""
_ENOUGH: Final = 5
"""Calls before there is a usual duration."""
_WEIGHT: Final = 0.01
"""Weight of a new call in the usual duration: about the last hundred calls."""
_FRESH_SECONDS: Final = 20.0
"""How long a call that has ended says something about now."""
_NEXT_ATTEMPT_SECONDS: Final = 11.0
"""The longest pause before the next attempt (`shared.retry.policy.LONGEST_WAIT`), and a second more."""
_USUAL_AFTER_SECONDS: Final = 3600.0


class SlowCalls(msgspec.Struct, frozen=True, kw_only=True):
    """How long calls of one method take now and usually, in seconds. Stored in the process record."""

    method: str
    seconds_now: float
    """Where the part does not answer: for how long."""
    seconds_usual: float
    answers: bool = True
    """Whether the part answers at all."""


class _Method:
    """What is usual for calls of one HTTP method."""

    def __init__(self, name: str, expected: float) -> None:
        self.name = name
        self._expected = expected
        self._usual = 0.0
        self._count = 0

    @property
    def usual(self) -> float:
        """Return the usual seconds; 0 if they are not known."""
        return self._usual if self._count >= _ENOUGH else self._expected

    @property
    def limit(self) -> float:
        """Return the seconds from which a call is late."""
        return max(_FLOOR_SECONDS, _FACTOR * self.usual) if self.usual else inf

    def learn(self, seconds: float) -> None:
        # an outlier says nothing about what is usual
        if not self.usual or seconds <= self.limit:
            self._count += 1
            self._usual += max(_WEIGHT, 1 / self._count) * (seconds - self._usual)

    def become_usual(self, seconds: float) -> None:
        self._usual, self._count = seconds, _ENOUGH


class _Taken(msgspec.Struct, frozen=True):
    """A call as it is compared: how long it took, or has run."""

    method: _Method
    seconds: float
    ended: float = 0.0

    @property
    def late(self) -> bool:
        return self.seconds > self.method.limit

    @property
    def times_usual(self) -> float:
        return self.seconds / max(self.method.usual, 1e-4)


class CallTimes:
    """Keeps the durations of the calls to one part.

    `expected`: the usual seconds until enough calls were seen; 0: nothing is slow until then.
    """

    def __init__(self, *, expected: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._expected = expected
        self._clock = clock
        self._methods: dict[str, _Method] = {}
        self._running: dict[object, tuple[_Method, float]] = {}
        self._ended: deque[_Taken] = deque(maxlen=_SAMPLE)
        self._late_since: float | None = None
        self._slow_since: float | None = None
        self._unanswered_since: float | None = None
        """Since when calls wait and none is answered."""
        self._last_end = -inf

    def start(self, method: str) -> object:
        """Note that a call begins; return what `end` takes."""
        call, now = object(), self._clock()
        self._running[call] = (self._of(method), now)
        lately = now - self._last_end < _FRESH_SECONDS or len(self._running) > 1
        if self._unanswered_since is None or not lately:
            self._unanswered_since = now
        return call

    def end(self, call: object, *, answered: bool = True) -> None:
        """Note that its answer began, or that it failed."""
        method, start = self._running.pop(call, (None, 0.0))
        if method is None:
            return
        now = self._last_end = self._clock()
        taken = _Taken(method, now - start, now)
        if answered:
            self._unanswered_since = now if self._running else None
            method.learn(taken.seconds)
        # one that fails at once is not fast
        if answered or taken.late:
            self._ended.append(taken)
        self.slow()

    def slow(self) -> SlowCalls | None:
        """Return how late calls are now, or for how long none was answered; None while all are as usual."""
        now = self._clock()
        running = sorted(
            (_Taken(method, now - start) for method, start in self._running.values()),
            key=lambda call: call.seconds,
        )
        sample = [call for call in self._ended if now - call.ended < _FRESH_SECONDS]
        for call in running:
            if call.late:
                sample += [call] * (1 + (call.seconds > _ENOUGH_ALONE * call.method.limit))
        late = [call for call in sample[-_SAMPLE:] if call.late]
        if not late:
            self._late_since = self._slow_since = None
            return None
        self._late_since = now if self._late_since is None else self._late_since
        worst = max(late, key=lambda call: call.times_usual)
        if self._unanswered_since is not None and now - self._unanswered_since >= _SILENT_SECONDS:
            if not self._running and now - self._last_end > _NEXT_ATTEMPT_SECONDS:
                self._late_since = self._slow_since = None
                return None
            return _found(worst.method, now - self._unanswered_since, answers=False)
        if len(late) >= _MANY and now - self._late_since >= _BURST_SECONDS:
            self._slow_since = now if self._slow_since is None else self._slow_since
        if self._slow_since is None:
            return None
        same = [call.seconds for call in late if call.method is worst.method]
        if now - self._slow_since > _USUAL_AFTER_SECONDS:
            worst.method.become_usual(statistics.median(same))
            self._late_since = self._slow_since = None
            return None
        return _found(worst.method, statistics.median(same))

    def _of(self, method: str) -> _Method:
        return self._methods.setdefault(method, _Method(method, self._expected))


def _found(method: _Method, seconds: float, *, answers: bool = True) -> SlowCalls:
    return SlowCalls(
        method=method.name,
        seconds_now=round(seconds, 3),
        seconds_usual=round(method.usual, 4),
        answers=answers,
    )


_PARTS: Final[dict[str, CallTimes]] = {}
"""The parts that this process calls."""


def timed(part: str, *, expected: float = 0.0) -> aiohttp.TraceConfig:
    """Return the trace configuration with which an HTTP session measures its calls to a part."""
    times = _PARTS.setdefault(part, CallTimes(expected=expected))

    async def start(
        _: aiohttp.ClientSession, call: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        call.timed = times.start(params.method)

    async def end(
        _: aiohttp.ClientSession, call: SimpleNamespace, _params: aiohttp.TraceRequestEndParams
    ) -> None:
        times.end(call.timed)

    async def failed(
        _: aiohttp.ClientSession, call: SimpleNamespace, _params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        times.end(call.timed, answered=False)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(start)
    config.on_request_end.append(end)
    config.on_request_exception.append(failed)
    return config


def slow_parts() -> dict[str, SlowCalls]:
    """Return the parts whose calls are slow now, or get no answer."""
    return {part: slow for part, times in _PARTS.items() if (slow := times.slow())}
