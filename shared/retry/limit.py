"""Limits the time of each attempt; one loop watches all of them.

`asyncio.timeout` does the same for one block, but it costs a timer and several look-ups of the running loop
each time, for a limit of minutes that is hardly ever reached.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_current: ContextVar[TimeLimit] = ContextVar("time_limit")


class TimeLimit:
    """Limit how long the attempt of one task may run. A task keeps its limit for all its attempts."""

    __slots__ = ("_paused", "_paused_at", "_ran_since", "_seconds", "_task", "cut", "since")

    def __init__(self, seconds: float, task: asyncio.Task[None]) -> None:
        """Allow `seconds` for each attempt that `task` makes."""
        self._seconds = seconds
        self._task = task
        self._paused = 0
        self._paused_at = self._ran_since = 0.0
        self.since = math.inf
        """Monotonic time of the attempt's start; infinite while no attempt runs, and while it waits."""
        self.cut = False
        """The attempt was cancelled because its time was over."""

    def cut_off(self) -> None:
        """Cancel the attempt. The code that makes it raises TimeoutError in place of the cancellation."""
        self.cut = True
        self.since = math.inf
        self._task.cancel()

    def cause_of_cancellation(self) -> TimeoutError | None:
        """Return what a cut-off attempt raises; None if the cancellation came from elsewhere.

        A cancellation from outside at the same moment wins: there are two requests then.
        """
        cut, self.cut = self.cut, False
        if cut and self._task.uncancel() == 0:
            return TimeoutError(f"not done within {self._seconds:g} s (HANDLE_TIMEOUT)")
        return None

    @property
    def cancelled_from_outside(self) -> bool:
        """Return whether somebody asked the task to end; otherwise a library inside cancelled the attempt."""
        return self._task.cancelling() > 0

    def pause(self) -> None:
        """Stop the clock. Several tasks of one attempt may do so at a time."""
        if self._paused == 0:
            self._paused_at, self._ran_since = time.monotonic(), self.since
            self.since = math.inf
        self._paused += 1

    def resume(self) -> None:
        """Let the clock go on when the last paused task has resumed."""
        self._paused -= 1
        if self._paused == 0:
            self.since = self._ran_since + time.monotonic() - self._paused_at


class TimeLimits:
    """Hold the limits of all tasks of a process that make attempts."""

    def __init__(self, seconds: float) -> None:
        """Allow `seconds` for each attempt (HANDLE_TIMEOUT)."""
        self.seconds = seconds
        self._limits: set[TimeLimit] = set()

    @contextmanager
    def of(self, task: asyncio.Task[None]) -> Iterator[TimeLimit]:
        """Watch the attempts of `task` inside the block."""
        limit = TimeLimit(self.seconds, task)
        self._limits.add(limit)
        token = _current.set(limit)
        try:
            yield limit
        finally:
            _current.reset(token)
            self._limits.discard(limit)

    @property
    def running(self) -> list[TimeLimit]:
        """Return the limits of the attempts that run now."""
        return [limit for limit in self._limits if limit.since < math.inf]

    async def watch(self) -> None:
        """Cut off attempts that run too long, up to a quarter of a second late; runs until cancelled."""
        while True:
            await asyncio.sleep(min(0.25, self.seconds / 4))
            started_before = time.monotonic() - self.seconds
            for limit in [limit for limit in self._limits if limit.since < started_before]:
                limit.cut_off()


@contextmanager
def waiting() -> Iterator[None]:
    """Wait inside the block for something that other photos use too, outside the attempt's time limit.

    Outside of an attempt it does nothing.
    """
    limit = _current.get(None)
    if limit is None:
        yield
        return
    limit.pause()
    try:
        yield
    finally:
        limit.resume()
