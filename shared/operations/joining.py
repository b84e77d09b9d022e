"""Lets an agent join the system of a Redis, or refuses it: its photos would die in another store."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

import structlog
from obstore.exceptions import BaseError as StoreError

from events.connection import RedisError, call
from events.redis_address import shown
from shared.delivery.startup import is_passing
from shared.operations.status import anybody_lives
from shared.operations.systems import KEY, MARKS, System, other_store, read_system, same_store, store_address
from shared.photo_store import BlobStore

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings

_AGAIN_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class OtherSystemError(Exception):
    """Report that an agent would read the photos of another system; the message says what to do."""

    def __init__(self, message: str, system_id: str) -> None:
        """`system_id`: of the system that was found."""
        super().__init__(message)
        self.system_id = system_id


async def join(redis: Redis, settings: Settings) -> None:
    """Check that an agent with these settings belongs to the system of a Redis, and write the id into both.

    A store that does not work now is checked and written by `announce` later: no photo is handled meanwhile.
    A full Redis takes no id, but its agents have to start: they make room. A role that may not look is let
    in, as by commands. Raises OtherSystemError, and what redis-py raises while Redis is away.
    """
    try:
        await _join(redis, settings)
    except StoreError as error:
        _log.debug("system not announced", error=str(error)[:200])
    except RedisError as error:
        if is_passing(error):
            raise
        _log.debug("system not announced", error=str(error)[:200])


async def _join(redis: Redis, settings: Settings) -> None:
    store, system = BlobStore(settings.photo_store_url), await read_system(redis)
    if system is not None and (why := await _foreign(redis, settings, system, store)):
        raise OtherSystemError(why, system.id)
    await call(redis, "HSETNX", KEY, "id", settings.system_id or secrets.token_hex(8))
    await call(redis, "HSET", KEY, "store", store_address(settings))
    if (system := await read_system(redis)) is not None:
        await store.replace(MARKS + system.id, system.id.encode())


async def _foreign(redis: Redis, settings: Settings, system: System, store: BlobStore) -> str:
    """Return why an agent must not read from a Redis, and what to do; '' if it may.

    A store is another one if it has no mark, and its agents are not known to use this address. While none of
    them lives, they may be moving to it; but nobody moves to the default, which is a folder below wherever
    the agent was started.
    """
    where = shown(settings.redis_url)
    if settings.system_id not in ("", system.id):
        return (
            f"Redis at {where} belongs to another system ({system.id}) than the one that is meant"
            f" ({settings.system_id}): nothing was read. Set REDIS_URL to the right server, or start"
            " `erni up` again"
        )
    if system.store in ("", store_address(settings)):
        return ""
    chosen = settings.photo_store_url != type(settings)().photo_store_url
    # asked in this order: whoever sends heartbeats has marked its store before
    if chosen and not await anybody_lives(redis, lanes=settings.lanes, alive_within=settings.lease_seconds):
        return ""
    if await same_store(system, store):
        return ""
    return (
        f"{other_store(system, settings)}: nothing was read. Set PHOTO_STORE_URL={system.store} to join them,"
        " or REDIS_URL to a Redis of your own"
    )


async def announce(redis: Redis, settings: Settings) -> None:
    """Do what `join` could not do while the store did not work; tried again until it is done."""
    while True:
        try:
            await _join(redis, settings)
        except OtherSystemError as error:
            _log.error(
                "redis belongs to another system",
                expected=settings.system_id,
                found=error.system_id,
                error=str(error),
            )
            return
        except (RedisError, StoreError, OSError, ValueError) as error:
            _log.debug("system not announced", error=str(error)[:200])
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return
