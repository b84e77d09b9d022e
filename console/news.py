"""Reports what people want to know of a running pipeline: outages, and sessions that have completed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from console.agent_state import outage, slow_part, works_again
from console.places import place_of
from events import codec, keys
from events.connection import RedisError, call
from events.types import SessionReported
from shared.operations.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.operations.status import AgentStatus, PipelineStatus
    from shared.settings import Settings

_REPORTED: Final = "session.reported"
_LOOK_SECONDS: Final = 1.0
_PAGE: Final = 100


class Reported:
    """Reads the session reports that come in, each once."""

    def __init__(self, redis: Redis, *, lanes: int) -> None:
        self._redis = redis
        self._after: dict[Keys, bytes] = dict.fromkeys(keys.all_lanes(lanes), b"0-0")

    async def skip(self) -> None:
        """Skip the reports that are there already."""
        for lane in self._after:
            newest = await self._fetch("XREVRANGE", lane.stream(_REPORTED), "+", "-", "COUNT", 1)
            if newest:
                self._after[lane] = newest[0][0]

    async def new(self) -> list[SessionReported]:
        """Return the reports that came in since the last call."""
        found: list[SessionReported] = []
        for lane, after in self._after.items():
            start = b"(" + after
            for entry_id, flat in await self._fetch(
                "XRANGE", lane.stream(_REPORTED), start, "+", "COUNT", _PAGE
            ):
                self._after[lane] = entry_id
                try:
                    event = codec.decode(_REPORTED, entry_id.decode(), flat).event
                except codec.UndecodableError:
                    continue
                if isinstance(event, SessionReported):
                    found.append(event)
        return found

    async def _fetch(self, *words: str | bytes | int) -> list[Any]:
        page: list[Any] = await call(self._redis, *words)
        return page


class Troubles:
    """Compares each look at the pipeline with those before: which parts fail, are slow, answer again."""

    def __init__(self) -> None:
        self._down: dict[tuple[str, str], dict[str, int]] = {}
        """Agent and part → how many entries each process had done when the part was last seen down."""
        self._slow: set[tuple[str, str]] = set()

    def news(self, status: PipelineStatus) -> list[str]:
        """Return a sentence for each change since the last call."""
        said: list[str] = []
        for agent in status.agents:
            done = {process.consumer: process.says.done for process in agent.processes}
            for part, why in agent.outages.items():
                if (agent.agent, part) not in self._down:
                    said.append(outage(agent.agent, part, why))
                self._down[agent.agent, part] = done
            said += self._over(agent, done)
            said += [
                slow_part(agent.agent, part, calls)
                for part, calls in agent.slow_parts.items()
                if (agent.agent, part) not in self._slow
            ]
        self._slow = {(agent.agent, part) for agent in status.agents for part in agent.slow_parts}
        return said

    def _over(self, agent: AgentStatus, done: dict[str, int]) -> list[str]:
        """Return a sentence for each outage after which an entry went well.

        That no process reports it any more is no proof: the one that did may have ended.
        """
        said: list[str] = []
        for place, before in list(self._down.items()):
            name, part = place
            if name != agent.agent or part in agent.outages:
                continue
            if any(number > before.get(consumer, 0) for consumer, number in done.items()):
                del self._down[place]
                said.append(works_again(name, part))
        return said


async def tell(redis: Redis, settings: Settings, say: Callable[[str], None]) -> None:
    """Report each piece of news in a sentence, until cancelled. The supervisor reports a lost Redis."""
    reported = Reported(redis, lanes=settings.lanes)
    troubles = Troubles()
    skipped = False
    while True:
        try:
            if not skipped:
                await reported.skip()
                skipped = True
            status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
            for sentence in troubles.news(status):
                say(sentence)
            for event in await reported.new():
                dead = (
                    f", {event.dead} dead (erni dead list --session {event.session_id})" if event.dead else ""
                )
                say(f"{event.session_id} is through: {event.validated} validated{dead}")
                say(f"  report {place_of(settings, event.report_ref)}")
        except RedisError:
            pass
        await asyncio.sleep(_LOOK_SECONDS)
