"""Publishing several events together: all or none of a lane, each once, and nothing is half done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events import codec
from events.connection import call, connect
from events.identities import SessionId
from events.keys import lane_of
from events.publisher import (
    EventReusedError,
    EventsReusedError,
    EventTooLargeError,
    InvalidEventError,
    Publisher,
    PublishRefusedError,
    PublishUnknownError,
)
from events.types import PhotoSubmitted
from sandbox.redis_server import Valkey
from tests.shared.delivery.harness import entries, until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from events.publisher import Prepared

INTAKE = "erni:photo.submitted"
LANES = 4
SESSIONS = {lane_of(f"s{n}", LANES).lane: f"s{n}" for n in range(40)}
"""A session of each of the four lanes."""


def prepared(publisher: Publisher, *names: str, session: str = "s1") -> list[Prepared]:
    return [
        publisher.prepare(
            PhotoSubmitted(source_url=f"store:originals/{name}", session_id=SessionId(session)), event_id=name
        )
        for name in names
    ]


async def test_events_are_published_in_their_order_and_only_once(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a")
    first = await publisher.send_all(prepared(publisher, "1", "2"))
    again = await publisher.send_all(prepared(publisher, "2", "3", "1", "3"))
    assert [one.fresh for one in first] == [True, True]
    assert [one.fresh for one in again] == [False, True, False, False]
    assert [one.event_id for one in again] == ["2", "3", "1", "3"]
    assert again[1].entry_id == again[3].entry_id
    assert [again[2].entry_id, again[0].entry_id] == [one.entry_id for one in first]
    decoded = [codec.decode("photo.submitted", "1-0", fields) for fields in await entries(redis, INTAKE)]
    assert [one.event_id for one in decoded] == ["1", "2", "3"]
    assert all(one.marked and one.canonical for one in decoded)


async def test_alone_and_together_an_event_has_the_same_marker(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a")
    (alone,) = prepared(publisher, "1")
    await publisher.send(alone)
    assert [one.fresh for one in await publisher.send_all(prepared(publisher, "1", "2"))] == [False, True]
    assert not (await publisher.send(prepared(publisher, "2")[0])).fresh
    other = PhotoSubmitted(source_url="store:originals/other", session_id=SessionId("s1"))
    with pytest.raises(EventReusedError):
        await publisher.publish(other, event_id="2")
    assert await redis.xlen(INTAKE) == 2


async def test_one_used_id_stops_all_and_is_named_by_its_number(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a")
    await publisher.send_all(prepared(publisher, "1"))
    other = publisher.prepare(
        PhotoSubmitted(source_url="store:originals/x", session_id=SessionId("s1")), event_id="1"
    )
    with pytest.raises(EventsReusedError) as reused:
        await publisher.send_all([*prepared(publisher, "2", "3"), other])
    assert list(reused.value.sentences) == [2]
    assert "the event id '1' of source 'urn:a' was published before" in reused.value.sentences[2]
    assert await redis.xlen(INTAKE) == 1
    with pytest.raises(EventsReusedError) as reused:
        await publisher.send_all([*prepared(publisher, "5"), other, *prepared(publisher, "1")])
    assert list(reused.value.sentences) == [2]
    assert await redis.xlen(INTAKE) == 1


async def test_without_room_for_all_none_is_published(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a", max_backlog=2)
    await publisher.send_all(prepared(publisher, "1"))
    with pytest.raises(PublishRefusedError, match="nothing was published"):
        await publisher.send_all(prepared(publisher, "2", "3"))
    assert await redis.xlen(INTAKE) == 1
    assert await redis.get("erni:refused") == b"1"
    # what is published before needs no room
    assert [one.fresh for one in await publisher.send_all(prepared(publisher, "1", "2"))] == [False, True]
    assert [one.fresh for one in await publisher.send_all(prepared(publisher, "1", "2"))] == [False, False]


@pytest.mark.leaves_keys(r"erni:\{\d\}:refused")
async def test_trouble_in_one_lane_is_seen_before_another_is_written(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a", lanes=LANES, max_backlog=1)
    full = SESSIONS[4]
    await publisher.send_all(prepared(publisher, "full", session=full))
    batch = [
        event
        for lane, session in sorted(SESSIONS.items(), key=lambda pair: pair[0] or 0)
        for event in prepared(publisher, f"e{lane}", session=session)
    ]
    with pytest.raises(PublishRefusedError, match="nothing was published"):
        await publisher.send_all(batch)
    lengths = [await redis.xlen(f"erni:{{{lane}}}:photo.submitted") for lane in range(1, 5)]
    assert lengths == [0, 0, 0, 1]
    await redis.xtrim("erni:{4}:photo.submitted", maxlen=0)
    published = await publisher.send_all(batch)
    assert [one.event_id for one in published] == [event.event_id for event in batch]
    assert all(one.fresh for one in published)


async def test_a_lane_that_fails_after_another_is_completed_by_the_same_list(
    client: Redis, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(client, source="urn:a", lanes=LANES)
    batch = [event for lane in (1, 2) for event in prepared(publisher, f"e{lane}", session=SESSIONS[lane])]
    run = Publisher._run
    calls = 0

    async def fails_once(self: Publisher, *words: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:  # looked at two lanes, wrote one
            raise PublishRefusedError("Redis is at its memory limit", retry_after=15)
        return await run(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Publisher, "_run", fails_once)
    with pytest.raises(
        PublishRefusedError, match=r"^1 of 2 events are published, .* send the same events again"
    ):
        await publisher.send_all(batch)
    assert [one.fresh for one in await publisher.send_all(batch)] == [False, True]
    assert [await redis.xlen(f"erni:{{{lane}}}:photo.submitted") for lane in (1, 2)] == [1, 1]


async def test_a_thousand_large_events_fit_into_one_call(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a")
    batch = [
        publisher.prepare(
            PhotoSubmitted(source_url="https://example.org/" + "x" * 7000 + str(number)),
            event_id=str(number),
            extras={f"ext{n}": "v" for n in range(40)},
        )
        for number in range(1000)
    ]
    assert all(one.fresh for one in await publisher.send_all(batch))
    assert await redis.xlen(INTAKE) == 1000


async def test_extension_attributes_and_the_time_travel_along(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a")
    event = publisher.prepare(
        PhotoSubmitted(source_url="store:originals/1"),
        event_id="1",
        made_at="2026-05-12T10:30:00Z",
        extras={"comexample": "wert ü", "dataschema": "https://example.org/schema"},
    )
    await publisher.send(event)
    (fields,) = await entries(redis, INTAKE)
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    assert pairs[b"time"] == b"2026-05-12T10:30:00Z"
    envelope = codec.decode("photo.submitted", "1-0", fields)
    assert dict(zip(envelope.extras[::2], envelope.extras[1::2], strict=True)) == {
        b"comexample": "wert ü".encode()
    }
    assert pairs[b"traceparent"].decode() == event.traceparent


@pytest.mark.parametrize(
    ("extras", "sentence"),
    [
        ({"ernireplay": "9 x"}, "'ernireplay' is written by this system"),
        ({"data": "{}"}, "'data' is written by this system"),
        ({"My-Ext": "1"}, "'My-Ext' cannot be used: a name has only a-z and 0-9"),
        ({f"e{n}": "" for n in range(41)}, "41 extension attributes; 40 are allowed"),
    ],
)
def test_attributes_that_would_confuse_an_agent_are_refused(
    client: Redis, extras: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InvalidEventError, match=sentence):
        Publisher(client).prepare(PhotoSubmitted(source_url="store:originals/1"), extras=extras)


def test_an_event_that_is_too_large_has_an_error_of_its_own(client: Redis) -> None:
    publisher = Publisher(client, max_event_bytes=1024)
    with pytest.raises(EventTooLargeError, match="1024 are allowed"):
        publisher.prepare(PhotoSubmitted(source_url="store:originals/" + "ä" * 600))


async def test_a_batch_waits_for_replicas_also_when_it_was_published_before(
    own_redis_server: Valkey, tmp_path: Path
) -> None:
    replica = Valkey(tmp_path / "replica").start()
    try:
        async with connect(own_redis_server.url) as redis, connect(replica.url) as other:
            publisher = Publisher(redis, source="urn:a", wait_replicas=1)
            with pytest.raises(PublishUnknownError, match="2 events: each of them is written, but 0 of 1"):
                await publisher.send_all(prepared(publisher, "1", "2"))
            assert await redis.xlen(INTAKE) == 2
            await call(other, "REPLICAOF", "127.0.0.1", own_redis_server.port)
            await until(lambda: _has(other, 2))
            again = await publisher.send_all(prepared(publisher, "1", "2", "3"))
            assert [one.fresh for one in again] == [False, False, True]
            assert await other.xlen(INTAKE) == 3
    finally:
        replica.stop()


async def _has(redis: Redis, entries_: int) -> bool:
    return bool(await redis.xlen(INTAKE) == entries_)
