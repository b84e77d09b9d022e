"""The numbers of an agent as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events import keys, topology
from events.connection import connect
from events.publisher import Publisher, PublishRefusedError
from events.types import PhotoSubmitted, SchemaExtracted
from shared.operations.gauges import DeadByReason
from shared.telemetry.metrics import REGISTRY
from tests.shared.delivery.harness import running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_dead_letters_are_counted_by_reason_as_they_come_and_go(redis: Redis, redis_url: str) -> None:
    client = connect(redis_url)
    dead = DeadByReason(client, topology.stage_of("photo_fetcher"), keys.all_lanes(1))
    assert await dead.count() == {}
    ids = [
        await redis.xadd("erni:dead:photo_fetcher", {"raw": "x", "reason": reason})
        for reason in ["permanent"] * 250 + ["exhausted"] * 2
    ]
    assert await dead.count() == {"permanent": 250, "exhausted": 2}
    await redis.xdel("erni:dead:photo_fetcher", ids[100])
    assert await dead.count() == {"permanent": 249, "exhausted": 2}
    await client.aclose()


async def test_refused_publishes_are_a_number_of_the_first_agent(redis: Redis, redis_url: str) -> None:
    client = connect(redis_url)
    full = Publisher(client, max_backlog=1)
    await redis.hset("erni:paused", "schema_extractor", "1")
    await full.publish(PhotoSubmitted(source_url="file:/a"))
    with pytest.raises(PublishRefusedError, match="MAX_BACKLOG"):
        await full.publish(PhotoSubmitted(source_url="file:/b"))
    async with running(settings_for(redis_url)):

        async def told() -> bool:
            return REGISTRY.get_sample_value("erni_publish_refused") == 1

        await until(told)
    await client.aclose()


async def test_the_hand_off_counts_the_dead_letters_it_writes(redis: Redis, redis_url: str) -> None:
    async def fail(event: PhotoSubmitted) -> SchemaExtracted:
        raise ValueError(event.source_url)

    for entry in ({"data": '{"source_url": "https://example.org/a"}'}, {"data": "no JSON"}):
        await redis.xadd("erni:photo.submitted", entry)
    async with running(settings_for(redis_url), fail):

        async def both() -> bool:
            return await redis.xlen("erni:dead:schema_extractor") == 2

        await until(both)
    counts = await redis.hgetall("erni:dead-counts:schema_extractor")
    assert counts == {b"permanent": b"1", b"undecodable": b"1"}
