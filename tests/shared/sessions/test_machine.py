"""Any sequence of operations by two clients leaves what a simple model says."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from events import scripts
from events.connection import connect
from events.identities import SessionId
from tests.shared.sessions.places import Place, age, call, hashes, store_at

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from shared.sessions.record import Session

HOUR: Final = 3600
DAY: Final = 24 * HOUR
MOST: Final = 3
"""Sessions a lane may have."""
TTL_MS: Final = HOUR * 1000
LONG_MS: Final = 7 * DAY * 1000
WHICH: Final = st.integers(0, 5)
WHO: Final = st.integers(0, 1)

MOVE: Final = scripts.Script(
    "move",
    "#!lua\n"
    + files("events").joinpath("lua", "session.lua").read_text(encoding="utf-8")
    + """
local k = { hash = KEYS[1], open = KEYS[2], lru = KEYS[3], completed = KEYS[4], stats = KEYS[5] }
local told = session_move(k, ARGV[1], cjson.decode(ARGV[2]), ARGV[3] == '1', 0, session_now(),
  tonumber(ARGV[4]), tonumber(ARGV[5]))
return told.missing and 0 or 1
""",
)
"""What a settlement does to a session, alone."""

DELTAS: Final[list[dict[str, int]]] = [
    {"received": 1},
    {"validated": 1},
    {"validated": 1},
    {"dead": 1},
    {"dead": -1},
    {"postponed": 1},
    {"postponed": -1},
    {"received": 1, "dead": 1},
    {"received": 1, "validated": 1},
    {"received": 1, "validated": 1},
    {"received": 2, "validated": 1},
]


class Known:
    """A session as the model knows it."""

    def __init__(self) -> None:
        self.accesses = 0
        self.expected = 0
        self.site = ""
        self.received = self.validated = self.dead = self.postponed = 0
        self.completion = 0
        self.status = "open"
        self.used = 0
        """Milliseconds, as the server said."""
        self.age = 0
        """Seconds by which the last access was moved back."""

    @property
    def ended(self) -> int:
        return self.validated + self.dead

    @property
    def in_flight(self) -> bool:
        return self.received > self.ended or self.expected > self.ended or self.postponed > 0

    @property
    def late(self) -> bool:
        return self.age > (7 * DAY if self.in_flight or self.dead > 0 else HOUR)

    def complete(self) -> None:
        if self.expected <= 0:
            return
        if self.ended < max(self.expected, self.received):
            self.status = "open"
        elif self.status == "open":
            self.completion += 1
            self.status = "completed"


class Machine(RuleBasedStateMachine):
    """The store's operations, by two clients, and time."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clients = [connect(self.place.url) for _ in range(2)]
        self.redis = self.clients[0]
        self.stores = [store_at(client, self.place, limit=MOST * self.place.lanes) for client in self.clients]
        # five of one lane crowd it; the last may be of another
        self.ids = [SessionId(name) for name in (*self.place.one_lane(5), "elsewhere")]
        self.known: dict[SessionId, Known] = {}
        self.completions = 0
        self.run(call(self.redis, "FLUSHALL"))

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(what)

    def teardown(self) -> None:
        for client in self.clients:
            self.run(client.aclose())
        self.runner.close()

    def lane(self, name: str) -> dict[SessionId, Known]:
        prefix = self.place.lane(name).prefix
        return {i: known for i, known in self.known.items() if self.place.lane(i).prefix == prefix}

    def in_lane(self, prefix: str) -> str:
        return next((name for name in self.ids if self.place.lane(name).prefix == prefix), "")

    def here(self, name: SessionId) -> Known | None:
        """The session, if it is not past its time, in which case an access removes it."""
        known = self.known.get(name)
        if known is not None and known.late:
            del self.known[name]
            return None
        return known

    def used(self, name: SessionId) -> None:
        lane = self.place.lane(name)
        self.known[name].used = int(self.run(call(self.redis, "HGET", lane.session(name), "last_accessed")))
        self.known[name].age = 0

    def agree(self, session: Session | None, known: Known | None) -> None:
        if known is None or session is None:
            assert session is None
            assert known is None
            return
        assert (session.access_count, session.expected, session.site, session.status, session.completion) == (
            known.accesses,
            known.expected,
            known.site,
            known.status,
            known.completion,
        )

    def evict(self, name: str) -> None:
        """The model's idea of it: the late go, then the least recently used above the limit."""
        while True:
            lane = self.lane(name)
            rest = sorted((i for i in lane if not lane[i].in_flight), key=lambda i: (lane[i].used, i))
            over = max(0, min(len(rest), len(lane) - MOST))
            removed, count = [], len(lane)
            for i in rest[:over]:
                if lane[i].late or count > MOST:
                    removed.append(i)
                    count -= 1
            removed += [i for i in lane if lane[i].late and i not in removed]
            for i in removed:
                del self.known[i]
            if not removed:
                return

    @initialize(expected=st.lists(st.sampled_from([0, 0, 1]), min_size=4, max_size=4))
    def begin(self, expected: list[int]) -> None:
        for which, number in enumerate(expected):
            self.set(which, number, "", 0)

    @rule(
        which=WHICH, expected=st.sampled_from([0, 0, 1]), site=st.sampled_from(["", "x"]), who=WHO
    )  # fmt: skip
    def set(self, which: int, expected: int, site: str, who: int) -> None:
        name = self.ids[which]
        known = self.here(name) or Known()
        self.known[name] = known
        known.expected = known.expected or expected
        known.site = site or known.site
        session = self.run(self.stores[who].set(name, expected=expected, site=site))
        self.agree(session, known)
        known.used, known.age = int(session.last_accessed * 1000 + 0.5), 0
        lane = self.lane(name)
        if len(lane) > MOST and any(not one.in_flight for one in lane.values()):
            self.evict(name)

    @rule(which=WHICH, expected=st.sampled_from([1, 1, 2]), who=WHO)
    def close(self, which: int, expected: int, who: int) -> None:
        name = self.ids[which]
        # one past its time that nobody has swept is taken up again: publishers may not delete
        known = self.known.setdefault(name, Known())
        before = known.completion
        known.expected = expected
        known.complete()
        self.completions += known.completion - before
        assert self.run(self.stores[who].close(name, expected=expected)) == expected
        self.used(name)

    @rule(which=WHICH, who=WHO)
    def get(self, which: int, who: int) -> None:
        name = self.ids[which]
        known = self.here(name)
        if known:
            known.accesses += 1
        self.agree(self.run(self.stores[who].get(name)), known)
        if known:
            self.used(name)

    @rule(which=WHICH, who=WHO)
    def touch(self, which: int, who: int) -> None:
        name = self.ids[which]
        known = self.here(name)
        assert self.run(self.stores[who].touch(name)) is (known is not None)
        if known:
            known.accesses += 1
            self.used(name)

    @rule(which=WHICH, who=WHO)
    def peek(self, which: int, who: int) -> None:
        name = self.ids[which]
        self.agree(self.run(self.stores[who].peek(name)), self.here(name))

    @rule(which=WHICH, who=WHO, sure=st.integers(0, 3))
    def delete(self, which: int, who: int, sure: int) -> None:
        if sure:
            return  # most sessions live longer
        name = self.ids[which]
        assert self.run(self.stores[who].delete(name)) is (self.known.pop(name, None) is not None)

    @rule(which=WHICH, create=st.sampled_from([True, True, False]), deltas=st.sampled_from(DELTAS))
    def settle(self, which: int, create: bool, deltas: dict[str, int]) -> None:  # noqa: FBT001 - drawn
        name = self.ids[which]
        known = self.here(name)
        if known is None and create:
            known = self.known[name] = Known()
        lane = self.place.lane(name)
        names = [
            lane.session(name),
            lane.session_open,
            lane.session_lru,
            lane.stream("session.completed"),
            lane.session_stats,
        ]
        told = self.run(
            MOVE(self.redis, names, [name, _json(deltas), "1" if create else "0", TTL_MS, LONG_MS])
        )
        assert told == (known is not None)
        if known is None:
            return
        for counter, change in deltas.items():
            setattr(known, counter, getattr(known, counter) + change)
        before = known.completion
        known.complete()
        self.completions += known.completion - before
        self.used(name)
        # as a settlement does right after
        in_flight = sum(one.in_flight for one in self.lane(name).values())
        if in_flight < len(self.lane(name)) > MOST:
            self.run(self.stores[0].sweep())
            for other in self.place.all:
                self.evict(self.in_lane(other.prefix))

    @rule(which=WHICH, seconds=st.sampled_from([2 * HOUR, 2 * HOUR, 8 * DAY]))
    def grow_old(self, which: int, seconds: int) -> None:
        name = self.ids[which]
        if name in self.known and not self.known[name].age:
            self.run(age(self.redis, self.place, name, seconds))
            self.known[name].age = seconds
            self.known[name].used -= seconds * 1000

    # no precondition: what is known depends on the server's clock, and equal draws must mean equal steps
    @rule(who=WHO)
    def sweep(self, who: int) -> None:
        self.run(self.stores[who].sweep())
        for lane in self.place.all:
            self.evict(self.in_lane(lane.prefix))

    @invariant()
    def members_and_hashes_are_the_same(self) -> None:
        assert self.run(hashes(self.redis, self.place)) == set(self.known)
        completed = 0
        for lane in self.place.all:
            mine = {i: one for i, one in self.known.items() if self.place.lane(i).prefix == lane.prefix}
            waiting = {
                name.decode() for name in self.run(call(self.redis, "ZRANGE", lane.session_open, 0, -1))
            }
            rest = {name.decode() for name in self.run(call(self.redis, "ZRANGE", lane.session_lru, 0, -1))}
            assert waiting == {i for i, one in mine.items() if one.in_flight}
            assert rest == {i for i, one in mine.items() if not one.in_flight}
            assert len(rest) <= MOST
            completed += self.run(call(self.redis, "XLEN", lane.stream("session.completed")))
        assert completed == self.completions


def _json(deltas: dict[str, int]) -> str:
    return "{" + ",".join(f'"{name}":{change}' for name, change in deltas.items()) + "}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_two_clients_agree_with_the_model(place: Place) -> None:
    kind = type("Here", (Machine,), {"place": place})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            # steps over a network are too slow to shrink: the steps are told as they were
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
