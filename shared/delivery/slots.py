"""Room for entries in flight. A process never reads more than it has room for."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """CONCURRENCY places, shared by the lanes of a process, first come first served.

    A suspect (an entry whose handling may have killed its process) gets all of them: whoever wants one
    calls `want_all`, after which nobody gets new slots, and takes them when the last entry has ended.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._all_for: object | None = None

    @property
    def taken(self) -> int:
        """Slots in use, those reserved for a read in flight included."""
        return self.total - self.free

    def take(self, limit: int) -> int:
        """Take up to `limit` slots now; 0 if there is none, or somebody waits for all."""
        if self._all_for is not None:
            return 0
        got = min(self.free, limit)
        self.free -= got
        return got

    def give(self, number: int = 1) -> None:
        """Give slots back."""
        self.free += number
        self._wake()

    def want_all(self, who: object) -> bool:
        """Ask for all slots; False if another one asked before."""
        if self._all_for is None:
            self._all_for = who
        return self._all_for is who

    def take_all(self, who: object) -> bool:
        """Take all slots if `who` asked for them and all are free."""
        if self._all_for is not who or self.free < self.total:
            return False
        self.free = 0
        return True

    def want_all_no_more(self, who: object) -> None:
        """End the wish; slots go to whoever waits."""
        if self._all_for is who:
            self._all_for = None
            self._wake()

    def _wake(self) -> None:
        # Each waiter gets a slot of its own before anybody else can take it: when slots are fewer than lanes,
        # the lanes take turns. While somebody waits for all slots, waiters only look again.
        while self._waiting and (self.free or self._all_for is not None):
            waiter = self._waiting.popleft()
            if waiter.done():
                continue
            granted = 1 if self._all_for is None else 0
            self.free -= granted
            waiter.set_result(granted)

    async def changed(self, seconds: float) -> int:
        """Wait for a slot, at most so long; returns 1 with a slot that is now the caller's, else 0."""
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        except asyncio.CancelledError:
            if waiter.done():
                self.give(waiter.result())
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        return waiter.result() if waiter.done() else 0
