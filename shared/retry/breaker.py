"""Keeps a breaker per outside part, and per target in it: one that keeps failing is asked only now and then.

If a part is down without which the agent can do nothing, the agent stops reading. If a target (one library,
one host) is down, only the entries of that target are postponed.

The photos are not to blame for an outage. While a breaker is open, what fails transiently is
postponed, never dead; single entries probe the other side; the first success closes it.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

OPEN_AFTER: Final = 5
"""Transient failures in a row, with no success of that part between, over all entries in flight."""
FIRST_PROBE: Final = 2.0
LONGEST_PROBE: Final = 10.0
"""Seconds between probes, doubling from the first to the longest: work resumes within ten seconds of the
other side's return, and one call in ten seconds burdens nobody."""

_log = structlog.get_logger(__name__)


class Breaker:
    """Hold the state of one outside part."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.failures = 0
        self.open_since: float | None = None
        self.answered_at = float("-inf")
        self._clock = clock
        self._interval = FIRST_PROBE
        self._probe_at = 0.0

    def failed(self) -> bool:
        """Count a transient failure; return True if it opened the breaker."""
        self.failures += 1
        now = self._clock()
        if self.open_since is None:
            return self.failures >= OPEN_AFTER and self.open()
        if now >= self._probe_at:
            self._interval = min(self._interval * 2, LONGEST_PROBE)
            self._probe_at = now + self._interval
        return False

    def open(self) -> bool:
        """Open the breaker until the part answers; return True if it was not open."""
        if self.open_since is not None:
            return False
        self.open_since = self._clock()
        self._interval = FIRST_PROBE
        self._probe_at = self.open_since + self._interval
        return True

    def succeeded(self) -> bool:
        """Note a success; return True if it closed the breaker."""
        self.failures, self.answered_at = 0, self._clock()
        was_open, self.open_since = self.open_since is not None, None
        return was_open

    @property
    def probe_in(self) -> float:
        """Return the seconds until the next probe; 0 when one may go now."""
        return max(0.0, self._probe_at - self._clock())


class Breakers:
    """Hold all breakers of an agent process. Failures without a named part count for no breaker."""

    def __init__(
        self,
        stops_reading: Iterable[str],
        *,
        on_change: Callable[[str, bool], None] = lambda _name, _open: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start closed. `stops_reading`: parts the agent cannot work without; `on_change(name, is open)`."""
        self._stops_reading = frozenset(stops_reading)
        self._on_change = on_change
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def failed(self, name: str | None) -> None:
        """Count a transient failure of that part."""
        if name is None:
            return
        breaker = self._breakers.setdefault(name, Breaker(name, self._clock))
        if breaker.failed():
            self._opened(breaker)

    def now(self) -> float:
        """Return the time of the clock that `is_silent` uses, in seconds."""
        return self._clock()

    def is_silent(self, name: str | None, since: float) -> bool:
        """Return whether a part the agent cannot work without, or a target in it, has answered nobody since.

        All attempts of an entry failed meanwhile. If no entry was answered it is an outage, however few
        entries met it (the breaker opens). If other entries were answered, this entry is the cause.
        """
        needed = name is not None and name.partition("/")[0] in self._stops_reading
        breaker = self._breakers.get(name) if name and needed else None
        if breaker is None or breaker.answered_at >= since:
            return False
        if breaker.open():
            self._opened(breaker)
        return True

    def _opened(self, breaker: Breaker) -> None:
        _log.error("breaker open", dependency=breaker.name, after_failures=breaker.failures)
        self._on_change(breaker.name, True)  # noqa: FBT003 - open

    def succeeded(self, parts: Collection[str]) -> None:
        """Note that these parts answered."""
        for breaker in self._breakers.values():
            if breaker.name in parts and breaker.succeeded():
                _log.info("breaker closed", dependency=breaker.name)
                self._on_change(breaker.name, False)  # noqa: FBT003 - closed

    def is_open(self, name: str | None) -> bool:
        """Return whether that part is known to be down."""
        breaker = self._breakers.get(name) if name else None
        return breaker is not None and breaker.open_since is not None

    @property
    def open_names(self) -> list[str]:
        """Return the parts that are down."""
        return sorted(name for name, breaker in self._breakers.items() if breaker.open_since is not None)

    @property
    def reading_stopped(self) -> bool:
        """Return whether a part is down without which reading makes no sense."""
        return any(name in self._stops_reading for name in self.open_names)

    @property
    def probe_in(self) -> float:
        """Return the seconds until an entry may probe the parts that are down."""
        waits = [self._breakers[name].probe_in for name in self.open_names if name in self._stops_reading]
        return max(waits, default=0.0)

    def come_back(self, name: str | None) -> float:
        """Return the seconds for which an entry that met an open breaker is postponed."""
        breaker = self._breakers.get(name) if name else None
        soonest = breaker.probe_in if breaker else FIRST_PROBE
        return soonest + random.uniform(2.0, 6.0)  # noqa: S311 - spread, not a secret
