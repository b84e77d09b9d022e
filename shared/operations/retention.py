"""What has lain in the photo store for STORE_RETENTION_DAYS goes, unless a photo still needs it.

A content's blobs (original, previews, facts, answers) count from when it was last submitted: each submission
writes its facts again. Reports count from when they were written. Both stay as long as an entry on its way,
postponed or dead refers to them, so a dead letter can be replayed at any time. Everything else stays:
columns, and what is remembered so that a picture is one item however often it comes (``sharepoint/``).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from obstore.exceptions import BaseError as StoreError

from events.connection import RedisError
from shared.operations.in_use import in_use
from shared.photo_store import CONTENT, BlobStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from shared.settings import Settings

CONTENT_FOLDERS: Final = ("originals/", "previews/", "facts/", "vision/")
"""Where a content's blobs lie; each key has its SHA-256 behind the folder."""
_FOLDERS: Final = (*CONTENT_FOLDERS, "reports/")
_TURN: Final = "erni:store:retention"
"""Who set it looks through the store; gone after an hour, and then it is the next one's turn."""
_TURN_SECONDS: Final = 3600
_ASK_SECONDS: Final = 60.0
_USED_SECONDS: Final = 300.0
"""Seconds for which a list of contents in use is trusted: later submissions write their blobs again."""
_log = structlog.get_logger(__name__)


async def keep(redis: Redis, settings: Settings) -> None:
    """Remove what is too old, once an hour whichever process it is, until cancelled."""
    if not settings.store_retention_days:
        return
    store: BlobStore | None = None
    while True:
        try:
            if await redis.set(_TURN, "", nx=True, ex=_TURN_SECONDS):
                store = store or BlobStore(settings.photo_store_url)
                before = datetime.now(UTC) - timedelta(days=settings.store_retention_days)
                removed = await sweep(
                    store, redis, before, lanes=settings.lanes, going_on=lambda: _hold(redis)
                )
                if removed:
                    _log.info("photo store: removed what is too old", **removed)
        except RedisError as error:
            _log.debug("photo store not tidied", error=str(error)[:200])
        except (OSError, StoreError, ValueError) as error:
            _log.warning("photo store not tidied, again in an hour", error=str(error)[:200])
        await asyncio.sleep(_ASK_SECONDS)


async def _hold(redis: Redis) -> None:
    await redis.set(_TURN, "", ex=_TURN_SECONDS)


async def _nothing() -> None:
    """Nobody waits for the turn."""


async def sweep(
    store: BlobStore,
    redis: Redis,
    before: datetime,
    *,
    lanes: int,
    going_on: Callable[[], Awaitable[None]] = _nothing,
) -> Counter[str]:
    """Remove what was last used before that time, one blob after the other; how many, by folder.

    `going_on` is called now and then. One sweep at a time.
    """
    removed = Counter[str]()
    looked, contents, sessions = float("-inf"), set[str](), set[str]()
    await store.clear_marks()
    for folder in _FOLDERS:
        async for key in store.older(folder, before):
            if time.monotonic() - looked > _USED_SECONDS:
                contents, sessions = await in_use(redis, lanes)
                looked = time.monotonic()
                await going_on()
            name = key.removeprefix(folder)
            content = CONTENT.match(name) if folder in CONTENT_FOLDERS else None
            if (content.group() in contents) if content else (name.partition("/")[0] in sessions):
                continue
            # whoever comes from here on has written the content's facts again, or does so before it hands on
            kept_by = (f"facts/{content.group()}.json",) if content else ()
            if await store.expire(key, before, kept_by=kept_by):
                removed[folder.rstrip("/")] += 1
    return removed
