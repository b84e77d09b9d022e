"""Bulk work waits while there is other work, gets its share of the slots, and all of them otherwise."""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from events import intake, topology
from events.connection import connect
from events.identities import SessionId
from events.keys import Keys, lane_of
from events.publisher import Publisher
from events.types import PhotoSubmitted
from shared.delivery.bulk_share import ONE_IN, BulkShare
from shared.delivery.slots import Slots
from tests.shared.delivery.harness import entries, extracted, publisher, running, settings_for, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from events.types import SchemaExtracted

STREAM = "erni:photo.submitted"
BULK = "erni:photo.submitted.bulk"
AHEAD = 50
"""Photos of a session that are no bulk work, as docs/events.md says."""


def photo(number: int, session: str | None = None) -> PhotoSubmitted:
    return PhotoSubmitted(
        source_url=f"https://photos.example.org/{number}.jpg",
        session_id=SessionId(session) if session else None,
    )


async def publish(out: Publisher, count: int, session: str, *, bulk: bool = False) -> None:
    await out.send_all([out.prepare(photo(number, session), bulk=bulk) for number in range(count)])


@pytest.mark.parametrize("lanes", [1, 3])
async def test_one_entry_in_ten_is_bulk_work_while_other_work_waits(redis_url: str, lanes: int) -> None:
    settings = settings_for(redis_url, lanes=lanes, concurrency=10)
    async with publisher(settings) as out:
        # sessions of one lane: each lane shares its own reads
        names = map("s{}".format, range(60))
        past, *today = [name for name in names if lane_of(name, lanes).lane in (None, 1)][:11]
        await publish(out, 500, past, bulk=True)
        for session in today:
            await publish(out, 50, session)
        async with running(settings) as (_, agent):

            async def ended() -> bool:
                return len(agent.handled) == 1_000

            await until(ended)
    order = [event.session_id == past for event in agent.handled]
    last = len(order) - order[::-1].index(False)
    early = sum(order[:last])
    # 500 others: a ninth of them beside, and the first reads, which do not know of the others yet
    assert 500 / 9 * 0.7 <= early <= 500 / 9 + 12, early


async def test_long_bulk_work_gets_no_more_than_its_share_of_the_slots(redis_url: str) -> None:
    settings = settings_for(redis_url, concurrency=20)
    going, most, others = 0, 0, 0
    release = asyncio.Event()

    async def do(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal going, most, others
        if event.session_id == "past":
            going += 1
            if others < 900:
                most = max(most, going)
            await release.wait()
            going -= 1
        else:
            others += 1
            await asyncio.sleep(0.001)
        return extracted(event)

    async with publisher(settings) as out:
        for number in range(20):
            await publish(out, 50, f"today-{number}")
        async with running(settings, do) as (_, agent):
            await until(_some(lambda: others > 100))
            await publish(out, 100, "past", bulk=True)
            await until(_some(lambda: others == 1_000))
            # nothing else waits: it may have all slots
            await until(_some(lambda: going == 20))
            release.set()
            await until(_some(lambda: len(agent.handled) == 1_100))
    assert 1 <= most <= 20 // ONE_IN


def _some(look: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    async def looked() -> bool:
        return bool(look())

    return looked


async def test_what_was_bulk_work_stays_bulk_work(redis_url: str, redis: Redis) -> None:
    settings = settings_for(redis_url)
    async with publisher(settings) as out:
        await out.publish(photo(1, "past"), bulk=True)
        await out.publish(photo(2, "today"))
        async with running(settings) as (_, agent):
            await until(_some(lambda: len(agent.handled) == 2))
            await until(lambda: redis.xlen("erni:schema.extracted"))
            await until(lambda: redis.xlen("erni:schema.extracted.bulk"))
    [todays] = await entries(redis, "erni:schema.extracted")
    [pasts] = await entries(redis, "erni:schema.extracted.bulk")
    assert b"today" in todays
    assert b"past" in pasts
    assert await redis.xlen(STREAM) + await redis.xlen(BULK) == 0


@pytest.mark.parametrize("together", [False, True])
async def test_a_session_beyond_its_first_photos_is_bulk_work(
    redis_url: str, redis: Redis, *, together: bool
) -> None:
    async with publisher(settings_for(redis_url)) as out:
        events = [out.prepare(photo(number, "many")) for number in range(AHEAD + 7)]
        for part in [events] if together else [[event] for event in events]:
            await (out.send_all(part) if together else out.send(part[0]))
            # the same again is no further photo
            await (out.send_all(part) if together else out.send(part[0]))
        await out.publish(photo(1, "few"))
        await out.publish(photo(1))
    assert await redis.xlen(STREAM) == AHEAD + 2
    assert await redis.xlen(BULK) == 7
    counters = [intake.counter(Keys(), "erni", session) for session in ("few", "many")]
    assert sorted(await redis.keys("erni:sent:*")) == [counter.encode() for counter in counters]
    assert 590_000 < await redis.pttl(counters[1]) <= 600_000


async def test_after_a_pause_a_session_is_counted_from_the_beginning(redis_url: str, redis: Redis) -> None:
    async with publisher(settings_for(redis_url)) as out:
        await publish(out, AHEAD, "many")
        await redis.delete(intake.counter(Keys(), "erni", "many"))
        await out.publish(photo(1_000, "many"))
    assert await redis.xlen(STREAM) == AHEAD + 1


async def test_a_foreign_value_in_place_of_the_counter_costs_no_photo(redis_url: str, redis: Redis) -> None:
    async with publisher(settings_for(redis_url)) as out:
        await redis.lpush(intake.counter(Keys(), "erni", "s"), "nonsense")
        await out.publish(photo(1, "s"))
        await redis.set(intake.counter(Keys(), "erni", "s"), "nonsense")
        await publish(out, 2, "s")
    assert await redis.xlen(STREAM) == 3


async def test_both_streams_count_when_the_first_one_is_full(redis_url: str, redis: Redis) -> None:
    client = connect(redis_url)
    out = Publisher(client, max_backlog=60)
    await out.send_all([out.prepare(photo(number, "many")) for number in range(60)])
    with pytest.raises(Exception, match="holds 60 entries"):
        await out.publish(photo(1, "few"))
    with pytest.raises(Exception, match="holds 60 entries"):
        await out.send_all([out.prepare(photo(1, "few"))])
    await client.aclose()


def test_the_scripts_have_the_numbers_of_the_page() -> None:
    for script in (intake.PUBLISH, intake.PUBLISH_ALL):
        numbers = r"local AHEAD, PAUSE, FIRST = (\d+), (\d+), (\d+)"
        [(ahead, pause, first)] = re.findall(numbers, script.text.decode())
        assert (int(ahead), int(pause), int(first)) == (AHEAD, 600_000, intake.FIRST_SECONDS * 1000)


async def test_bulk_work_in_a_foreign_lane_stays_bulk_work(redis_url: str, redis: Redis) -> None:
    settings = settings_for(redis_url, lanes=2)
    own = lane_of("past", 2)
    foreign = next(Keys(lane) for lane in (1, 2) if lane != own.lane)
    bulk = topology.bulk_of(topology.INTAKE)
    async with running(settings) as (_, agent):
        fields = {"data": '{"source_url": "https://photos.example.org/1.jpg", "session_id": "past"}'}
        await redis.xadd(foreign.stream(bulk), fields)  # type: ignore[arg-type]
        await until(_some(lambda: agent.handled))
        await until(lambda: redis.xlen(own.stream("schema.extracted.bulk")))


def test_a_share_is_lost_when_nothing_waits_any_more() -> None:
    now = [0.0]
    share = BulkShare(Slots(10), clock=lambda: now[0])
    share.note_others(90, more=True)
    assert share.before_others() == 1
    share.note_others(1, more=False)
    assert share.before_others() == 0
    assert list(islice((share.after_others(4, only=True) for _ in range(2)), 2)) == [4, 4]
