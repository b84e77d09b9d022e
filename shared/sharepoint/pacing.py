"""Slows down before SharePoint answers 429, and sends nothing while it has asked us to wait.

SharePoint counts resource units per minute for the whole app. From 80 % on, each answer carries
``RateLimit-Limit``, ``-Remaining`` and ``-Reset`` (seconds), the same figures for all our processes. Each
process spreads what remains over the time that remains, and takes only its part of it. It compares how fast
the figure falls with what it spends itself, and so estimates how many processes share the budget. Processes
need not talk to each other.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from shared.retry.errors import HttpStatusError
from shared.retry.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

LONGEST_WAIT: Final = 10.0
"""Seconds that a call waits for its turn. A longer wait is an error like the one that SharePoint would
answer, and the delivery engine postpones the photo instead of blocking a place."""
_LONGEST_QUIET: Final = 600.0
_RESERVE: Final = 0.02
"""The part of the budget that is left alone: calls of other processes are under way when we look."""
_MEMORY: Final = 0.2
"""Weight of the newest observation in the estimate of how many share the budget."""


class Pace:
    """Sets the pace of one process. Every call waits for its `turn` first and `note`s the answer."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._gap = 0.0
        self._gap_until = 0.0
        self._next = 0.0
        self._quiet_until = 0.0
        self._spent = 0
        self._remaining: int | None = None
        self._sharers = 1.0

    @property
    def gap(self) -> float:
        """Return the seconds between two resource units at present; 0 while there is plenty left."""
        return self._gap if self._clock() < self._gap_until else 0.0

    async def turn(self, units: int = 1) -> None:
        """Wait until a call of that many resource units may go out.

        Raises HttpStatusError (429, with the time left) if that is more than `LONGEST_WAIT` away: calls
        that are refused count against the budget too, so sending them would only prolong it.
        """
        now = self._clock()
        start = max(now, self._quiet_until)
        gap = self.gap
        if gap:
            start = max(start, self._next)
        wait = start - now
        if wait > LONGEST_WAIT:
            raise HttpStatusError(
                f"SharePoint is throttling this app: nothing is sent for another {wait:.0f} s, as it asked",
                status=429,
                retry_after=wait,
                code="activityLimitReached",
            )
        if gap:
            self._next = start + gap * units
        self._spent += units
        if wait > 0:
            await self._sleep(wait)

    def note(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer of Graph's."""
        now = self._clock()
        wanted = retry_after(headers) if status in (429, 503) else None
        if wanted is not None:
            self._quiet_until = max(self._quiet_until, now + min(wanted, _LONGEST_QUIET))
        try:
            limit = int(headers["RateLimit-Limit"])
            remaining = int(headers["RateLimit-Remaining"])
            reset = min(float(headers["RateLimit-Reset"]), _LONGEST_QUIET)
        except (KeyError, ValueError):
            if status < 400:
                # Below 80 % the headers are absent.
                self._gap = 0.0
                self._remaining = None
            return
        self._watch(remaining)
        usable = remaining - limit * _RESERVE
        if usable < 1:
            self._quiet_until = max(self._quiet_until, now + reset)
            return
        self._gap = reset / usable * self._sharers
        self._gap_until = now + reset

    def _watch(self, remaining: int) -> None:
        """Estimate how many processes share the budget from how it falls while we spend."""
        if self._remaining is not None and self._spent and remaining < self._remaining:
            seen = (self._remaining - remaining) / self._spent
            self._sharers = max(1.0, self._sharers + _MEMORY * (seen - self._sharers))
        if self._remaining is None or remaining > self._remaining:
            self._sharers = 1.0
        self._remaining = remaining
        self._spent = 0
