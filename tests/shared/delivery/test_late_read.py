"""A read may reach Redis when its sender is long dead: it makes the consumer again, which must not stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.shared.delivery.harness import running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis

GROUP = "schema_extractor"
STREAM = "erni:photo.submitted"


async def test_a_consumer_without_record_and_entries_is_removed(redis: Redis, redis_url: str) -> None:
    async with running(settings_for(redis_url, lease_seconds=0.6)) as (process, _):
        await redis.xreadgroup(GROUP, "dead-1", {STREAM: ">"}, count=1)

        async def alone() -> bool:
            return [c["name"] for c in await redis.xinfo_consumers(STREAM, GROUP)] == [
                process.runtime.consumer.encode()
            ]

        assert not await alone()
        await until(alone, seconds=10)
