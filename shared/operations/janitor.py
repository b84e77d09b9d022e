"""Trims public streams and archives by age and sessions by their limit, every few seconds."""

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
_DAY: Final = 24 * 3600
_TRIM_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 1.0
_NOTICE_DAYS: Final = 4
"""After three days the notifier gives a notice up. Where none runs, notices must not fill Redis."""
_log = structlog.get_logger(__name__)


async def keep(
    redis: Redis, stage: Stage, lanes: Sequence[Keys], sessions: SessionStore, *, archive_days: int
) -> None:
    """Trim until cancelled. Any process of the agent may; doing it twice does no harm.

    The writer of a public stream trims it, the creator of sessions sweeps them. Each agent trims the archive
    of its dead letters.
    """
    # every agent may write `photo.failed`, so every agent trims it
    public = [name for name in topology.PUBLIC if name == topology.FAILED or name in stage.writes]
    trims = [lane.stream(name) for lane in lanes for name in public]
    queued = [lane.stream(topology.QUEUED) for lane in lanes]
    archives = [lane.archive(stage.agent) for lane in lanes]
    sweeps = topology.INTAKE in stage.reads
    next_trim = 0.0
    while True:
        try:
            if time.monotonic() >= next_trim:
                next_trim = time.monotonic() + _TRIM_SECONDS
                # the server's time: entry ids are made of it
                now = int((await call(redis, "TIME"))[0])
                for stream in trims:
                    await call(redis, "XTRIM", stream, "MINID", "~", (now - PUBLIC_DAYS * _DAY) * 1000)
                for stream in queued:
                    await _trim_notices(redis, stream, (now - _NOTICE_DAYS * _DAY) * 1000)
                for archive in archives:
                    # to the entry: people's data must not stay longer than was promised
                    await call(redis, "XTRIM", archive, "MINID", "=", (now - archive_days * _DAY) * 1000)
            if sweeps:
                await sessions.sweep()
        except (RedisError, OSError) as error:
            _log.debug("not tidied", error=str(error)[:200])
        await asyncio.sleep(_SWEEP_SECONDS)


async def _trim_notices(redis: Redis, stream: str, before_ms: int) -> None:
    """Delete notices that no notifier has taken for days."""
    if trimmed := await call(redis, "XTRIM", stream, "MINID", "~", before_ms):
        _log.error("notices are too old and deleted: does the webhook_notifier run?", notices=trimmed)
