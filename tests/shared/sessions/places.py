"""Where sessions live in these tests, and what a test looks at or moves there by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from events import keys
from shared.sessions.store import SessionStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from events.keys import Keys


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An empty Redis, and into how many lanes it is split."""

    url: str
    lanes: int

    def lane(self, session_id: str) -> Keys:
        return keys.lane_of(session_id, self.lanes)

    @property
    def all(self) -> tuple[Keys, ...]:
        return keys.all_lanes(self.lanes)

    def one_lane(self, count: int) -> list[str]:
        """Session ids that all live in one lane."""
        first = self.lane("s0")
        ids = (f"s{number}" for number in range(100 * count))
        return [name for name in ids if self.lane(name).prefix == first.prefix][:count]


async def call(redis: Redis, *words: Any) -> Any:
    """Any command."""
    send: Callable[..., Awaitable[Any]] = redis.execute_command
    return await send(*words)


async def fields(redis: Redis, place: Place, session_id: str) -> dict[str, str]:
    """A session's hash."""
    found = await call(redis, "HGETALL", place.lane(session_id).session(session_id))
    return {name.decode(): value.decode() for name, value in found.items()}


async def members(redis: Redis, place: Place, index: str) -> list[str]:
    """The members of ``session_open`` or ``session_lru``, least recently used first, lane by lane."""
    return [
        name.decode()
        for lane in place.all
        for name in await call(redis, "ZRANGE", getattr(lane, index), 0, -1)
    ]


async def hashes(redis: Redis, place: Place) -> set[str]:
    """The ids of all sessions there is a key of."""
    found: set[str] = set()
    for lane in place.all:
        prefix = lane.session("")
        names = {name.decode() async for name in redis.scan_iter(match=prefix + "*", count=1000)}
        names -= {lane.session_open, lane.session_lru, lane.session_stats}
        found |= {name.removeprefix(prefix) for name in names if not name.endswith((":photos", ":first"))}
    return found


async def age(redis: Redis, place: Place, session_id: str, seconds: float) -> None:
    """Let the last access of a session have been so many seconds before it was."""
    lane = place.lane(session_id)
    key = lane.session(session_id)
    last = int(await call(redis, "HGET", key, "last_accessed")) - int(seconds * 1000)
    await call(redis, "HSET", key, "last_accessed", last)
    for index in (lane.session_open, lane.session_lru):
        await call(redis, "ZADD", index, "XX", last, session_id)


def store_at(redis: Redis, place: Place, **options: Any) -> SessionStore:
    """A store of its own over a client."""
    return SessionStore(redis, lanes=place.lanes, **options)
