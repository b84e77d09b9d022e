"""What a publisher sees of its photos and sessions, from the moment the gateway has answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events.identities import PhotoId, SessionId
from events.keys import Keys
from events.publisher import Publisher
from events.types import PhotoSubmitted, Step
from shared.delivery.photo_record import record_fields
from shared.operations import activity, forgetting, photos, submissions
from shared.photo_store import BlobStore
from shared.reports.facts import SessionFacts
from shared.reports.photo_report import write_photo_report
from shared.reports.session_report import write_session_report
from shared.sessions.shared_store import SharedSessions
from tests.console.gateway.conftest import SOURCE, Client, event, key_of, taken_in
from tests.shared.reports.sample import photo_report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.settings import Settings

TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


async def went(redis: Redis, photo: str, agent: str, outcome: str = "done", session: str = "s1") -> None:
    step = Step(agent=agent, started=1.0, seconds=2.0)
    fields = record_fields(step, outcome, "", TRACE, session, "a.jpg")
    await redis.hset(Keys().photo(photo), items=fields)
    await redis.expire(Keys().photo(photo), 100)


async def test_a_photo_can_be_followed_from_its_first_answer(client: Client, redis: Redis) -> None:
    data = {"source_url": "store:a", "session_id": "s1", "file_name": "a.jpg"}
    answer = await client.publish(event(data=data), headers={"traceparent": TRACE})
    at = answer.headers["Location"]
    shown = await client.ask("GET", at)
    assert shown.status == 200
    view = shown.document
    assert (view["status"], view["file_name"], view["session_id"]) == (
        "on its way to schema_extractor",
        "a.jpg",
        "s1",
    )
    assert (view["trace_id"], view["agents"], view["result"]) == ("ab" * 16, [], None)
    assert view["trace"].endswith("/trace/" + "ab" * 16)
    assert 172_000 < await redis.ttl(f"erni:photo:{view['photo_id']}") <= 172_800
    same = await client.ask("GET", at, headers={"If-None-Match": shown.headers["ETag"]})
    assert (same.status, same.body) == (304, b"")
    await went(redis, view["photo_id"], "schema_extractor")
    shown = await client.ask("GET", at, headers={"If-None-Match": shown.headers["ETag"]})
    assert (shown.status, shown.document["status"]) == (200, "on its way to photo_fetcher")
    assert shown.document["agents"][0]["agent"] == "schema_extractor"


async def test_a_validated_photo_has_its_verdict_and_its_sharepoint_address(
    client: Client, redis: Redis, settings: Settings
) -> None:
    report = photo_report(1)
    await client.publish(
        event(subject=report.photo_id, data={"source_url": "store:a", "session_id": report.session_id})
    )
    await went(redis, report.photo_id, "validation_reporter", session=str(report.session_id))
    without = await client.ask("GET", f"/v1/photos/{report.photo_id}")
    assert (without.document["status"], without.document["result"]) == ("validated", None)
    await write_photo_report(BlobStore(settings.photo_store_url), report)
    result = (await client.ask("GET", f"/v1/photos/{report.photo_id}")).document["result"]
    assert (result["verdict"], result["web_url"]) == (report.verdict, report.item.web_url)


async def test_a_validated_photo_is_shown_without_its_result_where_there_can_be_no_store(
    served: Callable[..., AbstractAsyncContextManager[Client]],
    settings: Settings,
    redis: Redis,
    tmp_path: Path,
) -> None:
    (tmp_path / "a-file").touch()
    nowhere = msgspec.structs.replace(settings, photo_store_url=str(tmp_path / "a-file" / "store"))
    async with served(nowhere) as client:
        await client.publish(event(subject="p-1"))
        await went(redis, "p-1", "validation_reporter")
        answer = await client.ask("GET", "/v1/photos/p-1")
        assert answer.status == 200, answer.detail
        assert (answer.document["status"], answer.document["result"]) == ("validated", None)


async def test_a_publisher_sees_its_own_photos_and_sessions_only(client: Client, redis: Redis) -> None:
    answer = await client.publish(event(subject="p-1", data={"source_url": "store:a", "session_id": "s1"}))
    assert answer.status == 202
    await taken_in(redis, "s1")
    mine = client.key
    client.key = await key_of(redis, "publisher", name="other", source="urn:other")
    # naming the photo and the session of somebody else does not take them over
    data = {"source_url": "store:b", "session_id": "s1"}
    assert (await client.publish(event(source="urn:other", subject="p-1", data=data))).status == 202
    for method, path in (
        ("GET", "/v1/photos/p-1"),
        ("GET", "/v1/sessions/s1"),
        ("POST", "/v1/sessions/s1/close"),
    ):
        foreign = await client.ask(method, path)
        unknown = await client.ask(method, path.replace("p-1", "p-9").replace("s1", "s9"))
        assert (foreign.status, foreign.problem) == (404, "not-found")
        assert foreign.detail == unknown.detail.replace("p-9", "p-1").replace("s9", "s1")
    for key in (mine, await key_of(redis, "viewer"), await key_of(redis, "operator")):
        client.key = key
        assert (await client.ask("GET", "/v1/photos/p-1")).status == 200
        assert (await client.ask("GET", "/v1/sessions/s1")).status == 200


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_publisher_takes_over_no_photo_and_no_session_that_did_not_come_over_http(
    client: Client, redis: Redis, settings: Settings, *, is_over: bool
) -> None:
    command = Publisher(redis, source="urn:erni:publish")
    await command.open_session("s1", expected=5)
    theirs = await command.publish(PhotoSubmitted(source_url="store:a", session_id=SessionId("s1")))
    await taken_in(redis, "s1")
    await write_session_report(
        BlobStore(settings.photo_store_url), SessionFacts(session_id=SessionId("s1"), completion=1), []
    )
    if is_over:
        await redis.delete("erni:session:s1")  # SESSION_TTL after its end
    photos_before = await redis.hgetall(f"erni:photo:{theirs.photo_id}")
    for number, photo in enumerate((theirs.photo_id, "mine")):
        data = {"source_url": "store:b", "session_id": "s1", "file_name": "b.jpg"}
        assert (await client.publish(event(number, subject=photo, data=data))).status == 202
        assert (await client.publish(event(number, subject=photo, data=data))).document["replayed"]
    assert await redis.hgetall(f"erni:photo:{theirs.photo_id}") == photos_before
    await taken_in(redis, "s1")
    assert (await client.publish(event(3, data={"source_url": "store:c", "session_id": "s1"}))).status == 202
    for method, path in (
        ("GET", f"/v1/photos/{theirs.photo_id}"),
        ("GET", "/v1/sessions/s1"),
        ("GET", "/v1/sessions/s1/report"),
        ("POST", "/v1/sessions/s1/close"),
    ):
        assert (await client.ask(method, path)).problem == "not-found", path
    # its own photo is its own in whatever session
    assert (await client.ask("GET", "/v1/photos/mine")).status == 200


async def by_publish(redis: Redis, event: PhotoSubmitted) -> None:
    await Publisher(redis, source="urn:other").publish(event)


async def by_bulk_publish(redis: Redis, event: PhotoSubmitted) -> None:
    await Publisher(redis, source="urn:other").publish(event, bulk=True)


async def together(redis: Redis, event: PhotoSubmitted) -> None:
    publisher = Publisher(redis, source="urn:other")
    lone = publisher.prepare(PhotoSubmitted(source_url="store:z"))
    await publisher.send_all([lone, publisher.prepare(event, bulk=True), publisher.prepare(event)])


async def by_hand(redis: Redis, event: PhotoSubmitted) -> None:
    fields = {"id": "by-hand", "source": "urn:other", "data": msgspec.json.encode(event)}
    await redis.xadd("erni:photo.submitted", fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("began", [by_publish, by_bulk_publish, together, by_hand])
@pytest.mark.parametrize("as_batch", [False, True])
async def test_a_session_that_no_agent_has_seen_belongs_to_who_published_first(
    client: Client,
    redis: Redis,
    settings: Settings,
    began: Callable[[Redis, PhotoSubmitted], Awaitable[None]],
    *,
    as_batch: bool,
) -> None:
    await began(redis, PhotoSubmitted(source_url="store:theirs", session_id=SessionId("s1")))
    mine = event(1, subject="mine", data={"source_url": "store:mine", "session_id": "s1"})
    assert (await client.publish([mine] if as_batch else mine)).status == 202
    await taken_in(redis, "s1")
    assert (await client.publish(event(2))).status == 202
    await write_session_report(
        BlobStore(settings.photo_store_url), SessionFacts(session_id=SessionId("s1"), completion=1), []
    )
    for method, path in (
        ("GET", "/v1/sessions/s1"),
        ("GET", "/v1/sessions/s1/report"),
        ("POST", "/v1/sessions/s1/close"),
    ):
        assert (await client.ask(method, path)).problem == "not-found", path
    assert (await client.ask("GET", "/v1/photos/mine")).status == 200


@pytest.mark.parametrize("number", [1, 2])
async def test_of_two_publishers_the_first_one_has_the_session_although_its_note_comes_later(
    client: Client, redis: Redis, number: int
) -> None:
    theirs = Publisher(redis, source="urn:other")
    sent = [PhotoSubmitted(source_url=f"store:{one}", session_id=SessionId("s1")) for one in range(number)]
    prepared = [theirs.prepare(one) for one in sent]
    published = await theirs.send_all(prepared)
    assert (await client.publish(event(1))).status == 202
    notes = [(one, "", done) for one, done in zip(prepared, published, strict=True)]
    await submissions.note(redis, "urn:other", notes, record_hours=1.0)
    await taken_in(redis, "s1")
    assert (await client.ask("GET", "/v1/sessions/s1")).problem == "not-found"
    client.key = await key_of(redis, "publisher", name="other", source="urn:other")
    assert (await client.ask("GET", "/v1/sessions/s1")).document["received"] == number + 1


async def test_who_began_a_session_is_noted_once_and_expires_with_it(redis: Redis) -> None:
    publisher = Publisher(redis, source="urn:other")
    for number in range(2):
        photo = PhotoSubmitted(source_url=f"store:{number}", session_id=SessionId("s1"))
        published = await publisher.publish(photo)
        if not number:
            first = published.entry_id
    assert await redis.get("erni:session:s1:first") == f"{first} urn:other".encode()
    assert 604_700 < await redis.ttl("erni:session:s1:first") <= 604_800
    await publisher.publish(PhotoSubmitted(source_url="store:a"))
    assert len(await redis.keys("erni:session:*")) == 1


async def test_what_was_published_over_http_is_the_publisher_s_although_an_agent_was_faster_than_the_note(
    client: Client, redis: Redis
) -> None:
    publisher = Publisher(redis, source=SOURCE)
    photo = PhotoSubmitted(
        source_url="store:a", session_id=SessionId("s1"), photo_id=PhotoId("p-1"), file_name="a.jpg"
    )
    prepared = publisher.prepare(photo)
    published = await publisher.send_all([prepared])
    await taken_in(redis, "s1")
    await submissions.note(redis, SOURCE, [(prepared, "a.jpg", published[0])], record_hours=1.0)
    assert (await client.ask("GET", "/v1/photos/p-1")).document["status"] == "on its way to photo_fetcher"
    assert (await client.ask("GET", "/v1/sessions/s1")).document["received"] == 1


async def test_what_is_gone_says_how_long_it_is_kept(
    client: Client,
    served: Callable[..., AbstractAsyncContextManager[Client]],
    settings: Settings,
    redis: Redis,
) -> None:
    answer = await client.ask("GET", "/v1/photos/p-1")
    assert (answer.status, "is kept for 48 hours" in answer.detail) == (404, True)
    answer = await client.ask("GET", "/v1/sessions/s1")
    assert (answer.status, "3600 s after its last use" in answer.detail) == (404, True)
    answer = await client.ask("GET", "/v1/photos/a%20b")
    assert (answer.status, answer.problem) == (400, "bad-request")
    async with served(msgspec.structs.replace(settings, photo_record_hours=0), name="off") as off:
        answer = await off.publish(event(data={"source_url": "store:a", "session_id": "s1"}))
        assert answer.status == 202
        assert await redis.keys("erni:photo:*") == []
        answer = await off.ask("GET", answer.headers["Location"])
        assert (answer.status, "records of photos are off" in answer.detail) == (404, True)


async def test_a_session_is_shown_and_closed_with_the_number_that_counts(
    client: Client, redis: Redis
) -> None:
    await client.publish(event(1, data={"source_url": "store:a", "session_id": "s1", "expected": 9}))
    await taken_in(redis, "s1")
    shown = await client.ask("GET", "/v1/sessions/s1")
    assert (shown.document["received"], shown.document["status"]) == (1, "open")
    assert shown.headers["ETag"]
    closed = await client.ask("POST", "/v1/sessions/s1/close", json={"expected": 2})
    assert closed.document == {"session_id": "s1", "expected": 2, "received": 1}
    closed = await client.ask("POST", "/v1/sessions/s1/close")
    assert closed.document == {"session_id": "s1", "expected": 1, "received": 1}
    shown = await client.ask("GET", "/v1/sessions/s1")
    assert shown.document["expected"] == 1
    # a program that publishes closes its own sessions: that is no news of a person
    assert await redis.xlen(activity.ACTIVITY) == 0
    operator = await key_of(redis, "operator")
    header = {"Authorization": f"Bearer {operator}"}
    await client.ask("POST", "/v1/sessions/s1/close", json={"expected": 3}, headers=header)
    entries: Any = await redis.xrange(activity.ACTIVITY)
    [(_, noted)] = entries
    assert (noted[b"who"], noted[b"action"], noted[b"what"]) == (b"the-operator", b"close session", b"s1: 3")


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b'{"expected": 0}', 400, "expected=0"),
        (b'{"expected": -1}', 400, "expected=-1"),
        (b'{"expected": 99999999999}', 400, "at most 10000000"),
        (b'{"expected": "2"}', 400, "Expected `int | null`"),
        (b'{"expect": 2}', 400, "unknown field `expect`"),
        (b"{", 400, "the body is not"),
        (b"x" * 2000, 413, "1,000 bytes"),
    ],
)
async def test_a_wrong_number_closes_nothing(
    client: Client, redis: Redis, body: bytes, status: int, sentence: str
) -> None:
    await client.publish(event(1, data={"source_url": "store:a", "session_id": "s1"}))
    await taken_in(redis, "s1")
    answer = await client.ask("POST", "/v1/sessions/s1/close", data=body)
    assert answer.status == status
    assert sentence in answer.detail
    assert not int(await redis.hget("erni:session:s1", "expected") or 0)


async def test_a_repetition_s_trace_is_the_first_one_s(client: Client) -> None:
    first = await client.publish(event())
    again = await asyncio.gather(*(client.publish(event()) for _ in range(3)))
    assert {one.document["trace_id"] for one in again} == {first.document["trace_id"]}


async def test_erni_shows_a_photo_that_no_agent_has_seen(client: Client, redis: Redis) -> None:
    await client.publish(event(subject="p-1"))
    record = await photos.show(redis, "p-1")
    assert record is not None
    assert record.submitted is not None
    assert (record.submitted.source, record.status) == (SOURCE, "on its way to schema_extractor")
    await redis.hset("erni:photo:p-1", "submitted", "no note")
    record = await photos.show(redis, "p-1")
    assert record is not None
    assert record.submitted is None


async def test_forgetting_a_session_forgets_who_published_it(
    client: Client, redis: Redis, settings: Settings
) -> None:
    await client.publish(event(subject="p-1"))
    other = {"source_url": "store:b", "session_id": "s2"}
    await client.publish(event(2, subject="p-2", data=other))
    await client.ask("POST", "/v1/photos?session_id=s1&file_name=b.jpg", data=b"\xff\xd8\xff\xe0 a picture")
    await redis.delete("erni:photo.submitted")
    store = BlobStore(settings.photo_store_url)
    plan = await forgetting.look(redis, store, SessionId("s1"), lanes=1)
    assert len(plan.photos) == 2
    assert len(plan.markers) == 2
    await forgetting.forget(redis, store, plan, SharedSessions(redis, lanes=1, limit=10, ttl=60.0), lanes=1)
    left = {key for key in await redis.keys("erni:*") if b":session" in key or b":photo:" in key}
    assert left == {b"erni:photo:p-2", b"erni:session:s2:first", b"erni:session:s2:source"}
    assert await redis.keys("erni:published:*") == [b"erni:published:urn%3Acamera-app:e-2"]
    # it is as if it had never been published
    assert not (await client.publish(event(subject="p-1"))).document["replayed"]
