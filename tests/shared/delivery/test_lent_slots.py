"""A lane that cannot settle takes no slots from the others, and reads on as soon as it can settle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.identities import SessionId
from events.keys import all_lanes, lane_of
from events.types import PhotoSubmitted
from tests.shared.delivery.harness import publisher, running, settings_for, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.delivery.process import AgentProcess

LANES = 2
STUCK, OTHER = all_lanes(LANES)


def _photo(lane: Keys, number: int = 0) -> PhotoSubmitted:
    session = next(
        name for name in map("s{}".format, range(100)) if lane_of(name, LANES).prefix == lane.prefix
    )
    return PhotoSubmitted(source_url=f"store:{session}-{number}", session_id=SessionId(session))


def _marker(process: AgentProcess, stream: str = "photo.submitted") -> str:
    return STUCK.marker(f"{process.runtime.consumer}:{stream}")


def _length(redis: Redis, stream: str) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        return int(await redis.xlen(stream))

    return look


async def test_a_lane_whose_settlements_are_refused_lends_its_slot(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url, lanes=LANES, concurrency=1)
    async with running(settings) as (process, agent), publisher(settings) as up:
        await redis.rpush(_marker(process), "not what is expected")
        await up.publish(_photo(STUCK))
        await agent.seen.wait()
        await up.publish(_photo(OTHER))
        await until(_length(redis, OTHER.stream("schema.extracted")))
        assert await redis.xlen(STUCK.stream("schema.extracted")) == 0
        await redis.delete(_marker(process))
        await until(_length(redis, STUCK.stream("schema.extracted")))


async def test_one_entry_that_is_refused_stops_no_lane_that_settles_again(
    redis: Redis, redis_url: str
) -> None:
    settings = settings_for(redis_url, lanes=LANES, concurrency=2)
    async with running(settings) as (process, agent), publisher(settings) as up:
        await redis.rpush(_marker(process), "not what is expected")
        await up.publish(_photo(STUCK))
        await agent.seen.wait()
        await until(lambda: _lent(process))
        # the hand-off of this entry is refused, the batch is not
        await redis.set(STUCK.stream("schema.extracted"), "not what is expected")
        await redis.delete(_marker(process))
        await up.publish(_photo(STUCK, 1))
        await until(lambda: _is(len(agent.handled), 2))
        await redis.delete(STUCK.stream("schema.extracted"))
        await until(lambda: _two(redis))


async def test_bulk_work_that_cannot_be_settled_takes_no_share_from_the_other_lanes(
    redis: Redis, redis_url: str
) -> None:
    settings = settings_for(redis_url, lanes=LANES, concurrency=2)
    async with running(settings) as (process, agent), publisher(settings) as up:
        await redis.rpush(_marker(process, "photo.submitted.bulk"), "not what is expected")
        await up.send(up.prepare(_photo(STUCK), bulk=True))
        await agent.seen.wait()
        await until(lambda: _lent(process))
        assert process.runtime.slots.bulk == 0
        await redis.delete(_marker(process, "photo.submitted.bulk"))
        await until(_length(redis, STUCK.stream("schema.extracted.bulk")))
        await until(lambda: _is(process.runtime.slots.free, 2))
        assert process.runtime.slots.bulk == 0


async def _two(redis: Redis) -> bool:
    return bool(await redis.xlen(STUCK.stream("schema.extracted")) == 2)


async def _is(one: int, other: int) -> bool:
    return one == other


async def _lent(process: AgentProcess) -> bool:
    return bool(process._lanes[0].in_flight.without_slots)
