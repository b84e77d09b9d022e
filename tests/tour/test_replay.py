"""6 of 6. Once the cause is repaired, a replay sends a dead letter back to the agent that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.publisher import Publisher
from events.types import PhotoSubmitted, SchemaExtracted
from shared.operations.dead_letters import DeadFilter, DeadLetters
from tests.shared.delivery.harness import extracted, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_a_replayed_dead_letter_is_handled(redis: Redis, redis_url: str) -> None:
    async def handle(event: PhotoSubmitted) -> SchemaExtracted:
        if not repaired:
            raise ValueError("a bug")
        return extracted(event)

    repaired = False
    await Publisher(redis).publish(PhotoSubmitted(source_url="https://example.org/a.jpg"))
    async with running(settings_for(redis_url), handle) as (process, _):
        await until(lambda: redis.xlen("erni:dead:schema_extractor"))
        repaired, dead = True, DeadLetters(process.redis)
        assert [(await dead.replay(one)).outcome async for one in dead.find(DeadFilter())] == ["replayed"]
        await until(lambda: redis.xlen("erni:schema.extracted"))
    assert await redis.xlen("erni:dead:schema_extractor") == 0
