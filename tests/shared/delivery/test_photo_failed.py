"""Who listens to `photo.failed` learns of each photo that became a dead letter, and of nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events import codec, topology
from events.connection import connect
from events.types import PhotoFailed, PhotoSubmitted, SchemaExtracted
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.retry.errors import PermanentError
from tests.shared.delivery.harness import entries, publisher, running, settings_for, until
from tests.shared.sessions.chain import chain
from tests.shared.sessions.places import Place

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.delivery.dead_letter import DeadLetter

FAILED = "erni:photo.failed"
DEAD = "erni:dead:schema_extractor"
PHOTO = PhotoSubmitted(
    source_url="https://bau.invalid/Dach.jpg?signature=secret",
    photo_id="p-1",  # type: ignore[arg-type]  # as an upstream writes it
    session_id="s-1",  # type: ignore[arg-type]  # as an upstream writes it
)


async def letters(redis_url: str) -> list[DeadLetter]:
    async with connect(redis_url) as client:
        return [letter async for letter in DeadLetters(client).find(DeadFilter())]


async def refuses(_: PhotoSubmitted) -> SchemaExtracted:
    raise PermanentError("there is no library called Fotos")


async def test_a_dead_letter_of_a_photo_is_said_in_public(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url)
    async with running(settings, refuses), publisher(settings) as up:
        await up.publish(PHOTO)
        [fields] = await until(lambda: entries(redis, FAILED))
        [letter] = await letters(redis_url)
    envelope = codec.decode(topology.FAILED, "1-1", fields)
    assert envelope.event == PhotoFailed(
        photo_id="p-1",  # type: ignore[arg-type]  # any text will do
        session_id="s-1",  # type: ignore[arg-type]  # any text will do
        file_name="Dach.jpg",
        agent="schema_extractor",
        reason="permanent",
        message="there is no library called Fotos",
        fingerprint=letter.fingerprint,
        failed_at=letter.failed_at,
    )
    assert envelope.event_id == f"dead:schema_extractor:{letter.entry_id}:1"
    assert (envelope.photo_id, envelope.session_id) == ("p-1", "s-1")
    assert envelope.traceparent == letter.traceparent
    assert b"secret" not in b"".join(fields)


async def test_a_replay_that_fails_again_says_it_again(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url)
    async with running(settings, refuses), publisher(settings) as up:
        await up.publish(PHOTO)
        await until(lambda: entries(redis, FAILED))
        [letter] = await letters(redis_url)
        async with connect(redis_url) as client:
            assert (await DeadLetters(client).replay(letter)).outcome == "replayed"

        async def twice() -> bool:
            return bool(await redis.xlen(FAILED) == 2)

        await until(twice)
    first, again = (codec.decode(topology.FAILED, "1-1", fields) for fields in await entries(redis, FAILED))
    assert isinstance(first.event, PhotoFailed)
    assert isinstance(again.event, PhotoFailed)
    assert (first.event.replays, again.event.replays) == (0, 1)
    assert first.event_id != again.event_id


async def test_what_names_no_photo_is_not_said(redis: Redis, redis_url: str) -> None:
    settings = settings_for(redis_url)
    async with running(settings):
        await redis.xadd("erni:photo.submitted", {"data": "no JSON"})
        await until(lambda: redis.xlen(DEAD))
    assert await redis.xlen(FAILED) == 0


async def test_a_report_that_fails_is_no_photo(redis: Redis, redis_url: str) -> None:
    def do(agent: str, url: str) -> None:
        if agent == "validation_reporter" and not url:
            raise PermanentError("the report cannot be written")

    async with chain(Place(url=redis_url, lanes=1), do), publisher(settings_for(redis_url)) as up:
        await up.publish(PHOTO)
        await up.close_session("s-1", expected=1)
        await until(lambda: redis.xlen("erni:dead:validation_reporter"))
    assert await redis.xlen("erni:photo.validated") == 1
    assert await redis.xlen(FAILED) == 0


async def test_letter_and_event_are_written_together_or_not_at_all(redis: Redis, redis_url: str) -> None:
    await redis.set(FAILED, "a foreign value")
    settings = settings_for(redis_url)
    async with running(settings, refuses) as (_, agent), publisher(settings) as up:
        await up.publish(PHOTO)
        await agent.seen.wait()

        async def refused_once() -> bool:
            # each script call that tried leaves its marker
            return bool(await redis.keys("erni:settled:*"))

        await until(refused_once)
        assert await redis.xlen(DEAD) == 0
        await redis.delete(FAILED)
        await until(lambda: redis.xlen(DEAD))
    assert await redis.xlen(DEAD) == 1
    assert len(await entries(redis, FAILED)) == 1


async def test_two_failures_of_one_entry_id_have_ids_of_their_own(redis: Redis, redis_url: str) -> None:
    """The streams for bulk work and for all other work may have the same entry id at the same time."""
    fields: list[str] = ["data", '{"source_url": "https://bau.invalid/1.jpg", "session_id": "s-1"}']
    for stream in ("erni:photo.submitted", "erni:photo.submitted.bulk"):
        await redis.execute_command("XADD", stream, "1-1", *fields)  # type: ignore[no-untyped-call]
    async with running(settings_for(redis_url), refuses):

        async def both() -> bool:
            return bool(await redis.xlen(FAILED) == 2)

        await until(both)
    failed = await entries(redis, FAILED)
    ids = {codec.decode(topology.FAILED, "1-1", each).event_id for each in failed}
    assert ids == {
        "dead:schema_extractor:1-1:1",
        "dead:schema_extractor:photo.submitted.bulk:1-1:1",
    }
