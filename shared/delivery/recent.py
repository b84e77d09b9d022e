"""Keeps how the last entries of a process ended and how long they took, for its process record."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT: Final = 20
"""Outcomes kept: enough to tell a bad photo from a bad cause, few enough to forget a repaired one soon."""
_FAST: Final = 0.2
_SLOW: Final = 0.01
"""Weights of a new batch in the two moving averages: about the last 5 and the last 100 batches."""
_CHARACTERS: Final = {"done": ".", "dead": "x"}
_ENOUGH: Final = 20
"""Entries before there is a usual duration."""


class Recent:
    """Count the outcomes done and dead only: other outcomes say nothing about the entry."""

    def __init__(self) -> None:
        self._outcomes: deque[str] = deque(maxlen=KEPT)
        self._count = 0
        self.seconds_now = 0.0
        """Seconds an entry takes now; 0 before the first."""
        self._usual = 0.0

    def note(self, outcomes: Sequence[str], seconds: Sequence[float]) -> None:
        """Count the settled deliveries of a batch; `seconds`: how long each was handled."""
        self._outcomes.extend(_CHARACTERS[outcome] for outcome in outcomes if outcome in _CHARACTERS)
        took = [took for outcome, took in zip(outcomes, seconds, strict=True) if outcome == "done"]
        if not took:
            return
        mean = sum(took) / len(took)
        if self._count == 0:
            self.seconds_now = self._usual = mean
        self._count += len(took)
        # at first close to the plain mean, so that one slow first entry does not count as usual for long
        self._usual += max(_SLOW, 1 / self._count) * (mean - self._usual)
        self.seconds_now += _FAST * (mean - self.seconds_now)

    @property
    def outcomes(self) -> str:
        """Return one character for each entry, oldest first: ``.`` done, ``x`` dead."""
        return "".join(self._outcomes)

    @property
    def seconds_usual(self) -> float:
        """Return the seconds an entry usually takes; 0 until enough were seen."""
        return self._usual if self._count >= _ENOUGH else 0.0
