"""Reports what people want to know of a running pipeline: outages, and sessions that have completed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from console.agent_state import outage
from console.places import place_of
from events import codec, keys
from events.connection import RedisError, call
from events.types import SessionReported
from shared.operations.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from events.keys import Keys
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


async def tell(redis: Redis, settings: Settings, say: Callable[[str], None]) -> None:
    """Report each piece of news in a sentence, until cancelled. The supervisor reports a lost Redis."""
    reported = Reported(redis, lanes=settings.lanes)
    down: set[tuple[str, str]] = set()
    skipped = False
    while True:
        try:
            if not skipped:
                await reported.skip()
                skipped = True
            status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
            now = {(a.agent, part): why for a in status.agents for part, why in a.outages.items()}
            for agent, part in sorted(now.keys() - down):
                say(outage(agent, part, now[agent, part]))
            for agent, part in sorted(down - now.keys()):
                say(f"{agent}: {part.partition('/')[2] or part} answers again, and its photos go on")
            down = set(now)
            for event in await reported.new():
                dead = (
                    f", {event.dead} dead (erni dead list --session {event.session_id})" if event.dead else ""
                )
                say(f"{event.session_id} is through: {event.validated} validated{dead}")
                say(f"  report {place_of(settings, event.report_ref)}")
        except RedisError:
            pass
        await asyncio.sleep(_LOOK_SECONDS)
