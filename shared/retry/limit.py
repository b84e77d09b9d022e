"""A time limit for each attempt, watched by one loop for all of them.

`asyncio.timeout` does the same for one block, at a fifth of what a whole hand-off costs: a timer and
several look-ups of the running loop each time, for a limit of minutes that is hardly ever reached.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from shared.retry.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class TimeLimits:
    """The attempts that run now, and how long each may."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: set[TimeLimit] = set()

    def of(self, task: asyncio.Task[None]) -> TimeLimit:
        """The limit of a delivery's attempts; `task` is the one that makes them."""
        return TimeLimit(self, task)

    async def watch(self) -> None:
        """Cut off what runs too long, until cancelled; up to a quarter of a second late."""
        while True:
            await asyncio.sleep(min(0.25, self.seconds / 4))
            started_before = time.monotonic() - self.seconds
            for limit in [limit for limit in self._running if limit.since < started_before]:
                limit.cut_off()

    def begin(self, limit: TimeLimit) -> None:
        """Watch it."""
        self._running.add(limit)

    def end(self, limit: TimeLimit) -> None:
        """Watch it no more."""
        self._running.discard(limit)


class TimeLimit:
    """Runs the attempts of one delivery, each within the limit."""

    __slots__ = ("_cut", "_limits", "_task", "since")

    def __init__(self, limits: TimeLimits, task: asyncio.Task[None]) -> None:
        self._limits = limits
        self._task = task
        self._cut = False
        self.since = 0.0
        """Monotonic time of the attempt's start."""

    def cut_off(self) -> None:
        """Cancel the attempt; `run` raises TimeoutError in its place."""
        self._cut = True
        self._limits.end(self)
        self._task.cancel()

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call()`. Raises TimeoutError if it took too long, as `asyncio.timeout` would."""
        self.since = time.monotonic()
        self._limits.begin(self)
        try:
            return await call()
        except asyncio.CancelledError:
            # a cancellation from outside at the same moment wins: there are two requests then
            if self._cut and self._task.uncancel() == 0:
                self._cut = False
                raise TimeoutError(f"not done within {self._limits.seconds:g} s (HANDLE_TIMEOUT)") from None
            if self._task.cancelling() == 0:
                # nobody asked for it: something inside the handler cancelled itself
                raise TransientError("the handler was cancelled from inside, by a library it uses") from None
            raise
        finally:
            self._limits.end(self)
            if self._cut:
                # the handler swallowed the cancellation and came to an end of its own
                self._cut = False
                self._task.uncancel()
