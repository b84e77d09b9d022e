"""2 of 6. An agent turns an event into the next one; the entry it read is gone when the next one is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.publisher import Publisher
from events.types import PhotoSubmitted, SchemaExtracted
from tests.shared.delivery.harness import extracted, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_an_agent_hands_a_photo_to_the_next_stream(redis: Redis, redis_url: str) -> None:
    async def handle(event: PhotoSubmitted) -> SchemaExtracted:
        assert await redis.xlen("erni:photo.submitted") == 1  # it stays until its settlement
        return extracted(event)  # an agent is this function; the delivery engine does the rest

    await Publisher(redis).publish(PhotoSubmitted(source_url="https://example.org/a.jpg"))
    async with running(settings_for(redis_url), handle):  # the process of the agent schema_extractor
        await until(lambda: redis.xlen("erni:schema.extracted"))

    assert await redis.xlen("erni:schema.extracted") == 1
    assert await redis.xlen("erni:photo.submitted") == 0
