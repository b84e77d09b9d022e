"""What a dead process had in hand is finished by another; what kills is found and buried alone."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from events.connection import call
from events.types import PhotoSubmitted, SchemaExtracted
from shared.delivery.heartbeat import Watch
from tests.shared.delivery.harness import entries, extracted, publisher, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.delivery.reader import Reader

GROUP = "schema_extractor"
STREAM = "erni:photo.submitted"


async def left_behind(redis: Redis, consumer: str, deliveries: int, count: int) -> None:
    """Entries a dead consumer owns, delivered so often."""
    ids = [
        await redis.xadd(STREAM, {"data": f'{{"source_url": "https://example.org/{consumer}-{n}"}}'})
        for n in range(count)
    ]
    await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await redis.xreadgroup(GROUP, consumer, {STREAM: ">"}, count=count)
    for entry_id in ids:
        await redis.xclaim(STREAM, GROUP, consumer, 0, [entry_id], retrycount=deliveries, justid=True)


async def test_a_silent_consumer_is_taken_over_after_its_lease_and_removed(
    redis: Redis, redis_url: str
) -> None:
    await left_behind(redis, "dead-1", 1, 3)
    await redis.hset("erni:beats:schema_extractor", "dead-1", "17")
    async with running(settings_for(redis_url)) as (_, agent):
        await until(lambda: redis.xlen("erni:schema.extracted"))

        async def alone() -> bool:
            return len(await redis.xinfo_consumers(STREAM, GROUP)) == 1

        await until(alone)
    assert len(agent.handled) == 3
    assert not await redis.hexists("erni:beats:schema_extractor", "dead-1")


async def test_a_dead_consumer_stays_until_all_it_owned_was_looked_at(redis: Redis, redis_url: str) -> None:
    gone = 10_050
    ids = [
        (await call(redis, "XADD", STREAM, "*", "data", '{"source_url": "https://example.org/x"}')).decode()
        for _ in range(gone + 5)
    ]
    await redis.xgroup_create(STREAM, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead-1", {STREAM: ">"}, count=len(ids))
    # somebody deleted these bodies: their pending entries fill more than one reply
    for start in range(0, gone, 1000):
        await redis.xdel(STREAM, *ids[start : min(start + 1000, gone)])
    async with running(settings_for(redis_url)) as (_, agent):

        async def alone() -> bool:
            return len(await redis.xinfo_consumers(STREAM, GROUP)) == 1

        await until(alone)
        await until(lambda: redis.xlen("erni:schema.extracted"))
    assert len(agent.handled) == 5
    assert await redis.xlen(STREAM) == 0


async def test_a_consumer_that_beats_keeps_what_it_has(redis: Redis, redis_url: str) -> None:
    await left_behind(redis, "alive-1", 1, 1)
    async with running(settings_for(redis_url)) as (_, agent):
        for _ in range(25):
            await redis.hincrby("erni:beats:schema_extractor", "alive-1", 1)
            await asyncio.sleep(0.1)
        assert agent.handled == []
        [pending] = await redis.xpending_range(STREAM, GROUP, "-", "+", 10)
        assert pending["consumer"] == b"alive-1"
        assert pending["times_delivered"] == 1
    await redis.delete("erni:beats:schema_extractor")


async def test_what_was_returned_is_taken_at_once_and_burns_nothing(redis: Redis, redis_url: str) -> None:
    await left_behind(redis, "returned", 0, 2)
    async with running(settings_for(redis_url, lease_seconds=60.0)) as (_, agent):
        await until(lambda: redis.xlen("erni:schema.extracted"))
    assert len(agent.handled) == 2


async def test_suspects_are_handled_one_at_a_time_with_nothing_else_in_hand(
    redis: Redis, redis_url: str
) -> None:
    await left_behind(redis, "dead-1", 2, 4)
    most = together = 0

    async def count(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal most, together
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.02)
        together -= 1
        return extracted(event)

    async with (
        running(settings_for(redis_url), count) as (_, agent),
        publisher(settings_for(redis_url)) as up,
    ):

        async def begun() -> bool:
            return len(agent.handled) >= 1

        await until(begun)
        await up.publish(PhotoSubmitted(source_url="https://example.org/fresh"))

        async def all_moved() -> bool:
            return len(await entries(redis, "erni:schema.extracted")) == 5

        await until(all_moved)
    assert most == 1


async def test_past_the_delivery_limit_the_taker_writes_the_dead_letter(redis: Redis, redis_url: str) -> None:
    await left_behind(redis, "dead-1", 5, 1)
    async with running(settings_for(redis_url)) as (_, agent):
        [fields] = await until(lambda: entries(redis, "erni:dead:schema_extractor"))
    assert agent.handled == []
    assert fields[fields.index(b"reason") + 1] == b"delivery_limit"


async def test_a_zombie_is_fenced_and_its_handler_cancelled(redis: Redis, redis_url: str) -> None:
    cancelled = asyncio.Event()

    async def hang(_: PhotoSubmitted) -> SchemaExtracted:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with (
        running(settings_for(redis_url), hang) as (process, agent),
        publisher(settings_for(redis_url)) as up,
    ):
        await up.publish(PhotoSubmitted(source_url="https://example.org/a"))
        await agent.seen.wait()
        [pending] = await redis.xpending_range(STREAM, GROUP, "-", "+", 10)
        await redis.xclaim(STREAM, GROUP, "another", 0, [pending["message_id"]])
        await asyncio.wait_for(cancelled.wait(), 10)
        await redis.xack(STREAM, GROUP, pending["message_id"])
        await redis.xdel(STREAM, pending["message_id"])
        assert process.metrics.fenced._value.get() >= 1
    assert await redis.xlen("erni:schema.extracted") == 0


async def test_an_orphan_is_claimed_again(redis: Redis, redis_url: str) -> None:
    async with running(settings_for(redis_url)) as (process, agent):
        # as if the reply of a read had been lost: ours by Redis' book, never seen here
        async with redis.pipeline(transaction=True) as lost:
            lost.xadd(STREAM, {"data": '{"source_url": "https://example.org/a"}'})
            lost.xreadgroup(GROUP, process.runtime.consumer, {STREAM: ">"})
            await lost.execute()
        await until(lambda: redis.xlen("erni:schema.extracted"))
        assert process.metrics.orphans_reclaimed._value.get() >= 1
    assert len(agent.handled) == 1


async def test_an_orphan_that_is_a_suspect_is_handled_alone_too(redis: Redis, redis_url: str) -> None:
    busy = asyncio.Event()
    together: list[int] = []
    inside = 0

    async def hold(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal inside
        inside += 1
        together.append(inside)
        if event.source_url.endswith("long"):
            await busy.wait()
        inside -= 1
        return extracted(event)

    settings = settings_for(redis_url)
    async with running(settings, hold) as (process, agent), publisher(settings) as up:
        await up.publish(PhotoSubmitted(source_url="https://example.org/long"))
        await agent.seen.wait()
        async with redis.pipeline(transaction=True) as lost:
            lost.xadd(STREAM, {"data": '{"source_url": "https://example.org/suspect"}'})
            lost.xreadgroup(GROUP, process.runtime.consumer, {STREAM: ">"})
            _, [(_, [(entry_id, _)])] = await lost.execute()
        await redis.xclaim(STREAM, GROUP, process.runtime.consumer, 0, [entry_id], retrycount=2, justid=True)

        async def returned() -> bool:
            return bool(await redis.xpending_range(STREAM, GROUP, "-", "+", 10, "returned"))

        await until(returned)
        busy.set()
        await until(lambda: _outputs(redis, 2))
    assert together == [1, 1]


async def test_a_suspect_waits_while_a_part_is_down(redis: Redis, redis_url: str) -> None:
    now = 1000.0
    settings = settings_for(redis_url)
    async with running(settings) as (process, agent):
        breakers = process.runtime.breakers
        breakers._stops_reading = frozenset({"sharepoint"})
        breakers._clock = lambda: now
        for _ in range(20):
            breakers.failed("sharepoint", "no answer")
        assert breakers.reading_stopped
        reader = process._lanes[0].reader
        # it was seen before the part went down
        async with redis.pipeline(transaction=True) as left:
            left.xadd(STREAM, {"data": '{"source_url": "https://example.org/suspect"}'})
            left.xreadgroup(GROUP, "returned", {STREAM: ">"})
            _, [(_, [(entry_id, _)])] = await left.execute()
        await redis.xclaim(STREAM, GROUP, "returned", 0, [entry_id], retrycount=2, justid=True)
        reader._suspects = True
        for _ in range(3):
            turned = reader.turned
            await until(partial(_turned, reader, turned))
        assert agent.handled == []
        now += 3600
        await until(lambda: _outputs(redis, 1))


async def _turned(reader: Reader, before: float) -> bool:
    return reader.turned > before


async def _outputs(redis: Redis, count: int) -> bool:
    return len(await entries(redis, "erni:schema.extracted")) == count


async def test_a_vanished_group_is_made_again_and_loses_nothing(redis: Redis, redis_url: str) -> None:
    async with running(settings_for(redis_url)) as (_, agent), publisher(settings_for(redis_url)) as up:
        await redis.xgroup_destroy(STREAM, GROUP)
        await up.publish(PhotoSubmitted(source_url="https://example.org/a"))
        await until(lambda: redis.xlen("erni:schema.extracted"))
    assert len(agent.handled) == 1


def test_stillness_counts_only_between_successful_looks() -> None:
    now = 0.0
    watch = Watch(lease=15.0, clock=lambda: now)

    def look_for(seconds: float, step: float = 1.0) -> list[tuple[str, str]]:
        nonlocal now
        dead: list[tuple[str, str]] = []
        end = now + seconds
        while now < end:
            now += step
            dead = watch.look({"a": "5"}, {"b"}, "me")
        return dead

    assert look_for(15) == []
    watch.forget()  # a failed look: everybody gets a fresh lease
    assert look_for(15) == []
    assert look_for(2) == [("a", "5"), ("b", "")] or sorted(look_for(1)) == [("a", "5"), ("b", "")]
    assert look_for(60, step=5.0) == []  # looks too far apart say nothing
