"""The five agents over one Redis in this process, doing to each photo what a test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from events import codec, topology
from events.connection import connect
from shared.delivery.process import AgentProcess
from shared.operations import background
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.retry import policy
from tests.chaos.light_agents import LIGHT
from tests.shared.delivery.harness import settings_for, until
from tests.shared.sessions.places import Place, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from shared.operations.dead_letters import Replayed

    Do = Callable[[str, str], None]
    """What to do for an agent and a photo's address: return, or raise."""


class Chain:
    """What runs, and how to look at it."""

    def __init__(self, redis: Redis, place: Place) -> None:
        self.redis = redis
        self.place = place
        self.waiting = [
            stream for stage in topology.PIPELINE for stream in stage.streams
        ]  # fmt: skip

    async def drained(self) -> bool:
        """Whether nothing is under way; what is postponed comes back at once."""
        left = 0
        for lane in self.place.all:
            for agent in topology.AGENTS:
                for member in await call(self.redis, "ZRANGE", lane.delayed(agent), 0, -1):
                    await call(self.redis, "ZADD", lane.delayed(agent), "XX", 1, member)
                    left += 1
            for stream in self.waiting:
                left += await call(self.redis, "XLEN", lane.stream(stream))
        return left == 0

    async def drain(self) -> None:
        await until(self.drained)

    async def replay(self) -> list[Replayed]:
        """Replay every dead letter, each by two operators at once."""
        letters = DeadLetters(self.redis, lanes=self.place.lanes)
        found = [letter async for letter in letters.find(DeadFilter())]
        tried = await asyncio.gather(*(letters.replay(letter) for letter in found * 2))
        return [one for one in tried if one.outcome == "replayed"]

    async def ends(self, session_id: str) -> Counter[str]:
        """Where its photos ended, counted from the streams."""
        lane, found = self.place.lane(session_id), Counter[str]()
        for _, flat in await call(self.redis, "XRANGE", lane.stream(topology.VALIDATED), "-", "+"):
            if flat[flat.index(b"sessionid") + 1].decode() == session_id:
                found["validated"] += 1
        for agent in topology.AGENTS:
            for _, flat in await call(self.redis, "XRANGE", lane.dead(agent), "-", "+"):
                pairs = dict(zip(flat[::2], flat[1::2], strict=True))
                if pairs.get(b"session", pairs.get(b"session_id")) == session_id.encode():
                    found["dead"] += 1
        return found

    async def reports(self, session_id: str) -> list[Any]:
        """What was written when it completed, as `session.reported` carries it on."""
        lane = self.place.lane(session_id)
        found = await call(self.redis, "XRANGE", lane.stream("session.reported"), "-", "+")
        events: list[Any] = [codec.decode("session.reported", "1-0", flat).event for _, flat in found]
        return [event for event in events if event.session_id == session_id]


@asynccontextmanager
async def chain(place: Place, do: Do, **changes: Any) -> AsyncIterator[Chain]:
    """Run all agents; nobody waits before an attempt."""
    settings = settings_for(place.url, lanes=place.lanes, **changes)
    redis = connect(place.url)
    processes = [
        AgentProcess(_obeying(name, do)(settings, redis), settings, background=background.run)
        for name in LIGHT
    ]
    tasks = [asyncio.create_task(process.run(serve=False)) for process in processes]
    with policy.without_waiting():
        await asyncio.gather(*(process.ready.wait() for process in processes))
        try:
            yield Chain(redis, place)
        finally:
            for process in processes:
                process.stop()
            await asyncio.gather(*tasks)
            await redis.aclose()


def _obeying(name: str, do: Do) -> Any:
    async def effect(_self: Any, _whom: str, source_url: str) -> None:
        do(name, source_url)

    async def nothing(_self: Any) -> None:
        """No outside to connect to."""

    return type(name, (LIGHT[name],), {"effect": effect, "open": nothing, "close": nothing})
