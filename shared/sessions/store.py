"""Offers the session store everybody uses: Redis, and this process's memory while Redis is away."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from events import identities
from events.connection import RedisError, Trouble, connect, trouble_of
from events.publisher import InvalidEventError, Publisher
from shared.sessions.process_store import MemorySessions
from shared.sessions.shared_store import Count, SharedSessions
from shared.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from events.identities import SessionId
    from shared.sessions.record import Session
    from shared.settings import Settings

T = TypeVar("T")
ANSWER_SECONDS: Final = 1.0
"""How long an operation waits for Redis before memory answers it."""
_ASK_AGAIN_SECONDS: Final = 1.0
"""How long operations go straight to memory after Redis was found away."""
_AT_ONCE: Final = 8
"""Operations that wait for Redis: when it hangs, the others need not find out one by one."""
_log = structlog.get_logger(__name__)


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """Count sessions and what became of them: those of all processes from Redis, of this one from memory."""

    sessions: int
    open: int
    """With photos in flight, which are never evicted."""
    created: int
    evicted: int
    expired: int
    hits: int
    misses: int
    hit_rate: float
    """Hits over look-ups; 0 before the first."""
    errors: int
    """Operations that found Redis away or a corrupt value."""
    fallback: bool
    """Whether memory stands in for Redis in this process right now."""


class SessionStore:
    """Get, set, touch, delete, close and list sessions, from many tasks at once.

    On a connection error or time-out memory answers the operation, without an exception. When
    Redis is back, what was written meanwhile is merged: the later access wins, access counts add (those of
    an operation whose reply was lost may count twice). Progress counters never exist outside Redis. Ids are
    checked: InvalidIdError. Errors that need a person are raised: a wrong password, a forbidden command.
    """

    def __init__(
        self,
        redis: Redis | None,
        *,
        lanes: int = 1,
        limit: int = 10_000,
        ttl: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use memory alone, without progress, if `redis` is None (SESSION_BACKEND=memory).

        The time-out of `redis` bounds every operation; `clock` (monotonic seconds) says when to ask it again.
        """
        self._redis = redis
        self._shared = SharedSessions(redis, lanes=lanes, limit=limit, ttl=ttl) if redis else None
        self._publisher = Publisher(redis, lanes=lanes, session_ttl=int(ttl)) if redis else None
        self._memory = MemorySessions(limit=limit, ttl=ttl)
        self._clock = clock
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._returning = asyncio.Lock()
        self._away_since: float | None = None
        self._ask_at = 0.0
        self._hits = self._misses = self._errors = 0
        """Answered by memory; operations that found Redis away."""

    @classmethod
    def from_settings(cls, settings: Settings) -> SessionStore:
        """Make the store of SESSION_BACKEND, with a connection of its own; `aclose` closes it."""
        redis = None
        if settings.session_backend == "memory":
            _log.warning("sessions are kept in this process alone: no shared progress, no session.completed")
        else:
            redis = connect(
                settings.redis_url,
                password=str(settings.redis_password),
                client_name="erni:sessions",
                timeout=ANSWER_SECONDS,
            )
        return cls(redis, lanes=settings.lanes, limit=settings.session_max, ttl=settings.session_ttl)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._redis:
            await self._redis.aclose()

    @property
    def fallback(self) -> bool:
        """Return whether memory stands in for Redis right now."""
        return self._away_since is not None

    async def get(self, session_id: str) -> Session | None:
        """Note an access and return the session; None if there is none. One round trip."""
        checked = identities.session_id(session_id)

        def in_memory() -> Session | None:
            session = self._memory.touch(checked)
            metrics.SESSION_LOOKUPS.labels("hit" if session else "miss").inc()
            if session is None:
                self._misses += 1
            else:
                self._hits += 1
            return session

        return await self._ask(
            lambda shared: self._remembered(checked, shared.get(checked, touch=True)), in_memory
        )

    async def peek(self, session_id: str) -> Session | None:
        """Return the session without noting an access."""
        checked = identities.session_id(session_id)
        return await self._ask(
            lambda shared: self._remembered(checked, shared.get(checked, touch=False)),
            lambda: self._memory.peek(checked),
        )

    async def touch(self, session_id: str) -> bool:
        """Note an access; return False if there is no such session. One round trip."""
        return await self.get(session_id) is not None

    async def set(
        self, session_id: str, *, expected: int = 0, site: str = "", library: str = ""
    ) -> Session | None:
        """Create or update a session, and return it; the first `expected` counts."""
        checked = identities.session_id(session_id)
        if expected < 0:
            raise InvalidEventError(f"expected={expected}: give the number of photos in the session, or 0")
        return await self._ask(
            lambda shared: self._remembered(
                checked, shared.put(checked, expected=expected, site=site, library=library)
            ),
            lambda: self._memory.put(checked, expected=expected, site=site, library=library),
        )

    async def close(self, session_id: str, *, expected: int) -> int:
        """Set how many photos were published, in place of an earlier number; complete it if all have ended.

        Returns the `expected` that counts. Raises InvalidEventError for a number below 1. While Redis is
        away the number is merged later, if Redis has none, and the session's next hand-off completes it.
        """
        checked = identities.session_id(session_id)
        if expected < 1:
            raise InvalidEventError(f"expected={expected}: give the number of photos that were published")
        publisher = self._publisher

        async def in_redis(_: SharedSessions) -> int:
            if publisher is None:
                raise RuntimeError("a store with Redis has a publisher")
            return await publisher.close_session(checked, expected=expected)

        return await self._ask(
            in_redis, lambda: self._memory.put(checked, expected=expected, close=True).expected
        )

    async def delete(self, session_id: str) -> bool:
        """Forget a session; return False if there was none."""
        checked = identities.session_id(session_id)

        async def in_redis(shared: SharedSessions) -> bool:
            deleted = await shared.delete(checked)
            self._memory.forget(checked)
            return deleted

        return await self._ask(in_redis, lambda: self._memory.delete(checked))

    async def page(self, cursor: str = "", count: int = 100) -> tuple[str, list[Session]]:
        """Return a page of sessions and the next cursor: '' starts, and '' comes back after the last page.

        Raises ValueError for an invalid cursor. Memory returns all it has in one page.
        """
        return await self._ask(lambda shared: shared.page(cursor, count), lambda: ("", self._memory.all()))

    async def sweep(self) -> int:
        """Expire and evict what is due, and update the metrics; return how many sessions were removed."""
        gone = await self._ask(lambda shared: shared.sweep(), lambda: 0)
        await self.stats()
        return gone

    async def stats(self) -> SessionStats:
        """Return the numbers."""

        def in_memory() -> Count:
            metrics.SESSIONS.set(len(self._memory))
            return Count(
                in_flight=0,
                rest=len(self._memory),
                created=self._memory.created,
                evicted=0 if self._shared else self._memory.evicted,
                expired=0 if self._shared else self._memory.expired,
            )

        count = await self._ask(lambda shared: shared.count(), in_memory)
        hits, misses = count.hits + self._hits, count.misses + self._misses
        return SessionStats(
            sessions=count.in_flight + count.rest,
            open=count.in_flight,
            created=count.created,
            evicted=count.evicted,
            expired=count.expired,
            hits=hits,
            misses=misses,
            hit_rate=round(hits / (hits + misses), 4) if hits + misses else 0.0,
            errors=count.corrupt + self._errors,
            fallback=self.fallback,
        )

    async def _remembered(self, session_id: SessionId, asked: Awaitable[Session | None]) -> Session | None:
        """Remember a session, so that this process can answer for it while Redis is away."""
        session = await asked
        if not self.fallback:
            if session:
                self._memory.remember(session)
            else:
                self._memory.forget(session_id)
        return session

    async def _ask(self, call: Callable[[SharedSessions], Awaitable[T]], instead: Callable[[], T]) -> T:
        """Return the answer of Redis, or of memory while Redis is away."""
        shared = self._shared
        if shared is None or self._resting():
            return instead()
        async with self._room:
            # another operation may have found Redis away while this one waited for its turn
            if self._resting() or (self.fallback and not await self._come_back(shared)):
                return instead()
            try:
                return await call(shared)
            except (RedisError, OSError) as error:
                self._failed(error)
                return instead()

    def _resting(self) -> bool:
        return self.fallback and self._clock() < self._ask_at

    def _failed(self, error: Exception) -> None:
        """Note an error after which memory can answer; raise any other."""
        trouble = trouble_of(error)
        if trouble is Trouble.NOT_SENT and "WRONGTYPE" in str(error):
            metrics.SESSION_ERRORS.labels("corrupt").inc()
            _log.error("a foreign value stands where the sessions' index belongs", error=str(error)[:200])
            self._errors += 1
            return
        if trouble in (Trouble.NOT_SENT, Trouble.NO_PERMISSION):
            raise error
        self._errors += 1
        metrics.SESSION_ERRORS.labels("away").inc()
        self._ask_at = self._clock() + _ASK_AGAIN_SECONDS
        if self._away_since is None:
            self._away_since = self._clock()
            metrics.SESSION_FALLBACK.set(1)
            _log.warning(
                "sessions fall back to memory",
                trouble=(trouble or Trouble.AWAY).value,
                error=str(error)[:200],
            )

    async def _come_back(self, shared: SharedSessions) -> bool:
        """Merge what was written meanwhile, then use Redis again; return False if it is still away."""
        if self._returning.locked():
            # one task merges; the others do not wait
            return False
        async with self._returning:
            if self._away_since is None:
                return True
            try:
                merged = await self._merge(shared)
            except (RedisError, OSError) as error:
                self._failed(error)
                return False
            seconds = self._clock() - self._away_since
            # no await since the last look at what is to be merged: no write can come between
            self._away_since = None
            metrics.SESSION_FALLBACK.set(0)
            _log.info("sessions are back in Redis", merged=merged, seconds=round(seconds, 1))
            return True

    async def _merge(self, shared: SharedSessions) -> int:
        """Merge one by one, so that a failure in the middle leaves the rest for the next try."""
        memory, merged = self._memory, 0
        # proves that Redis answers, also if nothing is to be merged
        await shared.ping()
        while memory.deleted:
            session_id, at = memory.deleted.popitem(last=False)
            try:
                await shared.delete(session_id, unless_used_after=at)
            except (RedisError, OSError):
                memory.deleted[session_id] = at
                raise
        while memory.unmerged:
            session_id, accesses = memory.unmerged.popitem(last=False)
            session = memory.peek(session_id)
            if session is None:
                continue
            try:
                await shared.put(
                    session_id,
                    expected=session.expected,
                    site=session.site,
                    library=session.library,
                    created_at=session.created_at,
                    last_accessed=session.last_accessed,
                    accesses=accesses,
                )
            except (RedisError, OSError):
                # accesses of the meantime add to those in Redis
                memory.unmerged[session_id] = memory.unmerged.get(session_id, 0) + accesses
                raise
            merged += 1
        return merged
