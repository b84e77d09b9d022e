"""Gives each system an id, in Redis and in its photo store, so that commands know which one they talk to.

A system is one Redis and one photo store that belong together. Its agents write the id into both; a command
compares them before it changes something.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from obstore.exceptions import BaseError as StoreError

from events.connection import RedisError, Trouble, call, trouble_of
from shared.photo_store import SCHEME, BlobStore
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings

KEY: Final = "erni:system"
"""Hash: ``id`` of the system, and ``store``, where its agents see the photo store."""
_MARKS: Final = "systems/"
_AGAIN_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


class System(msgspec.Struct, frozen=True, kw_only=True):
    """What the agents of a system wrote about it."""

    id: str
    store: str
    """The store's address as its agents see it: in containers another path may lead to the same folder."""


async def read_system(redis: Redis) -> System | None:
    """Return what is known of the system behind a Redis.

    None where no agent of this version has run yet, or where the caller's role may not look.
    """
    try:
        found = await call(redis, "HMGET", KEY, "id", "store")
    except RedisError as error:
        if trouble_of(error) is Trouble.NO_PERMISSION:
            return None
        raise
    if not found[0]:
        return None
    return System(id=found[0].decode("utf-8", "replace"), store=(found[1] or b"").decode("utf-8", "replace"))


async def announce(redis: Redis, settings: Settings) -> None:
    """Write the id into Redis and into the store; tried again until both have it."""
    while True:
        try:
            await call(redis, "HSETNX", KEY, "id", settings.system_id or secrets.token_hex(8))
            await call(redis, "HSET", KEY, "store", store_address(settings))
            system = await read_system(redis)
            if system is not None:
                if settings.system_id not in ("", system.id):
                    _log.error(
                        "redis belongs to another system", expected=settings.system_id, found=system.id
                    )
                await BlobStore(settings.photo_store_url).replace(_MARKS + system.id, system.id.encode())
        except (RedisError, StoreError, OSError, ValueError) as error:
            _log.debug("system not announced", error=str(error)[:200])
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return


async def same_store(system: System, store: BlobStore) -> bool:
    """Return whether this store is the one the agents of the system use. Raises what the store raises."""
    return await store.exists(f"{SCHEME}{_MARKS}{system.id}")


def store_address(settings: Settings) -> str:
    """Return the store's address without secrets, a folder as its absolute path."""
    url = settings.photo_store_url
    if urlsplit(url).scheme in ("", "file"):
        return str(Path(url.removeprefix("file://")).absolute())
    return scrub(url)
