"""A rolling restart to this code: processes of an earlier commit and of this one work on one Redis."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import tarfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from events import topology
from tests.chaos import checker
from tests.chaos.effects import TROUBLE
from tests.chaos.evidence import Line
from tests.chaos.herd import Herd
from tests.chaos.nemesis import Nemesis
from tests.chaos.run import drained, finish, heal
from tests.chaos.schedule import schedule
from tests.chaos.submitter import SESSION, Mix, Photo, Way
from tests.chaos.test_promises import Scene, logged, scene, until
from tests.tools import EARLIER, HISTORY, ROOT, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.chaos.evidence import Evidence
    from tests.chaos.herd import Process

pytestmark = [pytest.mark.chaos, pytest.mark.needs("gcc", HISTORY), pytest.mark.timeout(300)]

GRACE: Final = 0.5
SLOWNESS: Final = 0.1
_LINE = msgspec.json.Decoder(Line)
_PUBLISH: Final = """
import asyncio, json, os, sys
from opentelemetry import trace
from events.connection import connect
from events.publisher import Publisher
from events.types import PhotoSubmitted

async def main():
    redis = connect(os.environ["REDIS_URL"], password=os.environ["REDIS_PASSWORD"], client_name="upstream")
    publisher = Publisher(redis, session_ttl=7 * 24 * 3600)
    for line in sys.stdin:
        photo = json.loads(line)
        context = trace.SpanContext(int(photo.pop("trace_id"), 16), 1, False, trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(context)):
            await publisher.publish(PhotoSubmitted(**photo), event_id=photo["photo_id"])
    await redis.aclose()

asyncio.run(main())
"""
"""An upstream that does what its documentation says, with the publisher of the tree it runs in."""


class Rolling:
    """A scene whose agents are of two trees."""

    def __init__(self, s: Scene, old: Herd) -> None:
        self.s = s
        self.new = s.herd
        self.old = old
        self.photos: dict[str, Photo] = {}
        """Those of the old publisher."""

    async def start(self, herd: Herd, agent: str) -> Process:
        """Start one process more, and wait until it reads."""
        process = herd.add(agent)

        async def reads() -> bool:
            return logged(process, "agent reads")

        await until(reads)
        return process

    async def moved(self) -> None:
        """Wait until photos have come through since now."""
        seen = await self.s.validated()

        async def moves() -> bool:
            return await self.s.validated() > seen + 10

        await until(moves)

    async def pending(self, agent: str, mark: str) -> int:
        """How many entries an agent's consumers with that mark in their name own."""
        count = 0
        for stream in topology.stage_of(agent).streams:
            for consumer in await self.s.server.admin.xinfo_consumers(f"erni:{stream}", agent):
                if mark in consumer["name"].decode():
                    count += consumer["pending"]
        return count

    async def kill_in_the_middle(self, herd: Herd, other: Herd, agent: str) -> None:
        """Kill an agent's only process in a herd while it owns entries; the other tree's takes them over."""
        [victim] = herd.of(agent)
        [heir] = other.of(agent)

        async def caught() -> bool:
            victim.send(signal.SIGSTOP)
            if await self.pending(agent, f"-{victim.pid}-"):
                return True
            victim.send(signal.SIGCONT)
            return False

        await until(caught)
        await herd.retire(victim, signal.SIGKILL)

        async def taken_over() -> bool:
            return any(
                line.event == "took over from a dead process"
                and line.entries
                and f"-{victim.pid}-" in line.consumer
                for line in lines_of(heir)
            )

        await until(taken_over, 20.0)

    async def release(self, herd: Herd, agent: str) -> None:
        """Stop an agent's only process in a herd while its handlers take longer than its grace."""
        [process] = herd.of(agent)
        effects = self.s.here.effects
        effects.slowness = 8 * GRACE
        before = self.tried(agent)

        async def slow_ones_began() -> bool:
            many = self.s.here.plan.concurrency
            slow = self.tried(agent) >= before + 2 * many
            return slow and await self.pending(agent, f"-{process.pid}-") >= many - 2

        await until(slow_ones_began)
        await herd.retire(process)
        effects.slowness = SLOWNESS
        assert process.code == 0
        assert any(line.outcome == "interrupted" for line in lines_of(process))

    def tried(self, agent: str) -> int:
        """How many calls an agent made."""
        return sum(count for key, count in self.s.here.effects.tried.items() if key[0] == agent)

    async def publish_as_before(self, number: int, *, trouble: Way) -> None:
        """Publish a whole session with the old tree's publisher; one of its photos makes trouble."""
        photos = [
            Photo(
                number=number + count,
                event_id=f"p-old-{number + count}",
                photo_id=f"p-old-{number + count}",
                session_id=f"s-old-{number}",
                trace_id=f"{number + count + 1:032x}",
                way=trouble if count == 7 else "ok",
                agent=1,
                state="published",
            )
            for count in range(SESSION)
        ]
        lines = b"\n".join(
            msgspec.json.encode(
                {
                    "source_url": f"https://bau.invalid/{photo.way}/{photo.agent}/{photo.number}.jpg",
                    "photo_id": photo.photo_id,
                    "session_id": photo.session_id,
                    "trace_id": photo.trace_id,
                    "expected": SESSION,
                }
            )
            for photo in photos
        )
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", _PUBLISH],
            input=lines,
            capture_output=True,
            cwd=self.old.tree,
            env=self.old.environment | {"PYTHONPATH": str(self.old.tree)},
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        self.photos |= {photo.photo_id: photo for photo in photos}


def lines_of(process: Process) -> list[Line]:
    """What a process logged so far."""
    return [_LINE.decode(line) for line in process.log.read_bytes().splitlines() if line[:1] == b"{"]


def strange(evidence: Evidence) -> list[str]:
    """Consumers that somebody took over from as from dead processes, and that no process ever was.

    Released entries are no dead process's: both trees must know the consumer they wait with.
    """
    marks = [f"-{process.pid}-" for process in evidence.herd]
    return [
        line.consumer
        for log in evidence.logs
        for line in log.lines
        if line.event == "took over from a dead process" and not any(mark in line.consumer for mark in marks)
    ]


def checked_out(folder: Path) -> Path:
    """Put the code of the earlier commit into a folder."""
    git = require(HISTORY)
    archive = subprocess.run(
        [git, "-C", ROOT, "archive", EARLIER, "consumers", "events", "shared", "tests"],
        capture_output=True,
        check=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    found = subprocess.run(
        [sys.executable, "-c", "import shared.streams, consumers; print(consumers.__file__)"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found.startswith(str(folder)), "the old processes would run other code"
    return folder


@asynccontextmanager
async def rolling(folder: Path, **changes: Any) -> AsyncIterator[Rolling]:
    """Two processes of each agent, all of the earlier commit; those of this one are still to be started."""
    tree = checked_out(folder / "tree")
    logs = folder / "old"
    logs.mkdir()
    async with scene(start=False, **changes) as s:
        old = Herd(logs, s.herd.environment, per_agent=2, mixed=False, tree=tree)
        try:
            await old.start()
            old.start_agents()
            yield Rolling(s, old)
        finally:
            await old.stop(10.0)
            await old.close()


async def test_old_and_new_processes_on_one_redis_lose_nothing_and_hand_everything_on_once(
    tmp_path: Path,
) -> None:
    mix = Mix(die=0, refuse=40, nonsense=100, given_up=0, repeated=50)
    async with rolling(
        tmp_path, lease=1.5, grace=GRACE, slowness=SLOWNESS, mix=mix, ahead=150, stuck_seconds=20.0
    ) as r:
        s, old, new = r.s, r.old, r.new
        new.mixed = False
        publishing = asyncio.create_task(s.submitter.run())
        await r.moved()
        s.here.effects.once_each = True
        # with more of the long waits, which postpone an entry
        s.here.effects.shares = TROUBLE | {"429_long": 0.03}
        # the earlier commit subtracted a report from its session's postponed photos
        s.here.effects.reports_wait = False

        # half of the processes are replaced
        for agent in topology.AGENTS:
            process = old.of(agent)[0]
            await r.start(new, agent)
            await old.retire(process)
            assert process.code == 0
        await asyncio.gather(r.publish_as_before(0, trouble="die"), r.moved())

        # each takes over from the other
        await r.kill_in_the_middle(old, new, "vision_analyzer")
        await r.kill_in_the_middle(new, old, "sharepoint_uploader")

        # each releases entries for the other
        await r.release(old, "schema_extractor")
        await r.start(old, "schema_extractor")
        await r.release(new, "schema_extractor")

        # no old one is left
        for agent in topology.AGENTS:
            for _ in range(2 - len(new.of(agent))):
                await r.start(new, agent)
            for process in old.of(agent):
                await old.retire(process)
                assert process.code == 0
        await r.moved()

        # the way back: old ones beside new ones
        for agent in topology.AGENTS:
            await r.start(old, agent)
            await new.retire(new.of(agent)[0])
        await r.publish_as_before(SESSION, trouble="refuse")
        await r.moved()

        s.submitter.stop()
        await publishing
        s.submitter.photos |= r.photos
        await heal(s.here)
        assert await drained(s.here) == []
        assert await old.stop() == []
        new.all += old.all
        verdict, evidence = await s.finish()
        dead = {buried.letter.reason for buried in evidence.buried}
        assert dead == {"permanent", "delivery_limit", "undecodable"}
        assert verdict.figures.photos > 300
        assert strange(evidence) == []
        assert verdict.figures.came_back > 0


class Mixed:
    """Both trees' processes, as the nemesis sees a herd."""

    def __init__(self, *herds: Herd) -> None:
        self._herds = herds

    @property
    def slots(self) -> list[Process]:
        """The processes that are at work."""
        return [process for herd in self._herds for process in herd.slots]

    @property
    def all(self) -> list[Process]:
        """Every process there ever was."""
        return [process for herd in self._herds for process in herd.all]


async def test_old_and_new_processes_under_faults_lose_nothing_and_no_photo_becomes_a_dead_letter(
    tmp_path: Path,
) -> None:
    mix = Mix(die=0, refuse=0, nonsense=0, given_up=0, repeated=50)
    async with rolling(
        tmp_path, lease=1.5, grace=GRACE, slowness=SLOWNESS, mix=mix, ahead=150, stuck_seconds=20.0
    ) as r:
        here, old, new = r.s.here, r.old, r.new
        new.mixed = False
        publishing = asyncio.create_task(here.submitter.run())
        await r.moved()
        for agent in topology.AGENTS:
            await r.start(new, agent)
            await old.retire(old.of(agent)[0])
        both = Mixed(old, new)
        kinds = ("kills", "zombies", "terms", "redis_kills", "network")
        plan = schedule(15, 20.0, lease=1.5, places=len(both.slots), kinds=kinds, calm=False)
        nemesis = Nemesis(plan, server=here.server, proxy=here.proxy, herd=both, outside=here.effects)
        await nemesis.run()
        here.submitter.stop()
        await heal(here)
        await publishing
        assert await drained(here) == []
        assert await old.stop() == []
        new.all += old.all
        evidence = await finish(here, nemesis)
        verdict = checker.check(evidence)
        assert verdict.green, [f"{c.name}: {problem}" for c in verdict.checks for problem in c.problems[:3]]
        assert (verdict.figures.dead, strange(evidence)) == ({}, [])
        assert verdict.figures.photos > 100
        hit = {process.earlier for process in evidence.herd if process.signals}
        assert hit == {True, False}, "both trees met faults"
        assert {"SIGKILL", "SIGSTOP past the lease", "Redis SIGKILL"} <= verdict.figures.faults.keys()
