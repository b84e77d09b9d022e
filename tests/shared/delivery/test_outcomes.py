"""What failures come to: another attempt, a postponement, a dead letter, or a return."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import TYPE_CHECKING

import pytest

from events.connection import connect
from events.types import PhotoSubmitted, SchemaExtracted
from shared.delivery import packing
from shared.delivery import process as process_module
from shared.delivery.postponed import MOVED_AT_ONCE
from shared.operations import pauses, photos
from shared.operations.status import read_status
from shared.retry import policy
from shared.retry.errors import (
    HttpStatusError,
    PermanentError,
    PostponeError,
    TransientError,
    because,
    dependency,
)
from tests.shared.delivery.harness import entries, extracted, publisher, running, settings_for, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey

PHOTO = PhotoSubmitted(source_url="https://example.org/a")


@pytest.fixture(autouse=True)
def no_sleeping() -> Iterator[None]:
    with policy.without_waiting():
        yield


async def all_due(redis: Redis) -> None:
    """Let the time of everything postponed come now."""
    key = "erni:delayed:schema_extractor"
    script = (
        "for _, m in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], 1, m) end"
    )
    call: Callable[..., Awaitable[object]] = redis.eval
    await call(script, 1, key)


def field(fields: list[bytes], name: bytes) -> bytes:
    return fields[fields.index(name) + 1]


async def test_two_transient_failures_and_a_success_are_one_hand_off(redis: Redis, redis_url: str) -> None:
    tries = 0

    async def third_time(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionResetError("reset by peer")
        return extracted(event)

    settings = settings_for(redis_url)
    async with running(settings, third_time), publisher(settings) as up:
        await up.publish(PHOTO)
        [fields] = await until(lambda: entries(redis, "erni:schema.extracted"))
    assert tries == 3
    assert b'"attempts":3' in field(fields, b"ernisteps")


async def test_the_third_transient_failure_is_dead_with_its_attempts(redis: Redis, redis_url: str) -> None:
    async def never(_: PhotoSubmitted) -> SchemaExtracted:
        raise HttpStatusError("the source answered 503", status=503)

    settings = settings_for(redis_url)
    async with running(settings, never) as (_, agent), publisher(settings) as up:
        await up.publish(PHOTO)
        [fields] = await until(lambda: entries(redis, "erni:dead:schema_extractor"))
    assert len(agent.handled) == 3
    assert field(fields, b"reason") == b"exhausted"
    assert field(fields, b"attempts").count(b"the source answered 503") == 3


async def test_a_long_retry_after_postpones_and_burns_no_attempt(redis: Redis, redis_url: str) -> None:
    asked = False

    async def busy_once(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal asked
        if not asked:
            asked = True
            raise HttpStatusError("busy", status=429, retry_after=3600)
        return extracted(event)

    settings = settings_for(redis_url)
    async with running(settings, busy_once) as (_, agent), publisher(settings) as up:
        await up.publish(
            PhotoSubmitted(source_url="https://example.org/a", session_id="s1")  # type: ignore[arg-type]
        )
        await until(lambda: redis.zcard("erni:delayed:schema_extractor"))
        assert len(agent.handled) == 1
        assert await redis.xlen("erni:photo.submitted") == 0
        assert (await redis.hget("erni:session:s1", "postponed")) == b"1"
        # its time comes
        await all_due(redis)
        [fields] = await until(lambda: entries(redis, "erni:schema.extracted"))
    assert b"ernidelayed" not in fields
    session = await redis.hgetall("erni:session:s1")
    assert (session[b"postponed"], session[b"received"]) == (b"0", b"1")


@pytest.mark.parametrize("waiting", [1, MOVED_AT_ONCE + 1])
async def test_what_waited_from_a_stream_that_the_agent_no_longer_reads_goes_back_to_that_stream(
    redis: Redis, redis_url: str, waiting: int
) -> None:
    """Since an upgrade another agent reads it. More than one look takes must not keep the process."""
    fields = [b"data", b'{"source_url": "https://example.org/a"}']
    members = {packing.pack([f"1-{n}", fields, "1:1:1", "erni:photo.analyzed"]): 1.0 for n in range(waiting)}
    await redis.zadd("erni:delayed:schema_extractor", members)
    async with running(settings_for(redis_url)):
        await until(lambda: _length(redis, "erni:photo.analyzed", waiting))
    assert await redis.zcard("erni:delayed:schema_extractor") == 0


async def _length(redis: Redis, stream: str, length: int) -> bool:
    return int(await redis.xlen(stream)) == length


async def test_an_outage_opens_the_breaker_and_nothing_dies_of_it(redis: Redis, redis_url: str) -> None:
    healed = False

    async def down(event: PhotoSubmitted) -> SchemaExtracted:
        with dependency("sharepoint"):
            if not healed:
                raise TransientError("no answer")
            return extracted(event)

    settings = settings_for(redis_url, concurrency=4)
    async with running(settings, down) as (process, _), publisher(settings) as up:
        process.runtime.breakers._stops_reading = frozenset({"sharepoint"})
        for number in range(12):
            await up.publish(PhotoSubmitted(source_url=f"https://example.org/{number}"))

        async def is_open() -> bool:
            return process.runtime.breakers.reading_stopped

        await until(is_open)
        assert not process.health().ready
        assert process.health().live
        healed = True
        for _ in range(200):
            await all_due(redis)
            if len(await entries(redis, "erni:schema.extracted")) == 12:
                break
            await asyncio.sleep(0.1)
        assert not process.runtime.breakers.open_names
    # the first ones to fail before it opened may have used up their attempts
    dead = await redis.xlen("erni:dead:schema_extractor")
    assert len(await entries(redis, "erni:schema.extracted")) + dead == 12
    assert dead <= 1


async def test_deaths_are_no_progress(redis: Redis, redis_url: str) -> None:
    async def broken(_: PhotoSubmitted) -> SchemaExtracted:
        raise PermanentError("it cannot be opened")

    settings = settings_for(redis_url)
    async with running(settings, broken) as (process, _), publisher(settings) as up:
        await up.publish(PHOTO)
        await until(lambda: redis.xlen("erni:dead:schema_extractor"))
        await until(_of(lambda: "x" in process._info().recent))
        assert process._info().done == 0


async def test_an_unhealthy_machine_is_not_ready(redis: Redis, redis_url: str) -> None:
    async def full(_: PhotoSubmitted) -> SchemaExtracted:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = settings_for(redis_url)
    async with running(settings, full) as (process, _), publisher(settings) as up:
        assert process.health().ready
        await up.publish(PHOTO)
        await until(_of(lambda: not process.health().ready))
        assert process.health().live
        assert "No space left on device" in process.health().reasons[0]
    assert await redis.xlen("erni:dead:schema_extractor") == 0


async def test_a_full_disk_gives_the_entry_back_and_stops_reading(redis: Redis, redis_url: str) -> None:
    async def full(_: PhotoSubmitted) -> SchemaExtracted:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = settings_for(redis_url)
    async with running(settings, full) as (process, _), publisher(settings) as up:
        await up.publish(PHOTO)

        async def returned() -> bool:
            owners = await redis.xinfo_consumers("erni:photo.submitted", "schema_extractor")
            return any(o["name"] == b"returned" and o["pending"] == 1 for o in owners)

        async def says_why() -> bool:
            return not process.health().ready

        await until(returned)
        await until(says_why)
        assert process.runtime.breakers.open_names == []
        assert process.health().reasons == (
            "this machine is unhealthy, reading stops: [Errno 28] No space left on device",
        )
        await up.publish(PHOTO)
        # another machine is well and takes it at once, delivery count unburnt
        async with running(settings) as (_, healthy):
            await until(lambda: redis.xlen("erni:schema.extracted"))
            assert len(healthy.handled) >= 1
    assert await redis.xlen("erni:dead:schema_extractor") == 0


async def test_a_handler_past_its_time_is_cut_off_and_tried_again(redis: Redis, redis_url: str) -> None:
    tries = 0

    async def slow_once(event: PhotoSubmitted) -> SchemaExtracted:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        return extracted(event)

    settings = settings_for(redis_url, handle_timeout=0.2)
    async with running(settings, slow_once), publisher(settings) as up:
        await up.publish(PHOTO)
        await until(lambda: redis.xlen("erni:schema.extracted"))
    assert tries == 2


async def test_stopping_in_a_retry_wait_gives_the_entry_back_unburnt(redis: Redis, redis_url: str) -> None:
    failed = asyncio.Event()

    async def fail(_: PhotoSubmitted) -> SchemaExtracted:
        failed.set()
        raise TransientError("not now")

    async def forever(_: float) -> None:
        await asyncio.Event().wait()

    settings = settings_for(redis_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "_sleep", forever)
        async with running(settings, fail), publisher(settings) as up:
            await up.publish(PHOTO)
            await failed.wait()
    [pending] = await redis.xpending_range("erni:photo.submitted", "schema_extractor", "-", "+", 10)
    assert pending["consumer"] == b"returned"
    assert pending["times_delivered"] == 0


async def test_the_grace_is_over_and_what_is_in_hand_goes_back(redis: Redis, redis_url: str) -> None:
    async def hang(_: PhotoSubmitted) -> SchemaExtracted:
        await asyncio.Event().wait()
        raise AssertionError

    settings = settings_for(redis_url, grace_seconds=0.1)
    async with running(settings, hang) as (_, agent), publisher(settings) as up:
        await up.publish(PHOTO)
        await agent.seen.wait()
    [pending] = await redis.xpending_range("erni:photo.submitted", "schema_extractor", "-", "+", 10)
    assert (pending["consumer"], pending["times_delivered"]) == (b"returned", 0)


async def test_a_paused_agent_reads_nothing_until_it_is_resumed(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url)
    await pauses.pause(redis, "schema_extractor")
    async with running(settings) as (process, agent), publisher(settings) as up:

        async def paused() -> bool:
            return process._lanes[0].heartbeat.paused

        await until(paused)
        await asyncio.sleep(1.0)  # a read that was under way when the pause came may still bring an entry
        await up.publish(PHOTO)
        await asyncio.sleep(0.5)
        assert agent.handled == []
        await pauses.resume(redis, "schema_extractor")
        await until(lambda: redis.xlen("erni:schema.extracted"))


async def test_stopping_while_redis_is_away_ends_and_leaves_the_entry_to_others(
    own_redis_server: Valkey,
) -> None:
    settings = settings_for(own_redis_server.url, grace_seconds=0.2)
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(event: PhotoSubmitted) -> SchemaExtracted:
        begun.set()
        await go.wait()
        return extracted(event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_module, "_RELEASE_SECONDS", 0.5)
        async with running(settings, wait) as (process, _), publisher(settings) as up:
            await up.publish(PHOTO)
            await begun.wait()
            own_redis_server.kill()
            go.set()
            process.stop()
    own_redis_server.start()
    async with running(settings) as (_, agent):
        await asyncio.wait_for(agent.seen.wait(), 20)


def _of(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """The look as `until` takes it."""

    async def asked() -> bool:
        return look()

    return asked


async def test_a_postponed_photo_shows_why_it_waits_after_how_many_attempts_and_until_when(
    redis: Redis, redis_url: str
) -> None:
    busy = True

    async def busy_once(event: PhotoSubmitted) -> SchemaExtracted:
        if busy:
            raise PostponeError("the library 'Fotos': its quota is used up: make room", 900)
        return extracted(event)

    settings = settings_for(redis_url)
    async with running(settings, busy_once), publisher(settings) as up:
        await up.publish(
            PhotoSubmitted(source_url="https://example.org/a.jpg", session_id="s1")  # type: ignore[arg-type]
        )
        await until(lambda: redis.zcard("erni:delayed:schema_extractor"))
        [(record, part)] = await photos.postponed_of_session(redis, "s1")
        assert record.status == "postponed"
        assert (part.agent, part.attempts) == ("schema_extractor", 1)
        assert part.message.startswith("the library 'Fotos': its quota is used up: make room")
        assert part.until == pytest.approx(time.time() + 900, abs=60)
        client = connect(redis_url)
        status = await read_status(client)
        await client.aclose()
        depth = next(agent.depth for agent in status.agents if agent.agent == "schema_extractor")
        assert depth.next_reason == part.message
        assert depth.next_due == pytest.approx(part.until, abs=5)
        busy = False
        await all_due(redis)
        await until(lambda: entries(redis, "erni:schema.extracted"))
        [record] = await photos.of_session(redis, "s1")
        assert record.status == "on its way to photo_fetcher"
        assert await photos.postponed_of_session(redis, "s1") == []


@pytest.mark.parametrize(
    ("error", "code", "cause"),
    [
        (PermanentError("a.jpg is a PDF document"), "file", b"file"),
        (RuntimeError("decoder: no such message"), "file", b""),
        (HttpStatusError("SharePoint answered 403", status=403), "library", b"library"),
        # the library, and not the photo that happened to be stored then
        (HttpStatusError("SharePoint answered 403", status=403), "filing", b"library"),
        (HttpStatusError("SharePoint answered 404", status=404), "filing", b"library"),
        (HttpStatusError("SharePoint answered 400", status=400), "filing", b"filing"),
        (HttpStatusError("SharePoint answered 404", status=404), "readback", b"readback"),
    ],
)
async def test_nothing_is_blamed_that_is_not_at_fault(
    redis: Redis, redis_url: str, error: Exception, code: str, cause: bytes
) -> None:
    async def fail(_: PhotoSubmitted) -> SchemaExtracted:
        with because(code):
            raise error

    settings = settings_for(redis_url)
    async with running(settings, fail), publisher(settings) as up:
        await up.publish(PHOTO)
        [fields] = await until(lambda: entries(redis, "erni:dead:schema_extractor"))
    assert field(fields, b"reason") == b"permanent"
    assert dict(zip(fields[::2], fields[1::2], strict=True)).get(b"cause", b"") == cause
