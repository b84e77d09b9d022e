"""Thumbnails are made once per content, from the preview."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from events.identities import Sha256, StoreUrl
from shared.photos.decoders import Decoders
from shared.reports.thumbnail import thumbnail, thumbnail_key
from tests.shared.reports.sample import picture

if TYPE_CHECKING:
    from shared.photo_store import BlobStore

SHA = Sha256("ab" * 32)


async def test_a_thumbnail_is_small_and_keeps_the_shape(store: BlobStore) -> None:
    preview = await store.put(f"previews/{SHA}.jpg", picture(1, (1024, 768)))
    async with Decoders() as decoders:
        small = await thumbnail(store, decoders, SHA, preview)
    assert small is not None
    with Image.open(BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (320, 240))
    assert len(small) < 25_000


async def test_a_thumbnail_is_made_once(store: BlobStore) -> None:
    preview = await store.put(f"previews/{SHA}.jpg", picture(1, (640, 480)))
    async with Decoders() as decoders:
        first = await thumbnail(store, decoders, SHA, preview)
        await store.delete(preview)
        assert await thumbnail(store, decoders, SHA, preview) == first


async def test_without_a_preview_there_is_none(store: BlobStore) -> None:
    async with Decoders() as decoders:
        assert await thumbnail(store, decoders, SHA, StoreUrl(f"store:previews/{SHA}.jpg")) is None
    assert not await store.exists("store:" + thumbnail_key(SHA))
