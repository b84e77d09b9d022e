"""Keeps a breaker per outside part, and per target in it: one that keeps failing is asked only now and then.

If a part is down without which the agent can do nothing, the agent stops reading. If a target (one library,
one host) is down, only the entries of that target are postponed.

The photos are not to blame for an outage, nor for a side that refuses all of them alike (a missing right, a
wrong address). While a breaker is open, what fails so is postponed, never dead; single entries probe the
other side; the first success closes it.
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
_SHORTEST_SPREAD: Final = 6.0
LONGEST_SPREAD: Final = 60.0
"""Seconds over which the postponed entries of a target come back: more the longer it has refused, because
each of them costs a hand-off, and a person has to act first."""

_FORGOTTEN: Final = 600.0
"""Seconds after which a target is forgotten that no entry met: nobody could find out that it works again."""
_log = structlog.get_logger(__name__)


class Breaker:
    """Hold the state of one outside part."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.failures = 0
        self.reason = ""
        """The last failure, in a sentence."""
        self._refusal: object = None
        self._refusals = 0
        self.open_since: float | None = None
        self.answered_at = float("-inf")
        self.met_at = clock()
        """When an entry needed it last."""
        self._clock = clock
        self._interval = FIRST_PROBE
        self._probe_at = 0.0

    def failed(self, reason: str = "") -> bool:
        """Count a transient failure; return True if it opened the breaker."""
        self.failures += 1
        return self._counted(self.failures, reason)

    def refused(self, alike: object, reason: str) -> bool:
        """Count a refusal; return True if it opened the breaker. Only refusals that are `alike` add up."""
        self._refusals = self._refusals + 1 if alike == self._refusal else 1
        self._refusal = alike
        return self._counted(self._refusals, reason)

    def _counted(self, in_a_row: int, reason: str) -> bool:
        self.met_at = self._clock()
        self.reason = reason or self.reason
        if self.open_since is None:
            return in_a_row >= OPEN_AFTER and self.open()
        if self._clock() >= self._probe_at:
            self.wait_longer()
        return False

    def wait_longer(self) -> None:
        """Let the next probe wait twice as long as the last one."""
        self._interval = min(self._interval * 2, LONGEST_PROBE)
        self._probe_at = self._clock() + self._interval

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
        self.failures = self._refusals = 0
        self.answered_at = self.met_at = self._clock()
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
        longest_spread: float = LONGEST_SPREAD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start closed. `stops_reading`: parts the agent cannot work without; `on_change(name, is open)`.

        `longest_spread`: seconds over which the postponed entries of a target come back at most.
        """
        self._stops_reading = frozenset(stops_reading)
        self._on_change = on_change
        self._longest_spread = longest_spread
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def failed(self, name: str | None, reason: str = "") -> None:
        """Count a transient failure of that part; `reason`: the failure in a sentence."""
        if name is not None and (breaker := self._of(name)).failed(reason):
            self._opened(breaker)

    def refused(self, name: str, alike: object, reason: str) -> None:
        """Count a refusal that no photo can be blamed for; others than the last start a new count."""
        if (breaker := self._of(name)).refused(alike, reason):
            self._opened(breaker)

    def _forget_targets(self) -> None:
        # an entry that waits meets its target again within the spread
        long_ago = self._clock() - max(_FORGOTTEN, 2 * self._longest_spread)
        for name in [name for name, one in self._breakers.items() if "/" in name and one.met_at < long_ago]:
            if self._breakers.pop(name).open_since is not None:
                self._on_change(name, False)  # noqa: FBT003 - closed

    def _of(self, name: str) -> Breaker:
        return self._breakers.setdefault(name, Breaker(name, self._clock))

    def hold(self, target: str) -> float:
        """Return the seconds for which an entry of this target is postponed unasked; 0: it may ask now.

        One entry at a time probes a target that is open.
        """
        breaker = self._breakers.get(target)
        if breaker is None or breaker.open_since is None:
            return 0.0
        breaker.met_at = self._clock()
        if breaker.probe_in == 0:
            breaker.wait_longer()
            return 0.0
        return self.come_back(target)

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
        _log.error(
            "breaker open",
            dependency=breaker.name,
            after_failures=max(breaker.failures, OPEN_AFTER),
            error=breaker.reason,
        )
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
        """Return the parts and targets that are down, as far as entries met them lately."""
        self._forget_targets()
        return sorted(name for name, breaker in self._breakers.items() if breaker.open_since is not None)

    @property
    def reasons(self) -> dict[str, str]:
        """Return why the parts and targets that are open failed last, in a sentence each."""
        return {name: self._breakers[name].reason for name in self.open_names}

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
        if breaker is None:
            return FIRST_PROBE + random.uniform(2.0, 6.0)  # noqa: S311 - spread, not a secret
        patient = self._longest_spread > LONGEST_SPREAD
        spread = LONGEST_SPREAD if patient else _SHORTEST_SPREAD
        if breaker.name not in self._stops_reading and breaker.open_since is not None:
            spread = min(max(spread, self._clock() - breaker.open_since), self._longest_spread)
        # where targets may be down for days, each look at an entry comes after about twice the time
        shortest = spread / 2 if patient else 2.0
        return breaker.probe_in + random.uniform(shortest, spread)  # noqa: S311 - spread, not a secret
