"""What goes wrong, and when: a schedule drawn from a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import msgspec

from tests.chaos.proxy import STRIKES

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: Final = (
    "kills",
    "zombies",
    "terms",
    "redis_kills",
    "power_cuts",
    "network",
    "memory",
    "disk",
    "clock",
    "outside",
    "mixed",
)
FAIL_OVERS: Final = ("kill", "hang", "hand over")
"""The ways in which a replica takes its primary's place. The kinds `fail_overs`, `moves` and `cuts` are for
several servers (`tests.chaos.several`)."""
PERIOD: Final = 4.0
"""Seconds of one period; every fourth one is calm."""
HOUR: Final = 3600


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do, `at` seconds after the start of the run."""

    at: float
    what: str
    target: int = 0
    """Which process, as a place in the herd."""
    value: float = 0.0
    """Seconds that it lasts, where it lasts."""
    kind: str = ""


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the run in which one kind of trouble reigns."""

    start: float
    length: float
    kind: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that will go wrong. The same seed, duration and kinds give the same schedule."""

    seed: int
    duration: float
    lease: float
    periods: list[Period]
    actions: list[Action]


def schedule(
    seed: int,
    duration: float,
    *,
    lease: float,
    places: int,
    kinds: Sequence[str] = KINDS,
    calm: bool = True,
    strikes: bool = True,
) -> Schedule:
    """Draw a schedule. `kinds` may name one several times, which makes it come more often.

    `strikes`: whether the network fails now and then in periods of other kinds too.
    """
    rng = random.Random(f"nemesis {seed}")
    periods: list[Period] = []
    actions: list[Action] = []
    bag: list[str] = []
    start = 0.0
    while start < duration - 0.5:
        length = min(PERIOD, duration - start)
        if calm and len(periods) % 4 == 3:
            kind = "calm"
        else:
            if not bag:
                bag = list(kinds)
                rng.shuffle(bag)
            kind = bag.pop()
        periods.append(Period(start=start, length=length, kind=kind))
        drawn = _actions(rng, kind, start, length, lease, places)
        actions += [a for a in drawn if strikes or kind == "network" or a.what != "strike"]
        start += length
    actions.sort(key=lambda action: action.at)
    return Schedule(seed=seed, duration=duration, lease=lease, periods=periods, actions=actions)


def _actions(
    rng: random.Random, kind: str, start: float, length: float, lease: float, places: int
) -> list[Action]:
    """What happens in one period."""
    if kind == "calm":
        return []
    draw = _Draw(rng, start, length, lease, places)
    draw.processes(kind)
    draw.server(kind)
    draw.network(kind)
    if kind == "outside":
        draw.once(0.1, "outside", length * 0.9)
    return draw.actions


class _Draw:
    """Draws the actions of one period."""

    def __init__(self, rng: random.Random, start: float, length: float, lease: float, places: int) -> None:
        self._rng = rng
        self._start = start
        self._length = length
        self._lease = lease
        self._places = places
        self.actions: list[Action] = []

    def once(
        self, after: float, what: str, value: float = 0.0, detail: str = "", place: int | None = None
    ) -> None:
        """One action; a process is drawn where none is given."""
        self.actions.append(
            Action(
                at=round(self._start + after, 3),
                what=what,
                target=self._rng.randrange(self._places) if place is None else place,
                value=round(value, 3),
                kind=detail,
            )
        )

    def often(self, what: str, every: float, shortest: float = 0.0, longest: float = 0.0) -> None:
        """Again and again, about `every` seconds, each lasting from `shortest` to `longest`."""
        after = self._rng.uniform(0, every)
        while after < self._length:
            value = self._rng.uniform(shortest, longest)
            self.once(after, what, value, self._rng.choice(STRIKES) if what == "strike" else "")
            after += self._rng.uniform(0.5, 1.5) * every

    def processes(self, kind: str) -> None:
        """What happens to agents."""
        # single kills lie so far apart that there is always somebody who watched for the whole lease
        every = {"kills": 0.35, "mixed": 1.0, "single_kills": 3.0}.get(kind)
        if every is not None:
            self.often("kill", every)
        if kind in ("zombies", "mixed"):
            longest = self._lease * 1.8 + 0.5
            self.often("stop", 0.5 if kind == "zombies" else 2.0, self._lease * 1.2 + 0.5, longest)
        if kind == "terms":
            for place in range(self._places):
                after = self._rng.uniform(0, self._length * 0.5)
                self.once(after, "term", place=place)
                if self._rng.random() < 0.2:
                    self.once(after + 0.02, "term", place=place)

    def server(self, kind: str) -> None:
        """What happens to Redis."""
        rng, length = self._rng, self._length
        if kind in ("redis_kills", "power_cuts"):
            what = kind.removesuffix("s")
            for part in (0.1, 0.6):
                self.once(length * part + rng.uniform(0, 0.3), what, rng.uniform(0.1, 0.9))
        elif kind == "mixed":
            self.once(length * 0.4 + rng.uniform(0, 0.3), "power_cut", rng.uniform(0.1, 0.9))
        elif kind == "long_outages":
            # longer than a lease: only who counts stillness across it takes over afterwards
            self.once(0.3, "redis_kill", self._lease + 1.0)
        elif kind == "fail_overs":
            self.once(0.2, "fail_over", detail=rng.choice(FAIL_OVERS))
        elif kind == "moves":
            self.once(0.2, "move", length * 0.2)
        elif kind == "cuts":
            self.once(0.2, "cut", length * 0.4)
        elif kind == "memory":
            self.once(0.2, "squeeze", length * 0.6)
        elif kind == "disk":
            self.once(0.2, "fill_disk", length * 0.4)
        elif kind == "clock":
            self.once(0.2, "jump", length * 0.6, rng.choice(("forward", "back")))

    def network(self, kind: str) -> None:
        """What happens to connections."""
        if kind == "network":
            self.often("strike", 0.06, 0.2, self._lease * 1.5)
            self.once(self._length * 0.7, "refuse_connections", self._rng.uniform(0.3, 1.0))
        elif kind not in ("kills", "single_kills"):
            # there take-overs are timed, and a strike on the watcher makes it begin again
            self.often("strike", 0.8, 0.2, self._lease)
