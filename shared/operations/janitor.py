"""Trims public streams by age and sessions by their limit, every few seconds."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from events import topology
from events.connection import RedisError, call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from events.topology import Stage
    from shared.sessions.store import SessionStore

PUBLIC_DAYS: Final = 7
"""How long entries stay in a public stream, whose readers are not ours to know."""
_TRIM_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


async def keep(redis: Redis, stage: Stage, lanes: Sequence[Keys], sessions: SessionStore) -> None:
    """Trim until cancelled. Any process of the agent may; doing it twice does no harm.

    The writer of a public stream trims it, the creator of sessions sweeps them.
    """
    # every agent may write `photo.failed`, so every agent trims it
    public = [name for name in topology.PUBLIC if name == topology.FAILED or name in stage.writes]
    trims = [lane.stream(name) for lane in lanes for name in public]
    sweeps = topology.INTAKE in stage.reads
    if not trims and not sweeps:
        return
    next_trim = 0.0
    while True:
        try:
            if trims and time.monotonic() >= next_trim:
                next_trim = time.monotonic() + _TRIM_SECONDS
                # the server's time: entry ids are made of it
                oldest = (await call(redis, "TIME"))[0] - PUBLIC_DAYS * 24 * 3600
                for stream in trims:
                    await call(redis, "XTRIM", stream, "MINID", "~", int(oldest) * 1000)
            if sweeps:
                await sessions.sweep()
        except (RedisError, OSError) as error:
            _log.debug("not tidied", error=str(error)[:200])
        await asyncio.sleep(_SWEEP_SECONDS)
