"""Reports the news of a running pipeline: what goes wrong, what is over, and sessions that have completed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import TimeoutError as RedisTimeoutError

from console.conditions import Conditions, Wrong, conditions_here
from console.explain import redis_trouble
from console.places import place_of
from console.troubles import LOOKS, Troubles
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
    """Report each piece of news in a sentence, until cancelled."""
    reported = Reported(redis, lanes=settings.lanes)
    troubles, here, connection = Troubles(), Conditions(), Conditions()
    skipped, lost, back = False, 0, LOOKS
    while True:
        # a network drive may hang
        wrong, unsure, full = await asyncio.to_thread(conditions_here, settings)
        away: dict[str, Wrong] = {}
        news: list[str] = []
        try:
            if not skipped:
                await reported.skip()
                skipped = True
            status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
            back += 1
            # after an absence of Redis the last heartbeats are old, and no process is frozen for that
            news += troubles.news(status) if back > LOOKS else []
            for event in await reported.new():
                news += _completed(event, settings)
            lost = 0
        except RedisError as error:
            # where a disk is full that is the reason, and the supervisor waits until it has room
            lost, back = (0 if full else lost + 1), 0
            # the supervisor reports a Redis that ended, and has started it again by the second look
            if lost > 1 or (lost and isinstance(error, RedisTimeoutError)):
                away["redis"] = Wrong(redis_trouble(error, settings), "Redis answers again, and all goes on")
        for sentence in (*here.news(wrong, unsure), *connection.news(away), *news):
            say(sentence)
        await asyncio.sleep(_LOOK_SECONDS)


def _completed(event: SessionReported, settings: Settings) -> list[str]:
    dead = f", {event.dead} dead (erni dead list --session {event.session_id})" if event.dead else ""
    return [
        f"{event.session_id} is through: {event.validated} validated{dead}",
        f"  report {place_of(settings, event.report_ref)}",
    ]
