"""Publishing: once by event id, refused when there is no room, and never something no agent can read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events import codec, intake
from events.connection import RedisError, connect
from events.identities import InvalidIdError, SessionId
from events.keys import Keys, lane_of
from events.publisher import (
    EventReusedError,
    InvalidEventError,
    Publisher,
    PublishRefusedError,
    parse_submission,
)
from events.types import Hints, PhotoSubmitted, Target
from tests.shared.delivery.harness import entries, running, settings_for, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey
    from tests.events.conftest import LossyLine

INTAKE = "erni:photo.submitted"
PHOTO = PhotoSubmitted(source_url="https://example.org/a.jpg")


def of_session(session: str, source: str = "https://example.org/a.jpg", **more: Any) -> PhotoSubmitted:
    return PhotoSubmitted(source_url=source, session_id=SessionId(session), **more)


async def test_the_same_event_id_is_the_same_event(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client)
    first = await publisher.publish(PHOTO, event_id="order-7/1")
    again = await publisher.publish(PHOTO, event_id="order-7/1")
    other = await publisher.publish(PHOTO, event_id="order-7/2")
    assert (first.fresh, again.fresh, other.fresh) == (True, False, True)
    assert first.entry_id == again.entry_id != other.entry_id
    assert first.photo_id == other.photo_id
    assert await redis.xlen(INTAKE) == 2
    assert 86_000 < await redis.ttl("erni:published:erni:order-7/1") <= 86_400


async def test_two_sources_may_use_the_same_event_id(client: Redis, redis: Redis) -> None:
    events = {"urn:a": of_session("s", "store:a"), "urn:b": of_session("s", "store:b")}
    for _ in range(2):
        for source, event in events.items():
            await Publisher(client, source=source).publish(event, event_id="1")
    decoded = [
        codec.decode("photo.submitted", "1-0", fields).event for fields in await entries(redis, INTAKE)
    ]
    assert [getattr(event, "source_url", None) for event in decoded] == ["store:a", "store:b"]


async def test_the_end_of_a_source_is_certain(client: Redis) -> None:
    first = await Publisher(client, source="a:b").publish(PHOTO, event_id="c")
    other = await Publisher(client, source="a").publish(PHOTO, event_id="b:c")
    assert first.fresh
    assert other.fresh


async def test_the_first_answer_comes_again_for_the_same_content_only(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, source="urn:a")
    event = of_session("s", hints=Hints(place="Bern"))
    first = await publisher.publish(event, event_id="1")
    again = await publisher.publish(msgspec.structs.replace(event, photo_id=first.photo_id), event_id="1")
    assert msgspec.structs.replace(again, fresh=True) == first
    with pytest.raises(
        EventReusedError, match="'1' of source 'urn:a' was published before with other content"
    ) as reused:
        await publisher.publish(of_session("s", hints=Hints(place="Basel")), event_id="1")
    assert reused.value.entry_id == first.entry_id
    assert await redis.xlen(INTAKE) == 1


async def test_a_publisher_without_our_code_is_compared_by_the_bytes_of_its_data(
    client: Redis, redis: Redis
) -> None:
    async def publish(data: str) -> Any:
        keys = [INTAKE, "erni:published:urn%3Ajs:1", "erni:refused"]
        return await intake.PUBLISH(client, keys, [1000, 10, "id", "1", "source", "urn:js", "data", data])

    assert [(await publish("{}"))[::2], (await publish("{}"))[::2]] == [[b"OK", 1], [b"OK", 0]]
    assert (await publish('{"a": 1}'))[0] == b"REUSED"
    assert await redis.xlen(INTAKE) == 1


async def test_an_older_script_goes_on_with_its_own_markers(client: Redis, redis: Redis) -> None:
    await redis.set("erni:published:e", "7-0", px=1000)
    args: list[str | bytes | int | float] = [1000, 10, "id", "e", "data", "{}"]
    assert await intake.PUBLISH(client, [INTAKE, "erni:published:e", "erni:refused"], args) == [
        b"OK",
        b"7-0",
        0,
    ]


@pytest.mark.parametrize("lanes", [1, 4])
async def test_what_was_written_by_hand_twice_is_handled_once(
    redis: Redis, redis_url: str, lanes: int
) -> None:
    published = []

    async def add(source: str, data: str, lane: Keys) -> None:
        await redis.xadd(lane.stream("photo.submitted"), {"id": "1", "source": source, "data": data})
        published.append(source)

    own = lane_of("s", lanes)
    there = Keys(own.lane % lanes + 1) if own.lane else own
    same = ('{"source_url": "store:x", "session_id": "s"}', '{"session_id":"s","source_url":"store:x"}')
    async with running(settings_for(redis_url, lanes=lanes)):
        for lane in (own, there):
            await add("urn:a", same[0], lane)
            await add("urn:a", same[1], lane)
        await add("urn:b", same[0], own)
        await until(lambda: _all_gone(redis, own, there))
        assert len(await entries(redis, own.stream("schema.extracted"))) == 2
        assert await redis.hget(own.session("s"), "received") == b"2"
        await add("urn:a", '{"source_url": "store:y", "session_id": "s"}', own)
        await until(lambda: redis.xlen(own.dead("schema_extractor")))
    [letter] = await entries(redis, own.dead("schema_extractor"))
    assert b"published before with other content" in letter[letter.index(b"message") + 1]


async def _all_gone(redis: Redis, *lanes: Keys) -> bool:
    return not any([await redis.xlen(lane.stream("photo.submitted")) for lane in lanes])


async def test_a_publish_after_the_same_event_by_hand_is_its_repetition(redis: Redis, redis_url: str) -> None:
    data = '{"session_id": "s", "source_url": "https://example.org/a.jpg"}'
    async with running(settings_for(redis_url)), connect(redis_url) as client:
        await redis.xadd(INTAKE, {"id": "1", "source": "urn:a", "data": data})
        await until(lambda: _empty(redis, INTAKE))
        publisher = Publisher(client, source="urn:a")
        assert not (await publisher.publish(of_session("s"), event_id="1")).fresh
        with pytest.raises(EventReusedError):
            await publisher.publish(of_session("s", "store:y"), event_id="1")


async def test_without_an_event_id_each_publish_is_an_event(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client)
    sent = [await publisher.publish(PHOTO) for _ in range(3)]
    assert len({published.event_id for published in sent}) == 3
    assert await redis.xlen(INTAKE) == 3


async def test_fifty_at_once_with_one_event_id_publish_one(redis: Redis, redis_url: str) -> None:
    async with connect(redis_url) as one, connect(redis_url, max_connections=2) as other:
        publishers = [Publisher(one), Publisher(other)]
        sent = await asyncio.gather(
            *(publishers[number % 2].publish(PHOTO, event_id="e") for number in range(50))
        )
    assert sum(published.fresh for published in sent) == 1
    assert len({published.entry_id for published in sent}) == 1
    assert await redis.xlen(INTAKE) == 1


async def test_a_publish_whose_reply_was_lost_may_be_sent_again(redis: Redis, line: LossyLine) -> None:
    async with connect(line.url) as client:
        publisher = Publisher(client)
        # the connection is made and the server knows the script: only the publish itself is lost
        await publisher.publish(PHOTO)
        line.to_lose = 1
        with pytest.raises(RedisError):
            await publisher.publish(PHOTO, event_id="e")
        assert line.to_lose == 0
        again = await publisher.publish(PHOTO, event_id="e")
    assert not again.fresh
    assert await redis.xlen(INTAKE) == 2


async def test_a_full_backlog_refuses_and_says_when_to_come_back(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, max_backlog=2)
    await publisher.publish(PHOTO, event_id="a")
    await publisher.publish(PHOTO, event_id="b")
    with pytest.raises(
        PublishRefusedError, match=r"holds 2 entries, at most 2 .*MAX_BACKLOG.*nothing was published"
    ) as refused:
        await publisher.publish(PHOTO, event_id="c")
    assert refused.value.retry_after > 0
    # what is in already is in
    assert not (await publisher.publish(PHOTO, event_id="a")).fresh
    assert await redis.xlen(INTAKE) == 2
    # a refused event was not published: it may come again
    await redis.xtrim(INTAKE, 0)
    assert (await publisher.publish(PHOTO, event_id="c")).fresh


async def test_a_full_redis_refuses_new_photos_and_settles_those_it_has(own_redis_server: Valkey) -> None:
    url = own_redis_server.url
    settings = settings_for(url)
    async with connect(url) as client, connect(url) as redis:
        publisher = Publisher(client)
        for number in range(5):
            await publisher.publish(of_session("s1", f"https://example.org/{number}"))
        await redis.config_set("maxmemory", 1)
        for call in (publisher.publish(PHOTO, event_id="late"), publisher.open_session("s2", expected=1)):
            with pytest.raises(
                PublishRefusedError, match=r"memory limit .* nothing was published"
            ) as refused:
                await call
            assert refused.value.retry_after > 0
        # an agent that reads already goes on; a new one could not make its group now, so it comes first
        await redis.config_set("maxmemory", 0)
        hold = asyncio.Event()

        async def wait_then(event: PhotoSubmitted) -> Any:
            from tests.shared.delivery.harness import extracted

            await hold.wait()
            return extracted(event)

        async with running(settings, wait_then) as (_, agent):
            await until(lambda: _handled(agent.handled, 5))
            await redis.config_set("maxmemory", 1)
            hold.set()
            await until(lambda: _empty(redis, INTAKE))
            assert len(await entries(redis, "erni:schema.extracted")) == 5
            await redis.config_set("maxmemory", 0)
        assert (await publisher.publish(PHOTO, event_id="late")).fresh


async def _handled(handled: list[PhotoSubmitted], number: int) -> bool:
    return len(handled) == number


async def _empty(redis: Redis, stream: str) -> bool:
    return bool(await redis.xlen(stream) == 0)


async def test_an_event_that_is_too_big_is_refused_before_it_is_sent(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, max_event_bytes=2000)
    with pytest.raises(InvalidEventError, match=r"has \d{4} bytes; 2000 are allowed .*reference"):
        await publisher.publish(PhotoSubmitted(source_url="store:x", hints=Hints(text="x" * 2000)))
    await publisher.publish(PhotoSubmitted(source_url="store:x", hints=Hints(text="x" * 1000)))
    assert await redis.xlen(INTAKE) == 1


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (PhotoSubmitted(source_url="photos/a.jpg"), "has no scheme: give an address .* https:"),
        (PhotoSubmitted(source_url="ftp://user:pw@host/a.jpg?sig=abc"), "has the scheme 'ftp'"),
        (PhotoSubmitted(source_url="file:/a\ud800"), "no photo.submitted event"),
        (PhotoSubmitted(source_url=7), "no photo.submitted event.*source_url"),  # type: ignore[arg-type]  # as untyped callers do
        (PhotoSubmitted(source_url="store:x", hints={"project": 1}), "project"),  # type: ignore[arg-type]  # likewise
        (of_session("a b"), "session_id 'a b' cannot be used: give 1 to 128 characters"),
        (of_session("s" * 129), "session_id"),
        (of_session("{1}:x"), "session_id"),
        (of_session("lru"), "reserved"),
        (PhotoSubmitted(source_url="store:x", photo_id="../etc"), "photo_id '../etc'"),  # type: ignore[arg-type]  # an unchecked one
        (PhotoSubmitted(source_url="store:x", photo_id="a\nb"), "photo_id"),  # type: ignore[arg-type]  # likewise
        (of_session("s", expected=0), "expected=0"),
        (of_session("s", expected=-1), "expected"),
        (of_session("s", expected=10**30), "expected"),
    ],
)
async def test_what_no_agent_could_read_is_refused_with_a_sentence(
    client: Redis, redis: Redis, event: PhotoSubmitted, says: str
) -> None:
    with pytest.raises(InvalidEventError, match=says) as refused:
        await Publisher(client).publish(event)
    assert "pw" not in str(refused.value)
    assert "sig" not in str(refused.value)
    assert await redis.xlen(INTAKE) == 0


@pytest.mark.parametrize("event_id", ["", "x" * 257, "a\nb", "a\x1b[31m", "\ud800"])
async def test_a_bad_event_id_is_refused(client: Redis, redis: Redis, event_id: str) -> None:
    with pytest.raises(InvalidEventError, match=r"event id .* 1 to 256 printable characters"):
        await Publisher(client).publish(PHOTO, event_id=event_id)
    assert await redis.xlen(INTAKE) == 0


@pytest.mark.parametrize("source", ["", " ", "urn:a b", "a\nb", "é", "x" * 1025, "%zz"])
async def test_a_source_that_is_no_uri_reference_is_refused(client: Redis, source: str) -> None:
    with pytest.raises(InvalidEventError, match=r"source .* is no URI reference"):
        Publisher(client, source=source)


async def test_an_empty_session_or_photo_id_counts_as_none(client: Redis) -> None:
    published = await Publisher(client).publish(of_session("", photo_id=""))
    assert published.session_id is None
    assert published.photo_id.startswith("p-")


async def test_what_is_published_is_what_an_agent_decodes(client: Redis, redis: Redis) -> None:
    event = of_session(
        "bau-7", "store:originals/é", photo_id="foto-1", file_name="Bild «1».jpg", hints=Hints(place="Zürich")
    )
    published = await Publisher(client, source="https://bau.example/shop").publish(event, event_id="e-1")
    [fields] = await entries(redis, INTAKE)
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    assert pairs[b"source"] == b"https://bau.example/shop"
    assert (pairs[b"specversion"], pairs[b"type"]) == (b"1.0", b"photo.submitted")
    assert pairs[b"traceparent"].count(b"-") == 3
    envelope = codec.decode("photo.submitted", published.entry_id, fields)
    assert envelope.event == event
    assert (envelope.event_id, envelope.photo_id, envelope.session_id) == ("e-1", "foto-1", "bau-7")


# --- sessions ---------------------------------------------------------------------------------------------


async def test_the_first_expected_counts_until_the_session_is_closed(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client)
    assert await publisher.open_session("s1") == 0
    assert await publisher.open_session("s1", expected=3, target=Target(library="Fotos")) == 3
    assert await publisher.open_session("s1", expected=4) == 3
    assert await publisher.close_session("s1", expected=5) == 5
    assert await redis.hget("erni:session:s1", "library") == b"Fotos"


async def test_an_expected_in_an_event_counts_unless_one_was_told_before(
    redis: Redis, redis_url: str
) -> None:
    async with running(settings_for(redis_url)), connect(redis_url) as client:
        publisher = Publisher(client)
        await publisher.publish(of_session("in-event", expected=2))
        await publisher.open_session("before", expected=9)
        await publisher.publish(of_session("before", expected=2))
        await until(lambda: _has(redis, "erni:schema.extracted", 2))
        assert await redis.hget("erni:session:in-event", "expected") == b"2"
        assert await redis.hget("erni:session:before", "expected") == b"9"
        assert await publisher.open_session("in-event", expected=7) == 2


async def _has(redis: Redis, stream: str, length: int) -> bool:
    return bool(await redis.xlen(stream) == length)


async def test_closing_a_session_whose_photos_have_ended_completes_it_once(
    client: Redis, redis: Redis
) -> None:
    publisher = Publisher(client)
    await publisher.open_session("s1")
    counted: Callable[..., Awaitable[int]] = redis.hset
    await counted("erni:session:s1", mapping={"received": 2, "validated": 1, "dead": 1})
    assert await publisher.close_session("s1", expected=2) == 2
    assert await publisher.close_session("s1", expected=2) == 2
    [fields] = await entries(redis, "erni:session.completed")
    event = codec.decode("session.completed", "1-0", fields).event
    assert msgspec.to_builtins(event) == {
        "session_id": "s1",
        "completion": 1,
        "expected": 2,
        "counters": {"received": 2, "validated": 1, "dead": 1},
        "created_at": event.created_at,  # type: ignore[union-attr]  # a SessionCompleted, as the stream says
        "completed_at": event.completed_at,  # type: ignore[union-attr]
    }


@pytest.mark.parametrize("expected", [0, -1])
async def test_closing_needs_a_number(client: Redis, expected: int) -> None:
    with pytest.raises(InvalidEventError, match="number of photos that were published"):
        await Publisher(client).close_session("s1", expected=expected)


@pytest.mark.parametrize("expected", [-1, 10**30])
async def test_opening_refuses_a_number_that_is_none(client: Redis, expected: int) -> None:
    with pytest.raises(InvalidEventError, match="number of photos"):
        await Publisher(client).open_session("s1", expected=expected)


async def test_a_bad_session_id_opens_nothing(client: Redis, redis: Redis) -> None:
    with pytest.raises(InvalidIdError, match="session_id"):
        await Publisher(client).open_session("a b", expected=1)
    assert await redis.dbsize() == 0


# --- lanes ------------------------------------------------------------------------------------------------


async def test_a_session_stays_in_one_lane_and_photos_without_one_spread(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, lanes=4)
    for number in range(32):
        await publisher.publish(of_session("s1", f"https://example.org/{number}"))
    lengths = sorted([await redis.xlen(f"erni:{{{lane}}}:photo.submitted") for lane in range(1, 5)])
    assert lengths == [0, 0, 0, 32]
    for number in range(32):
        await publisher.publish(PhotoSubmitted(source_url=f"https://example.org/{number}"))
    lengths = [await redis.xlen(f"erni:{{{lane}}}:photo.submitted") for lane in range(1, 5)]
    assert all(lengths)
    assert sum(lengths) == 64


async def test_an_event_id_is_one_event_in_lanes_too(client: Redis, redis: Redis) -> None:
    publisher = Publisher(client, lanes=4)
    sent = [await publisher.publish(of_session("s1"), event_id="e{2}") for _ in range(2)]
    assert [published.fresh for published in sent] == [True, False]


# --- what upstream systems send as JSON ---------------------------------------------------------------------


def test_a_submission_is_read_from_json() -> None:
    event = parse_submission(
        '{"source_url": "https://a/b", "hints": {"place": "Bern"}, "target": {"library": "X"}}'
    )
    assert event == PhotoSubmitted(
        source_url="https://a/b", hints=Hints(place="Bern"), target=Target(library="X")
    )
    assert type(event) is PhotoSubmitted
    assert type(event.hints) is Hints


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"source_url": "https://a", "fotograf": "x"}', "fotograf"),
        (b'{"source_url": "https://a", "hints": {"projekt": "x"}}', r"projekt.*hints"),
        (b'{"source_url": "https://a", "target": {"bibliothek": "x"}}', r"bibliothek.*target"),
        (b'{"hints": {}}', "source_url"),
        (b"{", "truncated"),
        (b"[]", "array"),
        (b'"\xff"', "no photo.submitted event"),
        (b'{"source_url": "\xff"}', "no photo.submitted event"),
        (b'{"source_url": "x", "hints": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001, "no photo"),
    ],
)
def test_an_unknown_field_or_no_json_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidEventError, match=says):
        parse_submission(data)
