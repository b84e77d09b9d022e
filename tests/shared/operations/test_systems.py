"""An agent joins the system of a Redis, whatever state that is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events.connection import connect
from shared.operations import joining, systems
from shared.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey


async def test_an_agent_joins_a_redis_that_is_full_because_it_makes_room(
    own_redis_server: Valkey, tmp_path: Path
) -> None:
    settings = Settings(redis_url=own_redis_server.url, photo_store_url=f"file://{tmp_path}/store")
    async with connect(own_redis_server.url) as redis:
        await redis.config_set("maxmemory", "1")
        await joining.join(redis, settings)
        assert await systems.read_system(redis) is None
        await redis.config_set("maxmemory", "0")
        await joining.join(redis, settings)
        assert await systems.read_system(redis) is not None
        elsewhere = Settings(redis_url=own_redis_server.url)
        await redis.config_set("maxmemory", "1")
        with pytest.raises(joining.OtherSystemError):
            await joining.join(redis, elsewhere)


async def test_a_store_that_does_not_work_is_not_taken_for_a_redis_that_is_away(
    redis: Redis, redis_url: str
) -> None:
    # what is raised here makes the agent wait for Redis for ever
    await joining.join(redis, Settings(redis_url=redis_url, photo_store_url="file:///proc/nix"))
