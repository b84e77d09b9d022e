"""POST /v1/events: the three modes, what a repetition gets, and that nothing is half published."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events import codec, topology
from events.identities import SessionId
from events.publisher import Publisher
from events.types import PhotoSubmitted
from tests.console.gateway.conftest import SOURCE, STRUCTURED, Client, event, key_of
from tests.shared.delivery.harness import entries

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey
    from shared.settings import Settings

INTAKE = "erni:photo.submitted"
BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "e-1",
    "ce-source": SOURCE,
    "ce-type": "photo.submitted",
    "Content-Type": "application/json",
}
DATA = b'{"source_url": "https://photos.example.org/1.jpg", "session_id": "s1"}'
TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


async def published(redis: Redis) -> list[dict[str, str]]:
    return [
        {name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=True)}
        for fields in await entries(redis, INTAKE)
    ]


async def test_the_three_modes_make_the_same_entry(client: Client, redis: Redis) -> None:
    first = await client.ask("POST", "/v1/events", data=DATA, headers=BINARY)
    assert first.status == 202, first.body
    again = [await client.publish(event()), await client.publish([event()])]
    assert [answer.status for answer in again] == [202, 202]
    assert all(answer.headers["Idempotent-Replayed"] == "true" for answer in again)
    accepted = first.document
    assert not accepted["replayed"]
    assert first.headers["Location"] == accepted["photo"] == f"/v1/photos/{accepted['photo_id']}"
    assert "Idempotent-Replayed" not in first.headers
    for answer in (again[0].document, again[1].document["events"][0]):
        assert answer == {**accepted, "replayed": True}
    (entry,) = await published(redis)
    assert entry["traceparent"][3:35] == accepted["trace_id"]
    assert (entry["id"], entry["source"], entry["sessionid"]) == ("e-1", SOURCE, "s1")
    assert entry["subject"] == accepted["photo_id"]


async def test_attributes_name_what_the_data_does_not_and_the_rest_travels_along(
    client: Client, redis: Redis
) -> None:
    answer = await client.publish(
        event(
            data={"source_url": "https://photos.example.org/1.jpg"},
            subject="p-7",
            sessionid="s2",
            time="2026-05-12T10:30:00+02:00",
            comexample="Baustelle ü",
            flag=True,
            amount=-7,
            nothing=None,
        )
    )
    assert (answer.document["photo_id"], answer.document["session_id"]) == ("p-7", "s2")
    (entry,) = await published(redis)
    assert entry["time"] == "2026-05-12T10:30:00+02:00"
    assert (entry["comexample"], entry["flag"], entry["amount"]) == ("Baustelle ü", "true", "-7")
    assert "nothing" not in entry
    data = msgspec.json.decode(entry["data"])
    assert (data["photo_id"], data["session_id"]) == ("p-7", "s2")


async def test_the_python_publisher_and_http_mean_the_same_event(client: Client, redis: Redis) -> None:
    photo = PhotoSubmitted(source_url="https://photos.example.org/1.jpg", session_id=SessionId("s1"))
    before = await Publisher(redis, source=SOURCE).publish(photo, event_id="e-1")
    answer = await client.publish(event())
    assert (answer.status, answer.document["entry_id"]) == (202, before.entry_id)
    assert answer.document["trace_id"] is None
    other = await client.publish(event(data={"source_url": "https://photos.example.org/2.jpg"}))
    assert (other.status, other.problem) == (422, "idempotency-key-reused")
    assert "was published before with other content" in other.detail
    assert len(await published(redis)) == 1


async def test_a_request_s_trace_becomes_the_photo_s_and_the_event_s_own_goes_before(
    client: Client, redis: Redis
) -> None:
    own = TRACE.replace("ab", "12")
    headers = {"traceparent": TRACE, "tracestate": "camera=1"}
    answers = [
        await client.publish(event(1), headers=headers),
        await client.publish(event(2, traceparent=own), headers=headers),
        await client.publish([event(3), event(4, traceparent=own)], headers=headers),
        await client.publish(event(5), headers={"traceparent": "00-nonsense"}),
    ]
    assert [answer.status for answer in answers] == [202] * 4
    contexts = [(one["traceparent"], one.get("tracestate", "")) for one in await published(redis)]
    assert contexts[:4] == [(TRACE, "camera=1"), (own, ""), (TRACE, "camera=1"), (own, "")]
    assert contexts[4][0] != TRACE
    assert answers[0].document["trace_id"] == "ab" * 16


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.leaves_keys(r"erni:\{\d\}:.*")
async def test_a_batch_with_one_bad_event_publishes_nothing_and_points_at_each(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis, lanes: int
) -> None:
    bad_hint = {"source_url": "https://photos.example.org/x.jpg", "hints": {"projekt": "Seewen"}}
    batch: list[Any] = [
        *(event(n, data={"source_url": f"store:originals/{n}", "session_id": f"s{n}"}) for n in range(8)),
        event(8, time="lunchtime"),
        event(9, data=bad_hint),
        event(10, source="urn:other"),
        "no object",
        event(12, type="photo.fetched"),
    ]
    async with served(msgspec.structs.replace(settings, lanes=lanes)) as client:
        answer = await client.publish(batch)
        assert (answer.status, answer.problem) == (400, "batch-refused")
        assert [one["pointer"] for one in answer.errors] == [
            "/8/time",
            "/9/data",
            "/10/source",
            "/11",
            "/12/type",
        ]
        assert [one["type"].rpartition("/")[2] for one in answer.errors] == [
            *("not-a-cloudevent", "event-refused", "event-refused", "not-a-cloudevent", "event-refused"),
        ]
        assert "lunchtime" in answer.errors[0]["detail"]
        assert "projekt" in answer.errors[1]["detail"]
        assert await redis.keys("erni:*photo.submitted") == []
        good = await client.publish(batch[:8])
        assert (good.status, len(good.document["events"])) == (202, 8)
        reused = await client.publish(
            [event(20), event(3, data={"source_url": "store:x", "session_id": "s3"})]
        )
        assert (reused.status, reused.problem) == (422, "idempotency-key-reused")
        assert [one["pointer"] for one in reused.errors] == ["/1/id"]


async def test_two_contents_of_one_id_in_a_batch_are_a_contradiction(client: Client, redis: Redis) -> None:
    answer = await client.publish([event(1), event(2), event(1, data={"source_url": "store:x"})])
    assert (answer.status, [one["pointer"] for one in answer.errors]) == (422, ["/2/id"])
    assert await published(redis) == []


async def test_an_empty_batch_is_accepted(client: Client) -> None:
    answer = await client.publish([])
    assert (answer.status, answer.document) == (202, {"events": []})


async def test_a_thousand_events_are_a_batch_and_one_more_is_not(client: Client, redis: Redis) -> None:
    batch = [event(number) for number in range(1001)]
    answer = await client.publish(batch)
    assert (answer.status, answer.problem) == (413, "too-large")
    assert "1,001 events; 1,000 are allowed" in answer.detail
    assert await redis.xlen(INTAKE) == 0
    answer = await client.publish(batch[:1000])
    assert answer.status == 202
    assert [one["event_id"] for one in answer.document["events"]] == [f"e-{n}" for n in range(1000)]
    # what a session has beyond its first photos waits in a stream of its own
    bulk = f"erni:{topology.bulk_of('photo.submitted')}"
    assert await redis.xlen(INTAKE) + await redis.xlen(bulk) == 1000


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the server closes a connection: it does not wait for the rest of the body."""
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_twenty_megabytes_are_refused_before_they_are_read(
    client: Client, redis: Redis, *, is_chunked: bool
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    length = "Transfer-Encoding: chunked" if is_chunked else "Content-Length: 20000000"
    writer.write(
        f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}\r\n"
        f"Content-Type: {STRUCTURED}\r\n{length}\r\n\r\n".encode()
    )
    if is_chunked:
        for _ in range(9):
            writer.write(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
    assert b" 413 " in await asyncio.wait_for(reader.readline(), 10)
    await ended(reader)
    writer.close()
    assert await redis.xlen(INTAKE) == 0


async def test_an_event_that_is_too_large_alone_says_what_to_do(client: Client) -> None:
    answer = await client.publish(event(data={"source_url": "https://x.example.org/" + "x" * 300_000}))
    assert (answer.status, answer.problem) == (413, "too-large")
    assert "262144 are allowed" in answer.detail


async def test_a_slow_body_ends_with_408_and_a_cut_one_publishes_nothing(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.gateway.events_api.BODY_SECONDS", 0.2)
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}\r\n"
        f"Content-Type: {STRUCTURED}\r\nContent-Length: 500\r\n\r\n{{"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(head)
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
    await asyncio.wait_for(reader.readuntil(b"body-too-slow"), 10)
    await ended(reader)
    writer.close()
    _, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(head)
    await writer.drain()
    writer.close()
    assert (await client.publish(event())).status == 202
    assert await redis.xlen(INTAKE) == 1


@pytest.mark.parametrize(
    ("headers", "body", "status", "problem", "sentence"),
    [
        ({"Content-Type": "text/plain"}, b"hello", 415, "media-type-unknown", "only JSON in UTF-8 is taken"),
        ({"Content-Type": "application/xml"}, b"<a/>", 415, "media-type-unknown", "send application/json"),
        (
            {"Content-Type": "application/json; charset=iso-8859-1"},
            DATA,
            415,
            "media-type-unknown",
            "only JSON in UTF-8",
        ),
        (
            {"Content-Encoding": "gzip"},
            b"\x1f\x8b",
            415,
            "media-type-unknown",
            "the body is compressed (gzip)",
        ),
        ({"ce-datacontenttype": "application/json"}, DATA, 400, "not-a-cloudevent", "Content-Type says what"),
        (
            {"ce-id": "%C0%A0"},
            DATA,
            400,
            "not-a-cloudevent",
            "the header ce-id is percent-encoded, but not as",
        ),
        ({"ce-specversion": "0.3"}, DATA, 400, "not-a-cloudevent", "'0.3' is not supported"),
        ({"ce-my-ext": "1"}, DATA, 400, "not-a-cloudevent", "the header ce-my-ext names no attribute"),
        ({"ce-erniremote": "1"}, DATA, 400, "event-refused", "'erniremote' is written by this system"),
        ({"ce-type": "photo.fetched"}, DATA, 400, "event-refused", "send photo.submitted"),
        (
            {"ce-subject": "a/b"},
            b'{"source_url": "store:a"}',
            400,
            "event-refused",
            "photo_id 'a/b' cannot be used",
        ),
        ({}, b'{"source_url": "store:a", "hint": {}}', 400, "event-refused", "unknown field `hint`"),
        ({}, b'{"source_url": "ftp://a/b"}', 400, "event-refused", "has the scheme 'ftp'"),
        ({}, b'{"source_url": ', 400, "event-refused", "Input data was truncated"),
        ({}, b"", 400, "event-refused", "the event has no data"),
        ({}, b'{"source_url": "\xff"}', 400, "event-refused", "this is no photo.submitted event"),
        ({}, b"[" * 100_000, 400, "event-refused", "this is no photo.submitted event"),
    ],
)
async def test_bad_input_in_binary_mode_is_answered_in_a_sentence(
    client: Client,
    redis: Redis,
    headers: dict[str, str],
    body: bytes,
    status: int,
    problem: str,
    sentence: str,
) -> None:
    answer = await client.ask("POST", "/v1/events", data=body, headers=BINARY | headers)
    assert (answer.status, answer.problem) == (status, problem), answer.body
    assert sentence in answer.detail
    assert await redis.xlen(INTAKE) == 0


@pytest.mark.parametrize(
    ("content_type", "body", "status", "problem", "sentence"),
    [
        (STRUCTURED, b"{", 400, "not-a-cloudevent", "this is no JSON object"),
        (STRUCTURED, b"[]", 400, "not-a-cloudevent", "this is no JSON object"),
        (STRUCTURED, b'{"id": "\\udead"}', 400, "not-a-cloudevent", "id"),
        ("application/cloudevents-batch+json", b"{}", 400, "not-a-cloudevent", "no JSON array"),
        ("application/cloudevents+avro", b"x", 415, "media-type-unknown", "'application/cloudevents+avro'"),
        ("application/json", DATA, 400, "not-a-cloudevent", "no headers ce-specversion, ce-id"),
        ("", b"x", 400, "not-a-cloudevent", "no headers ce-specversion"),
    ],
)
async def test_what_is_no_cloudevent_is_answered_in_a_sentence(
    client: Client, content_type: str, body: bytes, status: int, problem: str, sentence: str
) -> None:
    answer = await client.ask("POST", "/v1/events", data=body, headers={"Content-Type": content_type})
    assert (answer.status, answer.problem) == (status, problem), answer.body
    assert sentence in answer.detail


async def test_base64_data_needs_its_type(client: Client) -> None:
    encoded = event(data_base64="eyJzb3VyY2VfdXJsIjogInN0b3JlOmEifQ==")
    del encoded["data"]
    assert (await client.publish(encoded)).status == 415
    assert (await client.publish({**encoded, "datacontenttype": "application/json"})).status == 202
    broken = await client.publish({**encoded, "data_base64": "%%%"})
    assert (broken.status, broken.errors[0]["pointer"]) == (400, "/data_base64")


async def test_a_header_that_is_there_twice_is_refused(client: Client) -> None:
    headers = [*BINARY.items(), ("ce-id", "e-2"), ("Authorization", f"Bearer {client.key}")]
    async with client.http.post(f"{client.url}/v1/events", data=DATA, headers=headers) as answer:
        assert answer.status == 400
        assert "ce-id is there twice" in (await answer.json())["detail"]


async def test_full_and_out_of_memory_are_503_with_a_time(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis
) -> None:
    async with served(msgspec.structs.replace(settings, max_backlog=1)) as client:
        assert (await client.publish(event(1))).status == 202
        for answer in (await client.publish(event(2)), await client.publish([event(2), event(3)])):
            assert (answer.status, answer.problem, answer.headers["Retry-After"]) == (503, "no-room", "5")
            assert "nothing was published" in answer.detail
        assert (await client.publish(event(1))).status == 202
        await redis.config_set("maxmemory", "1")
        try:
            answer = await client.publish(event(4))
        finally:
            await redis.config_set("maxmemory", "0")
        assert (answer.status, answer.problem) == (503, "no-room")
        assert "memory limit" in answer.detail


async def test_with_redis_away_it_is_503_and_the_same_event_again_is_published_once(
    served: Callable[..., AbstractAsyncContextManager[Client]],
    settings: Settings,
    own_redis_server: Valkey,
) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(own_redis_server.url, protocol=2) as there:
        key = await key_of(there, "publisher")
    there_settings = msgspec.structs.replace(settings, redis_url=own_redis_server.url)
    async with served(there_settings) as client:
        client.key = key
        assert (await client.publish(event(1))).status == 202
        own_redis_server.kill()
        answer = await client.publish(event(2))
        assert (answer.status, answer.problem, answer.headers["Retry-After"]) == (503, "redis-away", "5")
        assert "send it again as it is" in answer.detail
        own_redis_server.start()
        assert (await client.publish(event(2))).status == 202
        assert (await client.publish(event(2))).headers["Idempotent-Replayed"] == "true"


async def test_the_web_hook_handshake_grants_the_origin_and_a_rate(client: Client) -> None:
    client.key = ""
    origin = {"WebHook-Request-Origin": "events.example.com", "WebHook-Request-Rate": "120"}
    answer = await client.ask("OPTIONS", "/v1/events", headers=origin)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["WebHook-Allowed-Origin"] == "events.example.com"
    assert answer.headers["WebHook-Allowed-Rate"] == "60000"
    assert "POST" in answer.headers["Allow"]
    plain = await client.ask("OPTIONS", "/v1/events")
    assert "WebHook-Allowed-Origin" not in plain.headers


async def test_an_entry_that_came_over_http_is_an_event_for_the_agents(client: Client, redis: Redis) -> None:
    await client.publish(event(1, comexample="1"))
    (fields,) = await entries(redis, INTAKE)
    envelope = codec.decode("photo.submitted", "1-0", fields)
    assert envelope.marked
    assert envelope.canonical
    assert envelope.extras == (b"comexample", b"1")
