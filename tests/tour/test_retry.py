"""3 of 6. A failure that may pass is tried again, three times in all, within the same delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.publisher import Publisher
from events.types import PhotoSubmitted, SchemaExtracted
from shared.retry.policy import without_waiting
from tests.shared.delivery.harness import extracted, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_a_connection_error_is_tried_again(redis: Redis, redis_url: str) -> None:
    failures = [ConnectionError("SharePoint hung up"), ConnectionError("SharePoint hung up again")]

    async def handle(event: PhotoSubmitted) -> SchemaExtracted:
        if failures:
            raise failures.pop()
        return extracted(event)

    await Publisher(redis).publish(PhotoSubmitted(source_url="https://example.org/a.jpg"))
    with without_waiting():  # else 4 to 10 seconds lie between two attempts
        async with running(settings_for(redis_url), handle) as (_, agent):
            await until(lambda: redis.xlen("erni:schema.extracted"))
    assert len(agent.handled) == 3
