"""An entry is read, handled and handed off, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from events import codec, keys
from events.connection import connect
from events.types import PhotoSubmitted, SchemaExtracted
from shared.operations import photos
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.retry.errors import PermanentError
from tests.shared.delivery.harness import entries, extracted, publisher, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_an_event_becomes_the_next_agents_event_and_leaves_its_stream(
    redis: Redis, redis_url: str
) -> None:
    settings = settings_for(redis_url)
    photo = PhotoSubmitted(source_url="https://example.org/a.jpg", session_id="s1", expected=1)  # type: ignore[arg-type]
    async with running(settings) as (_, agent), publisher(settings) as upstream:
        sent = await upstream.publish(photo, event_id="e-1")
        again = await upstream.publish(photo, event_id="e-1")
        assert not again.fresh
        assert again.entry_id == sent.entry_id
        [fields] = await until(lambda: entries(redis, "erni:schema.extracted"))
        assert await redis.xlen("erni:photo.submitted") == 0
    assert [event.photo_id for event in agent.handled] == [sent.photo_id]
    envelope = codec.decode("schema.extracted", "1-0", fields)
    assert isinstance(envelope.event, SchemaExtracted)
    assert envelope.photo_id == sent.photo_id
    assert envelope.session_id == "s1"
    assert [step.agent for step in codec.read_steps(envelope.steps)] == ["schema_extractor"]
    session = await redis.hgetall("erni:session:s1")
    assert session[b"received"] == session[b"schema_extractor"] == b"1"
    # the process signed off
    assert not await redis.exists("erni:beats:schema_extractor", "erni:processes:schema_extractor")


async def test_a_hand_written_entry_with_nothing_but_data_is_enough(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url)
    async with running(settings):
        await redis.xadd(
            "erni:photo.submitted", {"data": '{"source_url": "file:/photos/a.jpg"}', "shop": "7"}
        )
        [fields] = await until(lambda: entries(redis, "erni:schema.extracted"))
    # unknown fields travel along
    assert fields[fields.index(b"shop") + 1] == b"7"


async def test_a_field_that_does_not_exist_is_said_and_stops_nothing(redis: Redis, redis_url: str) -> None:
    data = b'{"source_url": "https://example.org/a", "file_nmae": "a.jpg", "hints": {"projekt": "Seewen"}}'
    async with running(settings_for(redis_url)) as (process, agent):
        before = process.metrics.unknown_fields._value.get()
        await redis.xadd("erni:photo.submitted", {"data": data})
        await until(lambda: redis.xlen("erni:schema.extracted"))
        [event] = agent.handled
        record = await photos.show(redis, str(event.photo_id))
        assert record is not None
        assert record.unknown_fields == ["file_nmae", "hints.projekt"]
        assert process.metrics.unknown_fields._value.get() == before + 1
        # published again without them, the photo has none any more
        again = b'{"source_url": "https://example.org/a", "file_name": "a.jpg", "photo_id": "%s"}'
        await redis.xadd(
            "erni:photo.submitted", {"data": again % str(event.photo_id).encode(), "id": "again"}
        )
        # the record is written in the same step as the output
        await until(lambda: _two(redis))
        record = await photos.show(redis, str(event.photo_id))
        assert record is not None
        assert record.unknown_fields == []


async def _two(redis: Redis) -> bool:
    return await redis.xlen("erni:schema.extracted") == 2


async def test_a_permanent_error_is_one_dead_letter_that_says_why(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url)

    async def fail(_: PhotoSubmitted) -> SchemaExtracted:
        raise PermanentError("no library «X» at https://user:pw@host/x?sig=abc")

    async with running(settings, fail) as (_, agent), publisher(settings) as upstream:
        sent = await upstream.publish(PhotoSubmitted(source_url="https://example.org/a.jpg"))
        await until(lambda: redis.xlen("erni:dead:schema_extractor"))
        assert len(agent.handled) == 1
    client = connect(redis_url)
    letters = DeadLetters(client)
    [letter] = [letter async for letter in letters.find(DeadFilter())]
    original = await letters.original(letter)
    await client.aclose()
    assert letter.reason == "permanent"
    assert letter.photo_id == sent.photo_id
    assert "no library «X»" in letter.message
    assert "sig=abc" not in letter.message
    assert "pw" not in letter.message
    assert b"data" in original


async def test_a_dead_letter_that_is_replayed_keeps_its_trace_and_goes_through(
    redis: Redis, redis_url: str
) -> None:
    settings = settings_for(redis_url)
    healed = asyncio.Event()

    async def fail_first(event: PhotoSubmitted) -> SchemaExtracted:
        if not healed.is_set():
            raise PermanentError("the library is not there yet")
        return extracted(event)

    client = connect(redis_url)
    letters = DeadLetters(client)
    async with running(settings, fail_first), publisher(settings) as upstream:
        await upstream.publish(
            PhotoSubmitted(source_url="https://example.org/a.jpg", session_id="s1", expected=1)  # type: ignore[arg-type]
        )
        await until(lambda: redis.xlen("erni:dead:schema_extractor"))
        session = await redis.hgetall("erni:session:s1")
        assert session[b"dead"] == session[b"received"] == session[b"completion"] == b"1"
        [letter] = [letter async for letter in letters.find(DeadFilter())]
        healed.set()
        both = await asyncio.gather(letters.replay(letter), letters.replay(letter))
        assert sorted(result.outcome for result in both) == ["gone", "replayed"]
        [fields] = await until(lambda: entries(redis, "erni:schema.extracted"))
    await client.aclose()
    assert fields[fields.index(b"traceparent") + 1][3:35] == letter.traceparent[3:35].encode()
    assert await redis.xlen("erni:dead:schema_extractor") == 0
    session = await redis.hgetall("erni:session:s1")
    assert (session[b"dead"], session[b"received"], session[b"status"]) == (b"0", b"1", b"open")
    assert await redis.xlen("erni:session.completed") == 1


async def test_the_last_photo_of_a_session_completes_it_once(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url)

    async def fail(_: PhotoSubmitted) -> SchemaExtracted:
        raise PermanentError("no")

    async with running(settings, fail), publisher(settings) as upstream:
        await upstream.open_session("s1", expected=3)
        for name in "abc":
            await upstream.publish(PhotoSubmitted(source_url=f"https://example.org/{name}", session_id="s1"))  # type: ignore[arg-type]
        [fields] = await until(lambda: entries(redis, "erni:session.completed"))
    event = codec.decode("session.completed", "1-0", fields).event
    assert event.counters == {"dead": 3, "received": 3}  # type: ignore[union-attr]
    assert event.completion == 1  # type: ignore[union-attr]


async def test_lanes_spread_the_work_and_keep_a_session_together(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url, lanes=4)
    async with running(settings) as (_, agent), publisher(settings) as upstream:
        for number in range(24):
            await upstream.publish(
                PhotoSubmitted(source_url=f"https://example.org/{number}", session_id=f"s{number % 6}")  # type: ignore[arg-type]
            )

        async def moved() -> bool:
            lengths = [await redis.xlen(f"erni:{{{lane}}}:schema.extracted") for lane in range(1, 5)]
            return sum(lengths) == 24 and sum(length > 0 for length in lengths) > 1

        await until(moved)
    assert len(agent.handled) == 24


async def test_an_entry_written_into_the_wrong_lane_moves_to_its_own_once(
    redis: Redis, redis_url: str
) -> None:
    settings = settings_for(redis_url, lanes=4)
    own = keys.lane_of("s1", 4).lane
    wrong = next(lane for lane in range(1, 5) if lane != own)
    async with running(settings) as (_, agent):
        await redis.xadd(
            f"erni:{{{wrong}}}:photo.submitted",
            {"data": '{"source_url": "file:/a.jpg", "session_id": "s1"}'},
        )
        await until(lambda: redis.xlen(f"erni:{{{own}}}:schema.extracted"))
        await until(lambda: gone(redis, f"erni:{{{wrong}}}:photo.submitted"))
    assert len(agent.handled) == 1
    assert (await redis.hget(f"erni:{{{own}}}:session:s1", "received")) == b"1"
    assert not await redis.exists(f"erni:{{{wrong}}}:session:s1")


async def gone(redis: Redis, stream: str) -> bool:
    return await redis.xlen(stream) == 0
