"""Holds one lane as a process sees it: its keys, its connections, and whether Redis answers."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog

from events.connection import Trouble, trouble_of
from shared.telemetry.metrics import REDIS_AWAY_SECONDS, REDIS_ERRORS

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.sessions.shared_store import SharedSessions

FIRST_WAIT = 0.1
LONGEST_WAIT = 1.5
"""Seconds between two attempts to reach Redis while it is away, with full jitter. So work resumes within 2 s
of its return, and an attempt a second costs no CPU worth naming."""
_PASSING = frozenset(
    {
        Trouble.AWAY,
        Trouble.LOADING,
        Trouble.READ_ONLY,
        Trouble.OUT_OF_MEMORY,
        Trouble.NO_PERMISSION,
        Trouble.NO_PRIMARY,
    }
)

_log = structlog.get_logger(__name__)


class Lane:
    """Use one connection for reads and another for everything else: a settle never queues behind a read.

    A call that finds Redis away reports it here and waits; the heartbeat tries until Redis answers. That
    order (heartbeat, then settle, then watch) is what keeps the living from being declared dead.
    """

    def __init__(self, keys: Keys, *, reading: Redis, writing: Redis, sessions: SharedSessions) -> None:
        self.keys = keys
        self.reading = reading
        self.writing = writing
        self.sessions = sessions
        """Makes room where settlements brought more sessions than there may be."""
        self.away_since: float | None = None
        """Monotonic time since when Redis does not answer."""
        self.trouble: Trouble | None = None
        self._here = asyncio.Event()
        self._here.set()
        self.missed = asyncio.Event()
        """Set when a call found Redis away: the heartbeat does not wait for its next second."""

    async def trouble_with(self, error: Exception, doing: str) -> None:
        """Wait until Redis is back. Raises the error again if waiting cannot help."""
        trouble = trouble_of(error)
        if trouble not in _PASSING:
            raise error
        await self.gone(trouble, error, doing)
        await self._here.wait()

    async def gone(self, trouble: Trouble, error: Exception, doing: str) -> None:
        """Note that Redis is away; one log line for each outage."""
        REDIS_ERRORS.labels(trouble.value).inc()
        if self.away_since is None:
            self.away_since = time.monotonic()
            self.trouble = trouble
            _log.warning("redis is away", trouble=trouble.value, doing=doing, error=str(error)[:300])
        self._here.clear()
        self.missed.set()
        if trouble is Trouble.READ_ONLY:
            # the master moved: connections that are still open lead to the old one
            await self.writing.connection_pool.disconnect()
            await self.reading.connection_pool.disconnect()

    def back(self) -> None:
        """Note that Redis answered a heartbeat."""
        if self.away_since is not None:
            seconds = time.monotonic() - self.away_since
            REDIS_AWAY_SECONDS.inc(seconds)
            _log.info("redis is back", seconds=round(seconds, 3))
        self.away_since = None
        self.trouble = None
        self._here.set()

    async def wait_here(self) -> None:
        """Return when Redis answers."""
        await self._here.wait()


class ReconnectBackoff:
    """Compute exponential waits with full jitter, up to `LONGEST_WAIT`."""

    def __init__(self) -> None:
        self._bound = FIRST_WAIT

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        wait = random.uniform(0, self._bound)  # noqa: S311 - jitter, not a secret
        self._bound = min(self._bound * 2, LONGEST_WAIT)
        return max(wait, 0.02)
