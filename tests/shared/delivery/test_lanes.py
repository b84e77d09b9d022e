"""Lanes share the slots of a process: an idle lane keeps none, and busy lanes take turns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from events import keys
from events.identities import SessionId
from events.types import PhotoSubmitted, SchemaExtracted
from shared.delivery.slots import Slots
from tests.shared.delivery.harness import extracted, publisher, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis


def photo(number: int, session: str) -> PhotoSubmitted:
    return PhotoSubmitted(source_url=f"https://bau.invalid/{session}/{number}", session_id=SessionId(session))


async def test_a_busy_lane_gets_every_slot_while_the_others_are_idle(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url, lanes=8, concurrency=8)
    at_work, all_at_work = 0, asyncio.Event()

    async def meet(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal at_work
        at_work += 1
        if at_work == 8:
            all_at_work.set()
        # each waits until all eight are here: with fewer slots for this lane nobody would go on
        await all_at_work.wait()
        return extracted(event)

    async with running(settings, meet), publisher(settings) as up:
        await asyncio.sleep(1.0)  # every lane waits for entries by now
        for number in range(16):
            await up.publish(photo(number, "seewen"))
        out = keys.lane_of("seewen", 8).stream("schema.extracted")

        async def all_through() -> bool:
            return bool(await redis.xlen(out) == 16)

        await until(all_through)


async def test_more_lanes_than_slots_are_all_read(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url, lanes=6, concurrency=2)
    sessions = [f"s{number}" for number in range(24)]
    async with running(settings), publisher(settings) as up:
        for number, session in enumerate(sessions):
            await up.publish(photo(number, session))
        streams = [lane.stream("schema.extracted") for lane in keys.all_lanes(6)]

        async def all_through() -> bool:
            return sum([await redis.xlen(stream) for stream in streams]) == len(sessions)

        await until(all_through)


async def test_slots_go_to_those_that_wait_in_their_order() -> None:
    slots = Slots(1)
    assert slots.take(1) == 1
    order: list[str] = []

    async def lane(name: str) -> None:
        assert await slots.changed(5.0) == 1
        order.append(name)
        slots.give()

    waiting = [asyncio.create_task(lane(name)) for name in ("first", "second", "third")]
    await asyncio.sleep(0)
    slots.give()
    # the slot belongs to the first that waits, whoever asks in between
    assert slots.take(1) == 0
    await asyncio.gather(*waiting)
    assert order == ["first", "second", "third"]
    assert slots.free == 1


async def test_a_slot_that_comes_to_a_cancelled_wait_is_not_lost() -> None:
    slots = Slots(1)
    slots.take(1)
    waiting = asyncio.create_task(slots.changed(5.0))
    await asyncio.sleep(0)
    slots.give()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.free == 1
