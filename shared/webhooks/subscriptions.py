"""Lets each agent process know which web hooks want which ends: a small table, read again every two seconds.

No settlement asks Redis for it. Without an endpoint the table is empty, and a settlement looks at one flag.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from events.connection import RedisError, call

if TYPE_CHECKING:
    from redis.asyncio import Redis

INDEX: Final = "erni:{webhooks}"
"""Hash: id of an endpoint → its subscription (JSON); empty while the endpoint is switched off."""
EVERY_SECONDS: Final = 2.0
_log = structlog.get_logger(__name__)


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what one endpoint wants."""

    source: str
    events: tuple[str, ...]


_DECODER: Final = msgspec.json.Decoder(Subscription)


async def read_index(redis: Redis) -> dict[str, Subscription | None]:
    """Return each endpoint's subscription, None for one that is off. Raises what redis-py raises."""
    found: dict[bytes, bytes] = await call(redis, "HGETALL", INDEX)
    return {endpoint.decode("utf-8", "replace"): _read(value) for endpoint, value in sorted(found.items())}


def _read(value: bytes) -> Subscription | None:
    try:
        return _DECODER.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # switched off, or a foreign value
        return None


class Subscriptions:
    """Hold the table of one process."""

    def __init__(self) -> None:
        self._wanting: dict[tuple[bytes, str], tuple[str, ...]] = {}
        self.exist = False
        """Whether any endpoint wants anything."""

    def of(self, source: bytes, event_type: str) -> tuple[str, ...]:
        """Return the ids of the endpoints that want such an event about what this source submitted."""
        return self._wanting.get((source, event_type), ())

    async def refresh(self, redis: Redis) -> None:
        """Read the table. Raises what redis-py raises, and keeps the old one then."""
        wanting: dict[tuple[bytes, str], tuple[str, ...]] = {}
        for endpoint, subscription in (await read_index(redis)).items():
            for event_type in subscription.events if subscription else ():
                key = (subscription.source.encode(), event_type) if subscription else (b"", "")
                wanting[key] = (*wanting.get(key, ()), endpoint)
        self._wanting, self.exist = wanting, bool(wanting)

    async def keep(self, redis: Redis) -> None:
        """Read it again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.refresh(redis)
            except (RedisError, OSError) as error:
                _log.debug("web hooks not read", error=str(error)[:200])
