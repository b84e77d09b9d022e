"""A notice is queued exactly where an end is written, once for each web hook that wants it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events import codec, topology
from events.connection import connect
from events.publisher import Publisher
from events.types import PhotoSubmitted, SchemaExtracted, WebhookQueued
from shared.operations import webhooks
from shared.retry.errors import PermanentError
from shared.webhooks import notices
from shared.webhooks.subscriptions import INDEX, Subscriptions
from tests.events.samples import sample
from tests.shared.delivery.harness import entries, publisher, running, settings_for, until
from tests.shared.sessions.chain import chain
from tests.shared.sessions.places import Place
from tests.shared.webhooks.receiver import SOURCE, hook_settings, register

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from events.codec import Envelope

OUTBOX = "erni:webhook.queued"
FAILED = "erni:photo.failed"
DEAD = "erni:dead:schema_extractor"
URL = "https://hooks.example.org/erni"
PHOTO = PhotoSubmitted(
    source_url="https://bau.invalid/Dach.jpg?signature=secret",
    photo_id="p-1",  # type: ignore[arg-type]  # as an upstream writes it
    session_id="s-1",  # type: ignore[arg-type]  # as an upstream writes it
)


async def queued(redis: Redis, stream: str = OUTBOX) -> list[Envelope]:
    return [codec.decode(topology.QUEUED, "1-1", fields) for fields in await entries(redis, stream)]


def documents(found: list[Envelope], endpoint: str) -> list[dict[str, Any]]:
    """The bodies of the notices for one endpoint."""
    events = [one.event for one in found if isinstance(one.event, WebhookQueued)]
    return [msgspec.json.decode(event.body) for event in events if event.endpoint == endpoint]


async def refuses(_: PhotoSubmitted) -> SchemaExtracted:
    raise PermanentError("there is no library called Fotos")


async def publish(redis_url: str, *photos: PhotoSubmitted, source: str = SOURCE, lanes: int = 1) -> None:
    client = connect(redis_url)
    try:
        for photo in photos:
            await Publisher(client, source=source, lanes=lanes).publish(photo)
    finally:
        await client.aclose()


@pytest.mark.parametrize("lanes", [1, 3])
async def test_each_end_is_queued_for_the_web_hooks_of_its_source(
    redis: Redis, redis_url: str, lanes: int
) -> None:
    settings = hook_settings(redis_url)
    everything = (await register(redis, settings, URL)).endpoint.id
    failures = (await register(redis, settings, URL, events=["photo.failed"])).endpoint.id
    foreign = (await register(redis, settings, URL, source="urn:somebody-else")).endpoint.id

    def do(agent: str, url: str) -> None:
        if agent == "vision_analyzer" and url.endswith("bad"):
            raise PermanentError("no picture")

    place = Place(url=redis_url, lanes=lanes)
    good = PhotoSubmitted(source_url="https://a.invalid/good", session_id="s-1", expected=2)  # type: ignore[arg-type]
    bad = PhotoSubmitted(source_url="https://a.invalid/bad", session_id="s-1")  # type: ignore[arg-type]
    lane = place.lane("s-1")
    async with chain(place, do):
        await publish(redis_url, good, bad, lanes=lanes)
        await until(lambda: redis.xlen(lane.stream("session.reported")))
        found = await queued(redis, lane.stream(topology.QUEUED))
    assert not documents(found, foreign)
    assert [one["type"] for one in documents(found, failures)] == ["photo.failed"]
    by_type = {one["type"]: one["data"] for one in documents(found, everything)}
    assert len(documents(found, everything)) == 3
    assert by_type["photo.validated"]["verdict"] == "ok"
    assert by_type["photo.failed"]["message"] == "no picture"
    assert by_type["session.reported"]["session_id"] == "s-1"
    assert by_type["session.reported"]["links"]["report"] == "/v1/sessions/s-1/report"
    # the id is the end's own, and the public event names the source that submitted the photo
    for name in notices.EVENTS:
        [fields] = await entries(redis, lane.stream(name))
        end = codec.decode(name, "1-1", fields)
        assert end.origin == SOURCE.encode()
        [notice] = [one for one in found if one.event_id == end.event_id and _for(one, everything)]
        assert notice.traceparent == end.traceparent


async def test_the_end_of_a_session_is_told_to_the_source_that_published_first(
    redis: Redis, redis_url: str
) -> None:
    later_is_settled = asyncio.Event()

    async def first_ends_last(event: PhotoSubmitted) -> SchemaExtracted:
        if event.source_url.endswith("first"):
            await later_is_settled.wait()
        raise PermanentError("no picture")

    first = PhotoSubmitted(source_url="https://a.invalid/first", session_id="s-1", expected=2)  # type: ignore[arg-type]
    later = PhotoSubmitted(source_url="https://a.invalid/later", session_id="s-1")  # type: ignore[arg-type]
    await publish(redis_url, first)
    await publish(redis_url, later, source="urn:later")
    async with running(settings_for(redis_url), first_ends_last):
        await until(lambda: redis.xlen(FAILED))
        later_is_settled.set()
        await until(lambda: redis.xlen("erni:session.completed"))
    [fields] = await entries(redis, "erni:session.completed")
    assert codec.decode(topology.COMPLETED, "1-1", fields).origin == SOURCE.encode()


def _for(envelope: Envelope, endpoint: str) -> bool:
    return isinstance(envelope.event, WebhookQueued) and envelope.event.endpoint == endpoint


async def test_without_a_web_hook_no_end_is_queued_and_no_key_is_named(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.delivery import scripts

    named: list[str] = []
    really = scripts.settle

    async def settle(client: Redis, keys: list[str], packed: bytes) -> Any:
        named.extend(keys)
        return await really(client, keys, packed)

    monkeypatch.setattr(scripts, "settle", settle)
    async with running(settings_for(redis_url), refuses):
        await publish(redis_url, PHOTO)
        await until(lambda: redis.xlen(FAILED))
    assert FAILED in named
    assert OUTBOX not in named
    assert not await redis.exists(OUTBOX)


async def test_letter_event_and_notice_are_written_together_or_not_at_all(
    redis: Redis, redis_url: str
) -> None:
    settings = hook_settings(redis_url)
    await register(redis, settings, URL)
    await redis.set(OUTBOX, "a foreign value")
    async with running(settings, refuses) as (_, agent):
        await publish(redis_url, PHOTO)
        await agent.seen.wait()

        async def refused_once() -> bool:
            # each script call that tried leaves its marker
            return bool(await redis.keys("erni:settled:*"))

        await until(refused_once)
        assert (await redis.xlen(DEAD), await redis.xlen(FAILED)) == (0, 0)
        await redis.delete(OUTBOX)
        await until(lambda: redis.xlen(DEAD))
    assert (await redis.xlen(DEAD), await redis.xlen(FAILED), await redis.xlen(OUTBOX)) == (1, 1, 1)


async def test_a_source_that_an_upstream_pretends_is_not_believed(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    await register(redis, settings, URL)
    async with running(settings, refuses), publisher(settings):
        await redis.xadd(
            "erni:photo.submitted",
            {"source": "urn:other", "ernisource": SOURCE, "data": msgspec.json.encode(PHOTO)},
        )
        await until(lambda: redis.xlen(FAILED))
    assert not await redis.exists(OUTBOX)


async def test_a_running_agent_learns_of_a_web_hook_and_of_its_end(redis: Redis, redis_url: str) -> None:
    settings = hook_settings(redis_url)
    async with running(settings, refuses) as (process, _):
        known = process.runtime.subscriptions
        assert not known.exist
        endpoint = (await register(redis, settings, URL)).endpoint

        async def knows() -> bool:
            return known.exist

        await until(knows)
        assert known.of(SOURCE.encode(), "photo.failed") == (endpoint.id,)
        await webhooks.remove(redis, endpoint.id)

        async def forgot() -> bool:
            return not known.exist

        await until(forgot)


@pytest.mark.leaves_keys(r"erni:\{webhooks\}.*")
async def test_a_foreign_value_among_the_web_hooks_stops_nobody(redis: Redis) -> None:
    await redis.hset(INDEX, mapping={"wh_1": "no JSON", "wh_2": b"\xff", "wh_3": "{}", "wh_4": ""})
    known = Subscriptions()
    await known.refresh(redis)
    assert not known.exist
    assert await webhooks.all_webhooks(redis) == []


@pytest.mark.parametrize("name", notices.EVENTS)
def test_a_notice_is_thin(name: str) -> None:
    event: Any = sample(name)
    if name == "photo.failed":
        event = msgspec.structs.replace(event, message="\x01" * 1024, file_name="\x02" * 256)
    assert len(notices.body(event, name).encode()) <= notices.MAX_BODY


def test_a_notice_holds_no_field_of_the_photo() -> None:
    event: Any = sample("photo.validated")
    said = msgspec.json.decode(notices.body(event, "photo.validated"))
    names = "photo_id session_id file_name links verdict needs_person site library item_id"
    assert said["data"].keys() <= set(names.split())
    assert event.source_url not in str(said)
