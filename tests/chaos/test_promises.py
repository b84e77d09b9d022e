"""The promises one by one: each a small scene with real processes, and the whole checker at its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from events import topology
from events.publisher import Publisher, PublishRefusedError
from events.types import PhotoSubmitted
from shared.operations.dead_letters import DeadFilter, DeadLetters
from tests.chaos import checker
from tests.chaos.evidence import Line
from tests.chaos.light_agents import DIED
from tests.chaos.run import Plan, World, begun, drained, finish, nemesis_of, watched, world
from tests.chaos.server import Server
from tests.chaos.submitter import Mix, Photo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.chaos.herd import Process
    from tests.chaos.nemesis import Nemesis

pytestmark = [pytest.mark.chaos, pytest.mark.needs("gcc"), pytest.mark.timeout(300)]

GOOD = Mix(die=0, refuse=0, nonsense=0, without_session=0, given_up=0, repeated=0)
FIRST, LAST = topology.AGENTS[0], topology.AGENTS[-1]
AWAY_SECONDS: Final = float(os.environ.get("CHAOS_AWAY_SECONDS", "6"))
"""How long Redis is away in the test of that; the promise speaks of minutes."""
_LINE = msgspec.json.Decoder(Line)


class Scene:
    """A world whose nemesis does nothing of its own."""

    def __init__(self, here: World, nemesis: Nemesis) -> None:
        self.here = here
        self.nemesis = nemesis
        assert isinstance(here.server, Server)
        self.server, self.herd, self.submitter = here.server, here.herd, here.submitter
        self._number = 0

    async def publish(self, count: int, **of: Any) -> list[Photo]:
        """Photos without session, one after the other."""
        photos = []
        for _ in range(count):
            self._number += 1
            name = f"{self.here.plan.seed}-{self._number}"
            photo = Photo(
                number=self._number,
                event_id=f"e-{name}",
                photo_id=f"p-{name}",
                session_id=None,
                trace_id=f"{self._number:032x}",
                **of,
            )
            await self.submitter.publish_one(photo)
            photos.append(photo)
        return photos

    async def validated(self) -> int:
        """How many photos have come through."""
        return int(await self.server.admin.xlen(f"erni:{topology.VALIDATED}"))

    async def owner(self, agent: str) -> Process:
        """The process that has an entry of that agent's stream in hand, when there is one."""
        stream = f"erni:{topology.stage_of(agent).reads[0]}"

        async def look() -> Process | None:
            if not await self.server.admin.exists(stream):
                return None
            for consumer in await self.server.admin.xinfo_consumers(stream, agent):
                if consumer["pending"]:
                    name = consumer["name"].decode()
                    return next(p for p in self.herd.slots if f"-{p.pid}-" in name)
            return None

        found: Process = await until(look)
        return found

    async def finish(self) -> tuple[checker.Verdict, Any]:
        """Drain and look; everything must be green."""
        evidence = await finish(self.here, self.nemesis)
        verdict = checker.check(evidence)
        problems = [f"{c.name}: {problem}" for c in verdict.checks for problem in c.problems[:3]]
        assert verdict.green, problems
        return verdict, evidence


@asynccontextmanager
async def scene(*, start: bool = True, **changes: Any) -> AsyncIterator[Scene]:
    """Everything up, nothing going wrong."""
    plan = Plan(seed=21, duration=0.0, lease=2.0, mix=GOOD, strikes=False, early=0)
    async with (
        world(msgspec.structs.replace(plan, **changes)) as here,
        watched(nemesis_of(here)) as nemesis,
    ):
        if start:
            here.herd.start_agents()
            await begun(here)
        yield Scene(here, nemesis)


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
    """Ask again and again until the answer is true; gives it."""
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 - another process's doing has no event here
            await asyncio.sleep(0.02)
    return found


def logged(process: Process, event: str) -> bool:
    """Whether a process's log holds that event."""
    lines = process.log.read_bytes().splitlines() if process.log.exists() else []
    return any(_LINE.decode(line).event == event for line in lines if line.startswith(b"{"))


async def test_a_photo_that_kills_its_process_dies_alone_and_nine_innocents_validate() -> None:
    async with scene(start=False, concurrency=10, per_agent=2) as s:
        await s.publish(5)
        [killer] = await s.publish(1, way="die", agent=0)
        await s.publish(4)
        s.herd.start_agents()
        verdict, evidence = await s.finish()
        assert verdict.figures.validated == 9
        assert verdict.figures.dead == {"delivery_limit": 1}
        assert evidence.buried[0].letter.photo_id == killer.photo_id
        assert sum(process.code == DIED for process in evidence.herd) == 5
        # they were in its hands when it died, and yet none of them was suspected for long
        assert max(step.deliveries for entry in evidence.validated for step in entry.steps) >= 2


async def test_a_woken_zombie_finds_its_work_done_and_says_fenced() -> None:
    async with scene() as s:
        s.here.effects.held = True
        await s.publish(1)

        async def has_called() -> bool:
            return sum(s.here.effects.tried.values()) == 1

        await until(has_called)
        zombie = await s.owner(FIRST)
        zombie.send(signal.SIGSTOP)
        s.here.effects.held = False

        async def is_validated() -> bool:
            return await s.validated() == 1

        await until(is_validated)
        zombie.send(signal.SIGCONT)

        async def says_fenced() -> bool:
            return logged(zombie, "fenced")

        await until(says_fenced)
        verdict, evidence = await s.finish()
        assert verdict.figures.fenced >= 1
        assert [count for key, count in evidence.tried.items() if key[0] == FIRST] == [2]
        assert [key for key in evidence.effects if key[0] == FIRST] == [(FIRST, "p-21-1", "0")]


async def test_redis_away_costs_no_cpu_and_work_resumes_at_once() -> None:
    async with scene(ahead=100) as s:
        publishing = asyncio.create_task(s.submitter.run())

        async def under_load() -> bool:
            return await s.validated() > 50

        await until(under_load)
        s.server.kill()
        await asyncio.sleep(1.0)
        before = {process.pid: process.cpu_seconds() for process in s.herd.slots}
        begun_at = time.monotonic()
        await asyncio.sleep(AWAY_SECONDS - 1.0)
        seconds = time.monotonic() - begun_at
        used = {process.pid: process.cpu_seconds() - before[process.pid] for process in s.herd.slots}
        assert all(process.alive for process in s.herd.slots)
        assert max(used.values()) / seconds < 0.05, used
        await s.server.start()
        back = time.monotonic()
        came = await s.validated()

        async def goes_on() -> bool:
            return await s.validated() > came

        await until(goes_on)
        resumed = time.monotonic() - back
        assert resumed < 2.0 + 3 * s.nemesis.longest_lag, f"work resumed after {resumed:.1f} s"
        await asyncio.sleep(s.here.plan.lease + 1.0)
        s.submitter.stop()
        await publishing
        verdict, _ = await s.finish()
        assert verdict.figures.took_over == 0
        assert verdict.figures.processes == len(s.herd.slots)


async def test_at_the_memory_limit_beats_and_settling_go_on_and_publishing_is_refused() -> None:
    async with scene() as s:
        s.here.effects.slowness = 0.3
        await s.publish(60)
        await s.server.squeeze()
        publisher = Publisher(s.server.admin)
        with pytest.raises(PublishRefusedError, match="memory limit") as refused:
            await publisher.publish(PhotoSubmitted(source_url="https://bau.invalid/ok/0/refused.jpg"))
        assert refused.value.retry_after > 0
        beats = await s.server.admin.hgetall(f"erni:beats:{LAST}")
        assert await drained(s.here) == []
        assert await s.validated() == 60
        later = await s.server.admin.hgetall(f"erni:beats:{LAST}")
        assert later.keys() == beats.keys()
        assert all(int(later[name]) > int(beats[name]) for name in beats)
        await s.server.release()
        verdict, _ = await s.finish()
        assert verdict.figures.took_over == 0


async def test_a_rolling_restart_under_load_loses_nothing_and_burns_no_attempt() -> None:
    async with scene(ahead=100) as s:
        publishing = asyncio.create_task(s.submitter.run())
        for place in range(len(s.herd.slots)):
            old = s.herd.slots[place]
            seen = await s.validated()

            async def moves(seen: int = seen) -> bool:
                return await s.validated() > seen

            await until(moves)
            old.send(signal.SIGTERM)

            async def replaced(place: int = place, old: Process = old) -> bool:
                new = s.herd.slots[place]
                return old.ended is not None and new is not old and logged(new, "agent reads")

            await until(replaced)
            assert old.code == 0
        s.submitter.stop()
        await publishing
        verdict, evidence = await s.finish()
        assert verdict.figures.dead == {}
        assert verdict.figures.took_over == 0
        steps = [step for entry in evidence.validated for step in entry.steps]
        assert {(step.attempts, step.deliveries) for step in steps} == {(1, 1)}


@pytest.mark.parametrize(("calls", "least"), [("1,1,1,1,1", 0.998), ("1,1,1,4,2", 0.98)])
async def test_with_six_percent_transient_faults_nearly_all_validate_without_a_human(
    calls: str, least: float
) -> None:
    """First in 6 % of the agents' attempts, then in 6 % of all calls.

    The numbers of calls are a little above those of the real agents (about 0, 1, 1, 3 and 1 per photo).
    """
    async with scene(
        seed=3, calls=calls, fixed_share=0.06, concurrency=64, slowness=0.005, ahead=10_000
    ) as s:
        await s.submitter.run(1000)
        assert await drained(s.here) == []
        came = await s.validated()
        assert came >= least * len(s.submitter.photos)
        assert came < len(s.submitter.photos) or calls.startswith("1,1,1,1")
        letters = DeadLetters(s.server.admin, session_ttl=7 * 24 * 3600)
        found = [letter async for letter in letters.find(DeadFilter(reason="exhausted"))]
        replayed = [(await letters.replay(letter)).outcome for letter in found]
        assert set(replayed) <= {"replayed"}
        verdict, _ = await s.finish()
        assert verdict.figures.validated == len(s.submitter.photos)
