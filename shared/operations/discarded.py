"""Counts the discarded photos of a session, again only after the archive has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from events import keys, topology
from shared.operations.dead_letters import DeadFilter

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.operations.dead_letters import DeadLetters

MOST: Final = 1000
"""Letters that are counted at most: an open page asks again whenever one is discarded."""
_KEPT: Final = 200
"""Sessions whose counts are remembered."""

_Version: TypeAlias = "list[tuple[bytes, int]]"


class Discarded:
    """Remembers what it counted. Raises what redis-py raises when Redis is away."""

    def __init__(self, redis: Redis, letters: DeadLetters, *, lanes: int) -> None:
        """`letters`: with an index, so that not all of the archive is read."""
        self._redis = redis
        self._letters = letters
        self._lanes = lanes
        self._counted: dict[str, tuple[_Version, int]] = {}

    async def of(self, session_id: str) -> int:
        """Return how many letters of a session's photos are in the archive, `MOST` at most.

        Those that were edited and replayed do not count: their photos went on.
        """
        version = await self._version(keys.lane_of(session_id, self._lanes))
        known, count = self._counted.pop(session_id, ([], 0))
        if known != version:
            count = 0
            async for letter in self._letters.find(DeadFilter(session=session_id, limit=MOST), archived=True):
                count += not letter.edited_as and letter.stream != topology.COMPLETED
        self._counted[session_id] = (version, count)
        if len(self._counted) > _KEPT:
            # the one that was asked for longest ago
            del self._counted[next(iter(self._counted))]
        return count

    async def _version(self, lane: keys.Keys) -> _Version:
        """Return what changes with the archive of a lane: the newest letters, and how many there are."""
        found = []
        async with self._redis.pipeline(transaction=False) as pipe:
            for agent in topology.CONSUMERS:
                pipe.execute_command("XREVRANGE", lane.archive(agent), "+", "-", "COUNT", 1)
                pipe.execute_command("XLEN", lane.archive(agent))
            replies = await pipe.execute()
        for newest, length in zip(replies[::2], replies[1::2], strict=True):
            found.append((newest[0][0] if newest else b"", length))
        return found
