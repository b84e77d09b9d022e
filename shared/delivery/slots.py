"""Limits the entries in flight. A process never reads more than it has slots for."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Share CONCURRENCY slots among the lanes of a process, first come first served.

    A suspect (an entry whose handling may have killed its process) gets all slots. Its lane calls `want_all`;
    from then on nobody gets new slots. When the last entry has ended, the lane takes all slots.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self.bulk = 0
        """Entries of bulk work that have slots."""
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._all_for: object | None = None

    @property
    def taken(self) -> int:
        """Return the slots in use, those reserved for a read in flight included."""
        return self.total - self.free

    def take(self, limit: int) -> int:
        """Take up to `limit` slots now; return how many, 0 if there is none or somebody waits for all."""
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
        """Ask for all slots; return False if somebody else asked before."""
        if self._all_for is None:
            self._all_for = who
        return self._all_for is who

    def take_all(self, who: object) -> bool:
        """Take all slots if `who` asked for them and all are free; return whether it did."""
        if self._all_for is not who or self.free < self.total:
            return False
        self.free = 0
        return True

    def want_all_no_more(self, who: object) -> None:
        """Withdraw the request for all slots; slots go to the lanes that wait."""
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
        """Wait for a slot until the time-out; return 1 if the caller now has a slot, else 0."""
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
