"""Shares the reads of a lane between bulk work and all other work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.delivery.slots import Slots

ONE_IN: Final = 10
"""While other work waits, one entry in ten is bulk work, and one slot in ten (at least one) has bulk work."""
_LOOK_SECONDS: Final = 0.05
"""How often to look whether there is bulk work, as long as there was none the last time."""


class BulkShare:
    """Decide how many entries of bulk work one lane reads: all it has slots for while nothing else waits.

    Both bounds are needed. Without the one on entries, short bulk work would fill each slot that comes free;
    without the one on slots, long bulk work would fill all slots in the end.
    """

    def __init__(self, slots: Slots, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._most = max(1, slots.total // ONE_IN)
        self._clock = clock
        self._credit = 0.0
        self._waits = False
        self._looked = clock() - _LOOK_SECONDS

    def before_others(self) -> int:
        """Return how many entries of bulk work come before the other work that waits."""
        room = min(int(self._credit), self._most - self._slots.bulk)
        return room if room > 0 and self._worth_a_look else 0

    @property
    def _worth_a_look(self) -> bool:
        return self._waits or self._clock() - self._looked >= _LOOK_SECONDS

    def after_others(self, slots: int, *, only: bool) -> int:
        """Return how many entries of bulk work the `slots` left may take. `only`: there was no other work."""
        return slots if only or self._worth_a_look else 0

    def note_others(self, taken: int, *, more: bool) -> None:
        """Note a read of other work. `more`: some of it still waits."""
        self._credit = min(self._credit + taken / (ONE_IN - 1), self._most) if more else 0.0

    def note_bulk(self, taken: int, *, share: bool = False) -> None:
        """Note a read of bulk work; `share`: it came before other work."""
        self._waits = taken > 0
        self._looked = self._clock()
        if share:
            self._credit = max(0.0, self._credit - max(taken, 1))
