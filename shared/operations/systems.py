"""Gives each system an id, in Redis and in its photo store, so that commands know which one they talk to.

A system is one Redis and one photo store that belong together. Its agents write the id into both, each before
it sends its first heartbeat; a command compares them before it changes something, an agent before it reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from events.connection import RedisError, Trouble, call, trouble_of
from events.redis_address import shown
from shared.photo_store import SCHEME, BlobStore
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings

KEY: Final = "erni:system"
"""Hash: ``id`` of the system, and ``store``, where its agents see the photo store."""
MARKS: Final = "systems/"


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


def other_store(system: System, settings: Settings) -> str:
    """Say that the store of these settings is not the one of a system, as agents and commands say it."""
    return (
        f"the photo store {store_address(settings)} is not the one that the agents on"
        f" {shown(settings.redis_url)} use, {system.store}"
    )


async def same_store(system: System, store: BlobStore) -> bool:
    """Return whether this store is the one the agents of the system use. Raises what the store raises."""
    return await store.exists(f"{SCHEME}{MARKS}{system.id}")


def store_address(settings: Settings) -> str:
    """Return the store's address without secrets, a folder as its absolute path."""
    url = settings.photo_store_url
    if urlsplit(url).scheme in ("", "file"):
        return str(Path(url.removeprefix("file://")).absolute())
    return scrub(url)
