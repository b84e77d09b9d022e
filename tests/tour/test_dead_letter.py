"""4 of 6. A failure that will not pass makes a dead letter, which says what happened and keeps the entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.publisher import Publisher
from events.types import PhotoSubmitted, SchemaExtracted
from shared.retry.errors import PermanentError
from tests.shared.delivery.harness import entries, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_a_refused_photo_becomes_a_dead_letter(redis: Redis, redis_url: str) -> None:
    async def handle(event: PhotoSubmitted) -> SchemaExtracted:
        raise PermanentError("The library Fotos does not exist; name another one.")

    await Publisher(redis).publish(PhotoSubmitted(source_url="https://example.org/a.jpg"))
    async with running(settings_for(redis_url), handle):
        await until(lambda: redis.xlen("erni:dead:schema_extractor"))

    [fields] = await entries(redis, "erni:dead:schema_extractor")
    letter = dict(zip(fields[::2], fields[1::2], strict=True))
    assert letter[b"reason"] == b"permanent"  # so it was not tried again
    assert letter[b"message"] == b"The library Fotos does not exist; name another one."
    assert b"https://example.org/a.jpg" in letter[b"raw"]
