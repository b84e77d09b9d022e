"""A handler may use Redis itself, and find it away: neither the photo's fault nor the machine's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError

from events.connection import call
from events.types import PhotoSubmitted, SchemaExtracted
from tests.shared.delivery.harness import extracted, publisher, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.delivery.process import AgentProcess


async def test_redis_away_under_a_handler_gives_the_entry_back_and_work_resumes_within_two_seconds(
    redis: Redis, redis_url: str
) -> None:
    calls = 0

    async def fails_once(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RedisConnectionError("Connection closed by server.")
        return extracted(event)

    async with (
        running(settings_for(redis_url), fails_once) as (_, agent),
        publisher(settings_for(redis_url)) as up,
    ):
        begun = time.monotonic()
        await up.publish(PhotoSubmitted(source_url="https://example.org/a"))
        await until(lambda: redis.xlen("erni:schema.extracted"))
        assert time.monotonic() - begun < 2.0
    assert len(agent.handled) == 2
    assert await redis.xlen("erni:dead:schema_extractor") == 0


async def test_the_time_for_which_redis_is_silent_makes_no_agent_slow(redis: Redis, redis_url: str) -> None:
    async def leaves_a_silent_redis(event: PhotoSubmitted) -> SchemaExtracted:
        await call(redis, "CLIENT", "PAUSE", 800, "WRITE")
        return extracted(event)

    async with (
        running(settings_for(redis_url), leaves_a_silent_redis) as (process, _),
        publisher(settings_for(redis_url)) as up,
    ):
        begun = time.monotonic()
        await up.publish(PhotoSubmitted(source_url="https://example.org/a"))
        await until(lambda: redis.xlen("erni:schema.extracted"))
        assert time.monotonic() - begun > 0.7
        await until(lambda: handed_on(process))
        assert process._info().seconds_now < 0.5


async def handed_on(process: AgentProcess) -> int:
    return process._info().done
