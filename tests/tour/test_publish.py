"""1 of 6. An event is an entry of a Redis stream, and its event id makes a repeated publish harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events.publisher import Publisher
from events.types import PhotoSubmitted
from tests.shared.delivery.harness import entries

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_a_photo_that_is_published_twice_is_one_entry(redis: Redis) -> None:
    camera = Publisher(redis, source="urn:camera")
    photo = PhotoSubmitted(source_url="https://example.org/a.jpg")

    first = await camera.publish(photo, event_id="camera-1")
    again = await camera.publish(photo, event_id="camera-1")  # the camera did not see our answer

    [fields] = await entries(redis, "erni:photo.submitted")  # names and values in turn
    data = msgspec.json.decode(fields[fields.index(b"data") + 1])
    assert data["source_url"] == "https://example.org/a.jpg"
    assert not again.fresh
    assert again.entry_id == first.entry_id
