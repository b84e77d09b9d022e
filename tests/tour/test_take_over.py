"""5 of 6. A process that dies keeps nothing: others take its entries over when its lease has run out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.publisher import Publisher
from events.types import PhotoSubmitted
from tests.shared.delivery.harness import running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis

STREAM, AGENT = "erni:photo.submitted", "schema_extractor"  # the agent is the consumer group


async def test_the_entry_of_a_dead_process_is_handled_by_another(redis: Redis, redis_url: str) -> None:
    await Publisher(redis).publish(PhotoSubmitted(source_url="https://example.org/a.jpg"))
    await redis.xgroup_create(STREAM, AGENT, id="0")
    await redis.xreadgroup(AGENT, "killed", {STREAM: ">"})  # this process reads, sends no heartbeat, is gone

    async with running(settings_for(redis_url, lease_seconds=1.0)) as (process, agent):
        await until(lambda: redis.xlen("erni:schema.extracted"))
        consumers = await redis.xinfo_consumers(STREAM, AGENT)

    assert len(agent.handled) == 1
    assert [consumer["name"].decode() for consumer in consumers] == [process.runtime.consumer]
