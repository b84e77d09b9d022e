"""Compares how long calls to an outside part take now with how long they usually take.

A process that waits for a slow part fails nothing and opens no breaker. Without this comparison nobody
would see why photos go slowly.

Calls are compared with calls of the same HTTP method, because an upload takes longer than a question. A part
is slow when two of its last three calls took four times as long as usual and at least half a second. A call
that still runs counts as soon as it is over that limit; one that runs for eight times the limit is enough. A
part is no longer slow when none of the last three is over the limit. What is slow for an hour becomes the
usual.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
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
"""Calls of the last three that have to be over the limit."""
_ENOUGH_ALONE: Final = 8.0
"""One running call counts as two from so many limits on."""
_ENOUGH: Final = 5
"""Calls before there is a usual duration."""
_WEIGHT: Final = 0.01
"""Weight of a new call in the usual duration: about the last hundred calls."""
_FRESH_SECONDS: Final = 20.0
"""How long a call that has ended says something about now."""
_USUAL_AFTER_SECONDS: Final = 3600.0


class SlowCalls(msgspec.Struct, frozen=True, kw_only=True):
    """How long calls of one method take now and usually, in seconds. Stored in the process record."""

    method: str
    seconds_now: float
    seconds_usual: float


class _Method:
    """The calls of one HTTP method."""

    def __init__(self, name: str, expected: float) -> None:
        self._name = name
        self._expected = expected
        self._usual = 0.0
        self._count = 0
        self._slow_since: float | None = None
        self.running: dict[object, float] = {}
        self.ended: deque[tuple[float, float]] = deque(maxlen=_SAMPLE)
        """When each of the last calls ended, and its seconds."""

    @property
    def usual(self) -> float:
        """Return the usual seconds; 0 if they are not known."""
        return self._usual if self._count >= _ENOUGH else self._expected

    @property
    def limit(self) -> float:
        return max(_FLOOR_SECONDS, _FACTOR * self.usual)

    def learn(self, now: float, seconds: float) -> None:
        """Note a call that ended."""
        self.ended.append((now, seconds))
        self.look(now)
        # an outlier says nothing about what is usual
        if not self.usual or seconds <= self.limit:
            self._count += 1
            self._usual += max(_WEIGHT, 1 / self._count) * (seconds - self._usual)

    def look(self, now: float) -> SlowCalls | None:
        """Decide whether calls are slow now; return how slow."""
        if not self.usual:
            return None
        limit, running = self.limit, sorted(now - start for start in self.running.values())
        late = [age for age in running if age > limit for _ in range(1 + (age > _ENOUGH_ALONE * limit))]
        sample = ([took for at, took in self.ended if now - at < _FRESH_SECONDS] + late)[-_SAMPLE:]
        over = [took for took in sample if took > limit]
        if len(over) >= _MANY:
            self._slow_since = now if self._slow_since is None else self._slow_since
        elif not over:
            self._slow_since = None
        if self._slow_since is None or not over:
            return None
        taken = statistics.median(over)
        if now - self._slow_since > _USUAL_AFTER_SECONDS:
            self._usual, self._count, self._slow_since = taken, _ENOUGH, None
            return None
        return SlowCalls(method=self._name, seconds_now=round(taken, 3), seconds_usual=round(self.usual, 4))


class CallTimes:
    """Keeps the durations of the calls to one part.

    `expected`: the usual seconds until enough calls were seen; 0: nothing is slow until then.
    """

    def __init__(self, *, expected: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._expected = expected
        self._clock = clock
        self._methods: dict[str, _Method] = {}

    def start(self, method: str) -> object:
        """Note that a call begins; return what `end` takes."""
        call = object()
        self._of(method).running[call] = self._clock()
        return call

    def end(self, method: str, call: object) -> None:
        """Note that its answer began, or that it failed."""
        found = self._of(method)
        if (start := found.running.pop(call, None)) is not None:
            now = self._clock()
            found.learn(now, now - start)

    def slow(self) -> SlowCalls | None:
        """Return the slowest method by its ratio to the usual; None while all are as usual."""
        now = self._clock()
        slow = [found for method in self._methods.values() if (found := method.look(now))]
        return max(slow, key=lambda found: found.seconds_now / max(found.seconds_usual, 1e-4), default=None)

    def _of(self, method: str) -> _Method:
        return self._methods.setdefault(method, _Method(method, self._expected))


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
        _: aiohttp.ClientSession,
        call: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams | aiohttp.TraceRequestExceptionParams,
    ) -> None:
        times.end(params.method, call.timed)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(start)
    config.on_request_end.append(end)
    config.on_request_exception.append(end)
    return config


def slow_parts() -> dict[str, SlowCalls]:
    """Return the parts whose calls are slow now."""
    return {part: slow for part, times in _PARTS.items() if (slow := times.slow())}
