"""The numbers of an agent as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events import keys, topology
from events.connection import call, connect
from events.publisher import Publisher, PublishRefusedError
from events.types import PhotoSubmitted, SchemaExtracted
from shared.operations import scripts
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.gauges import DeadByReason
from shared.telemetry.metrics import REGISTRY
from tests.shared.delivery.harness import running, settings_for, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey


LANE = keys.all_lanes(1)[0]
AGENT = "photo_fetcher"


async def letters(redis: Redis, *reasons: str) -> list[str]:
    """Dead letters that nobody counted, as an older version of the code writes them."""
    return [
        (
            await call(redis, "XADD", LANE.dead(AGENT), "*", "raw", b"\x92\xa1d\xa1x", "reason", reason)
        ).decode()
        for reason in reasons
    ]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as made:
        yield made


async def test_dead_letters_that_nobody_counted_are_counted_again(redis: Redis, client: Redis) -> None:
    dead = DeadByReason(client, topology.stage_of(AGENT), keys.all_lanes(1))
    assert await dead.count() == {}
    assert not await redis.exists(LANE.counting(AGENT))
    ids = await letters(redis, *["permanent"] * 250, *["exhausted"] * 2)
    assert await dead.count() == {"permanent": 250, "exhausted": 2}
    assert await redis.hgetall(LANE.dead_counts(AGENT)) == {b"permanent": b"250", b"exhausted": b"2"}
    # somebody deletes one by hand
    await redis.xdel(LANE.dead(AGENT), ids[100])
    await redis.delete(LANE.counting(AGENT))
    assert await dead.count() == {"permanent": 249, "exhausted": 2}


async def test_one_process_counts_again_and_not_all(redis: Redis, client: Redis) -> None:
    await letters(redis, "permanent")
    await redis.set(LANE.counting(AGENT), "", px=60_000)
    assert await DeadByReason(client, topology.stage_of(AGENT), keys.all_lanes(1)).count() == {}


async def test_a_count_that_others_changed_meanwhile_is_not_kept(redis: Redis, client: Redis) -> None:
    [first, second] = await letters(redis, "permanent", "exhausted")
    assert not await scripts.recounted(client, LANE, AGENT, first, {b"permanent": 1})
    assert not await scripts.recounted(client, LANE, AGENT, second, {b"exhausted": 1})
    assert not await redis.exists(LANE.dead_counts(AGENT))
    assert await scripts.recounted(client, LANE, AGENT, second, {b"permanent": 1, b"exhausted": 1})


async def test_replay_and_discard_count_what_they_take_away(redis: Redis, client: Redis) -> None:
    dead = DeadByReason(client, topology.stage_of(AGENT), keys.all_lanes(1))
    await letters(redis, "permanent", "permanent", "exhausted")
    await dead.count()
    operator = DeadLetters(client)
    found = [letter async for letter in operator.find(DeadFilter())]
    assert (await operator.replay(found[0])).outcome == "replayed"
    assert await operator.discard(found[2])
    assert not await operator.discard(found[2])
    assert await redis.hgetall(LANE.dead_counts(AGENT)) == {b"permanent": b"1", b"exhausted": b"0"}


async def test_counting_costs_no_more_with_many_dead_letters_that_come_and_go(
    redis: Redis, client: Redis
) -> None:
    dead = DeadByReason(client, topology.stage_of(AGENT), keys.all_lanes(1))
    operator = DeadLetters(client)

    async def commands_of_a_count() -> int:
        await redis.config_resetstat()
        await dead.count()
        return sum(int(of["calls"]) for of in (await redis.info("commandstats")).values())

    async def after_one_went(count: int) -> int:
        await letters(redis, *["permanent"] * count)
        await redis.delete(LANE.counting(AGENT))
        await dead.count()
        [letter] = [letter async for letter in operator.find(DeadFilter(limit=1))]
        assert await operator.discard(letter)
        return await commands_of_a_count()

    assert await after_one_went(3) == await after_one_went(2000)


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

    for data in ('{"source_url": "https://example.org/a"}', "no JSON"):
        await redis.xadd("erni:photo.submitted", {"data": data})
    async with running(settings_for(redis_url), fail):

        async def both() -> bool:
            return await redis.xlen("erni:dead:schema_extractor") == 2

        await until(both)
    counts = await redis.hgetall("erni:dead-counts:schema_extractor")
    assert counts == {b"permanent": b"1", b"undecodable": b"1"}


async def test_a_full_redis_shows_its_limit_and_counts_what_it_refuses(own_redis_server: Valkey) -> None:
    async with connect(own_redis_server.url) as client, running(settings_for(own_redis_server.url)):
        limit = int((await client.info("memory"))["used_memory"] * 0.9)
        await client.config_set("maxmemory", limit)
        with pytest.raises(PublishRefusedError, match="memory limit"):
            await Publisher(client).publish(PhotoSubmitted(source_url="file:/a"))

        async def noted() -> bool:
            return REGISTRY.get_sample_value("erni_redis_refused_commands") == 1

        await until(noted)
        assert REGISTRY.get_sample_value("erni_redis_memory_limit_bytes") == limit
        assert (REGISTRY.get_sample_value("erni_redis_memory_used_bytes") or 0) > limit
        await client.config_set("maxmemory", 0)


async def test_the_notices_that_wait_are_counted_by_an_agent_that_is_not_the_notifier(
    redis: Redis, redis_url: str
) -> None:
    async def do(photo: PhotoSubmitted) -> SchemaExtracted:
        raise AssertionError(photo)

    async def counted() -> bool:
        return REGISTRY.get_sample_value("erni_webhooks_waiting") == 3

    for _ in range(2):
        await call(redis, "XADD", LANE.stream("webhook.queued"), "*", "data", "{}")
    await call(redis, "ZADD", LANE.delayed("webhook_notifier"), 4e12, b"postponed")
    async with running(settings_for(redis_url), do):
        await until(counted)
