"""Keeps sessions in Redis: one round trip per operation; one script removes a hash and its index members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgpack
import msgspec
import structlog

from events import keys, scripts
from events.identities import SessionId
from events.publisher import SESSION_TTL_IN_FLIGHT
from shared.sessions.record import Session, read_session
from shared.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys

_TOUCH = scripts.load("shared.sessions", "touch", "session")
_SEVERAL = scripts.load("shared.sessions", "several", "session")
_PUT = scripts.load("shared.sessions", "put", "session")
_CANDIDATES = scripts.load("shared.sessions", "candidates")
_EVICT = scripts.load("shared.sessions", "evict", "session")
_FORGET = scripts.load("shared.sessions", "forget", "session")
_AT_ONCE: Final = 64
"""Sessions of a kind looked at by one call of the eviction script: others are served between two calls."""
_PAGE: Final = 250
"""Sessions that one call reads: others are served between two calls."""
_LONG_MS: Final = SESSION_TTL_IN_FLIGHT * 1000
_log = structlog.get_logger(__name__)


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Count the sessions of all processes: those that exist, and what became of all others."""

    in_flight: int
    """With photos in flight: never evicted."""
    rest: int
    created: int = 0
    evicted: int = 0
    expired: int = 0
    hits: int = 0
    misses: int = 0
    corrupt: int = 0


class SharedSessions:
    """Read and write the sessions of all lanes. Raises what redis-py raises when Redis is away."""

    def __init__(self, redis: Redis, *, lanes: int, limit: int, ttl: float) -> None:
        """Split `limit` sessions over the lanes; a finished one is remembered for `ttl` seconds."""
        self._redis = redis
        self._lanes = lanes
        self._limit = max(1, limit // lanes)
        self._ttl_ms = int(ttl * 1000)
        self._walked: dict[int | None, int] = {}
        """Per lane: sessions past `ttl` that the sweep has seen, which wait with dead letters."""

    async def ping(self) -> None:
        """Return when Redis has answered."""
        call: Callable[..., Awaitable[Any]] = self._redis.execute_command
        await call("PING")

    async def get(self, session_id: SessionId, *, touch: bool) -> Session | None:
        """Return the session; note an access unless `touch` is False. One round trip."""
        names, args = self._call(session_id)
        flat, outcome = await _TOUCH(self._redis, names, [*args, "1" if touch else "0"])
        session = self._read(session_id, flat, outcome)
        if touch:
            metrics.SESSION_LOOKUPS.labels("hit" if session else "miss").inc()
        return session

    async def put(
        self,
        session_id: SessionId,
        *,
        expected: int = 0,
        site: str = "",
        library: str = "",
        created_at: float = 0.0,
        last_accessed: float = 0.0,
        accesses: int = 0,
    ) -> Session | None:
        """Create or update a session; return it as it is now.

        `created_at`, `last_accessed` (Unix seconds) and `accesses` merge what was written elsewhere
        meanwhile. Takes one round trip, and more only if it evicts other sessions.
        """
        names, args = self._call(session_id)
        fields: list[str | int] = []
        for name, value in (("site", site), ("library", library), ("expected", expected)):
            if value:
                fields += (name, value)
        outcome, before, flat, in_flight, rest = await _PUT(
            self._redis,
            names,
            [*args, int(created_at * 1000), int(last_accessed * 1000), accesses, *fields],
        )
        session = self._read(session_id, flat, before)
        if outcome == b"created":
            metrics.SESSION_CREATED.inc()
        if self.crowded(in_flight, rest):
            await self.evict(keys.lane_of(session_id, self._lanes))
        return session

    async def delete(self, session_id: SessionId, *, unless_used_after: float = 0.0) -> bool:
        """Forget a session; return False if there was none, or if it was used after a time.

        `unless_used_after`: Unix seconds; 0 forgets it in any case.
        """
        names, _ = self._call(session_id)
        return bool(await _FORGET(self._redis, names[:4], [session_id, int(unless_used_after * 1000)]))

    def crowded(self, in_flight: int, rest: int) -> bool:
        """Return whether a lane with these numbers of sessions has some to evict."""
        return rest > 0 and in_flight + rest > self._limit

    async def evict(self, lane: Keys) -> int:
        """Evict the least recently used sessions above the limit and remove those past their time.

        Returns how many it removed. Sessions with photos in flight are never evicted.
        """
        gone = 0
        while True:
            walked = self._walked.get(lane.lane, 0)
            _, _, many, late, stuck = await _CANDIDATES(
                self._redis,
                [lane.session_open, lane.session_lru],
                [self._limit, self._ttl_ms, _LONG_MS, _AT_ONCE, walked],
            )
            removed = await self._remove(lane, [*many, *late, *stuck])
            gone += removed
            # A session that stays past `ttl` has dead letters waiting. The next sweep looks behind it, so
            # that it never hides what is due; at the end it begins again.
            stayed = max(0, len(late) // 2 - removed)
            self._walked[lane.lane] = walked + stayed if len(late) == 2 * _AT_ONCE else 0
            if not removed:
                return gone

    async def _remove(self, lane: Keys, candidates: Sequence[bytes]) -> int:
        if not candidates:
            return 0
        names = [lane.session_open, lane.session_lru, lane.session_stats]
        args: list[str | bytes | int | float] = [self._limit, self._ttl_ms, _LONG_MS, *candidates]
        for raw in candidates[::2]:
            session_id = raw.decode("utf-8", "replace")
            names += (lane.session(session_id), lane.session_photos(session_id))
        evicted, expired = await _EVICT(self._redis, names, args)
        metrics.SESSION_EVICTIONS.inc(evicted)
        metrics.SESSION_EXPIRED.inc(expired)
        return int(evicted + expired)

    async def sweep(self) -> int:
        """Evict and expire sessions in all lanes; return how many it removed."""
        return sum([await self.evict(lane) for lane in keys.all_lanes(self._lanes)])

    async def page(self, cursor: str, count: int) -> tuple[str, list[Session]]:
        """Return a page of sessions, lane by lane, those with photos in flight first, then by last use.

        `cursor` is '' at first, and '' again after the last. A session that nobody uses meanwhile is
        returned exactly once. Raises ValueError for an invalid cursor.
        """
        lanes = keys.all_lanes(self._lanes)
        place, index, score, skip = _place(cursor, len(lanes))
        found: list[Session] = []
        call: Callable[..., Awaitable[Any]] = self._redis.execute_command
        while place < len(lanes) and len(found) < count:
            lane = lanes[place]
            wanted = count - len(found)
            flat = await call(
                "ZRANGE", (lane.session_open, lane.session_lru)[index], score, "-inf", "BYSCORE", "REV",
                "LIMIT", skip, wanted, "WITHSCORES",
            )  # fmt: skip
            found += await self._all(raw.decode("utf-8", "replace") for raw in flat[::2])
            if len(flat) == 2 * wanted:
                scores = [raw.decode() for raw in flat[1::2]]
                same = scores.count(scores[-1])
                skip = skip + same if scores[-1] == score else same
                score = scores[-1]
            else:
                index, score, skip = index + 1, "+inf", 0
                if index == 2:
                    place, index = place + 1, 0
        return (f"{place}:{index}:{score}:{skip}" if place < len(lanes) else ""), found

    async def newest(self, limit: int) -> list[Session]:
        """Return the `limit` sessions of all lanes that were used last."""
        scored: list[tuple[float, str]] = []
        call: Callable[..., Awaitable[Any]] = self._redis.execute_command
        for lane in keys.all_lanes(self._lanes):
            for index in (lane.session_open, lane.session_lru):
                flat = await call("ZRANGE", index, 0, limit - 1, "REV", "WITHSCORES")
                scored += [(float(s), raw.decode("utf-8", "replace")) for raw, s in _pairs(flat)]
        scored.sort(key=lambda one: -one[0])
        return await self._all(session_id for _, session_id in scored[:limit])

    async def count(self) -> Count:
        """Count the sessions there are and were."""
        totals = dict.fromkeys(Count.__struct_fields__, 0)
        call: Callable[..., Awaitable[Any]] = self._redis.execute_command
        for lane in keys.all_lanes(self._lanes):
            totals["in_flight"] += await call("ZCARD", lane.session_open)
            totals["rest"] += await call("ZCARD", lane.session_lru)
            fields: dict[bytes, bytes] = await call("HGETALL", lane.session_stats)
            for name, value in fields.items():
                if name.decode("utf-8", "replace") in totals and value.isdigit():
                    totals[name.decode()] += int(value)
        count = Count(**totals)
        metrics.SESSIONS.set(count.in_flight + count.rest)
        metrics.SESSIONS_OPEN.set(count.in_flight)
        metrics.SESSIONS_OVER_LIMIT.set(max(0, count.in_flight - self._limit * self._lanes))
        return count

    async def _all(self, session_ids: Iterable[str]) -> list[Session]:
        """Read the sessions of some ids, a page for each round trip; ids without a session are left out."""
        ids = list(session_ids)
        found: dict[str, Session | None] = {}
        for lane in keys.all_lanes(self._lanes):
            here = [name for name in ids if keys.lane_of(name, self._lanes).lane == lane.lane]
            for start in range(0, len(here), _PAGE):
                found |= await self._several(lane, here[start : start + _PAGE])
        return [session for name in ids if (session := found.get(name)) is not None]

    async def _several(self, lane: Keys, ids: Sequence[str]) -> dict[str, Session | None]:
        names = [lane.session_open, lane.session_lru, lane.session_stats]
        for session_id in ids:
            names += (lane.session(session_id), lane.session_photos(session_id))
        packed = await _SEVERAL(self._redis, names, [self._ttl_ms, _LONG_MS, *ids])
        # raw: a foreign value need not be UTF-8
        replies: list[tuple[list[bytes], bytes]] = msgpack.unpackb(packed, raw=True)
        return {
            session_id: self._read(SessionId(session_id), flat, state)
            for session_id, (flat, state) in zip(ids, replies, strict=True)
        }

    def _call(self, session_id: str) -> tuple[list[str], list[str | int]]:
        """Return keys and first arguments for the scripts of one session."""
        lane = keys.lane_of(session_id, self._lanes)
        names = [
            lane.session(session_id),
            lane.session_photos(session_id),
            lane.session_open,
            lane.session_lru,
            lane.session_stats,
        ]
        return names, [session_id, self._ttl_ms, _LONG_MS]

    def _read(self, session_id: SessionId, flat: list[bytes], state: bytes) -> Session | None:
        """Read the session of a script's reply; `state` is what the script found at its key."""
        session = read_session(dict(_pairs(flat)), session_id) if flat else None
        if state == b"expired":
            metrics.SESSION_EXPIRED.inc()
        if state == b"corrupt" or (flat and session is None):
            metrics.SESSION_ERRORS.labels("corrupt").inc()
            _log.warning(
                "what stands in a session's place is none, it counts as absent", session_id=session_id
            )
        return session


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _place(cursor: str, lanes: int) -> tuple[int, int, str, int]:
    """Read lane, index, score and how many of that score were returned from a cursor. Raises ValueError."""
    try:
        place, index, score, skip = (cursor or "0:0:+inf:0").split(":")
        float(score)
        at = (int(place), int(index), score, int(skip))
    except ValueError:
        at = (-1, 0, "", 0)
    if not (0 <= at[0] < lanes and at[1] in (0, 1) and at[3] >= 0):
        raise ValueError(f"{cursor[:80]!r} is no cursor: take '' or the one that came with the last page")
    return at
