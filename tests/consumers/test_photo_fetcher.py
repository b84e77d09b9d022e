"""From an address to bytes in the store: what the event says afterwards, and what it must not say."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from PIL import Image
from redis.asyncio import Redis

from consumers.photo_fetcher import PhotoFetcher
from events.identities import PhotoId, SchemaDigest, SessionId, StoreUrl
from events.types import Hints, LibraryRef, PhotoFetched, SchemaExtracted
from sandbox.heic import heic
from shared.photo_store import BlobStore
from shared.photos.facts import PhotoFacts, Position
from shared.retry.classify import Kind, classify
from shared.retry.errors import HttpStatusError, PermanentError, cause_of
from shared.settings import Settings
from tests.shared.fetching.site import Site, answer
from tests.shared.photos.pictures import jpeg, picture, rationals, saved, short, text, tiff
from tests.shared.photos.test_open import GOOD, jpeg_of_size, png_header, webp_canvas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

EXIF: Final = tiff(
    main=[text(0x010F, "Google"), text(0x0110, "Pixel 8"), short(0x0112, 6)],
    detail=[text(0x9003, "2024:05:12 14:33:22"), text(0x9011, "+02:00")],
    gps=[
        text(1, "N"),
        rationals(2, (47, 1), (1, 1), (3072, 100)),
        text(3, "E"),
        rationals(4, (8, 1), (37, 1), (5556, 100)),
    ],
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A store, and a folder of photos beside it."""
    (tmp_path / "photos").mkdir()
    return Settings(
        photo_store_url=str(tmp_path / "store"),
        source_roots=(str(tmp_path / "photos"),),
        source_hosts=("127.0.0.1",),
        graph_url="http://127.0.0.1:1/v1.0",
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[PhotoFetcher]:
    """The agent, open. It has no use for Redis."""
    redis = Redis()
    agent = PhotoFetcher(settings, redis)
    await agent.open()
    try:
        yield agent
    finally:
        await agent.close()
        await redis.aclose()


def extracted(source_url: str, file_name: str | None = None) -> SchemaExtracted:
    """The event before."""
    return SchemaExtracted(
        photo_id=PhotoId("p-1"),
        session_id=SessionId("s-1"),
        source_url=source_url,
        file_name=file_name,
        hints=Hints(project="Seewen"),
        library=LibraryRef(
            site_id="site", list_id="list", drive_id="drive", site="/sites/Bau", library="Fotos", web_url="-"
        ),
        schema_digest=SchemaDigest("d" * 64),
        schema_ref=StoreUrl("store:schemas/d.json"),
    )


async def fetch(settings: Settings, tmp_path: Path, name: str, data: bytes) -> PhotoFetched:
    """Hand a file to an agent of its own."""
    path = tmp_path / "photos" / name
    path.write_bytes(data)
    async with running(settings) as agent:
        return await agent.handle(extracted(path.as_uri()))


async def test_a_photo_is_stored_and_described_and_the_event_carries_on(
    settings: Settings, tmp_path: Path
) -> None:
    data = jpeg(exif=EXIF)
    before = extracted((tmp_path / "photos" / "IMG 1.jpg").as_uri())
    event = await fetch(settings, tmp_path, "IMG 1.jpg", data)
    digest = hashlib.sha256(data).hexdigest()

    assert (event.sha256, event.size, event.media_type) == (digest, len(data), "image/jpeg")
    assert (event.width, event.height, event.orientation) == (48, 32, 6)
    assert event.dataref == f"store:originals/{digest}"
    assert (event.exif.taken_at, event.exif.camera) == ("2024-05-12T14:33:22+02:00", "Google Pixel 8")
    assert event.exif.has_position
    assert event.file_name == "IMG 1.jpg"
    carried = ("photo_id", "session_id", "source_url", "hints", "library", "schema_digest", "schema_ref")
    assert [getattr(event, name) for name in carried] == [getattr(before, name) for name in carried]

    store = BlobStore(settings.photo_store_url)
    assert await store.get(event.dataref) == data
    assert event.exif.reference == f"store:facts/{digest}.json"
    facts = msgspec.json.decode(await store.get(event.exif.reference), type=PhotoFacts)
    assert facts.position == Position(latitude=47.0252, longitude=8.6321)


async def test_the_position_is_in_the_store_and_nowhere_in_the_event(
    settings: Settings, tmp_path: Path
) -> None:
    event = await fetch(settings, tmp_path, "a.jpg", jpeg(exif=EXIF))
    wire = msgspec.json.encode(event).decode()
    for digits in ("47.02", "8.63", "latitude", "3072", "5556"):
        assert digits not in wire


async def test_the_name_given_by_the_upstream_stays(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg())
    async with running(settings) as agent:
        event = await agent.handle(extracted((tmp_path / "photos" / "a.jpg").as_uri(), "Aufrichte 3.jpg"))
    assert event.file_name == "Aufrichte 3.jpg"


async def test_the_same_bytes_from_anywhere_any_number_of_times_are_one_original(
    settings: Settings, tmp_path: Path
) -> None:
    data = jpeg(exif=EXIF)
    (tmp_path / "photos" / "a.jpg").write_bytes(data)
    (tmp_path / "photos" / "b.jpg").write_bytes(data)
    async with Site({"/c.jpg?sig=x": answer(data)}) as site, running(settings) as agent:
        urls = [(tmp_path / "photos" / name).as_uri() for name in ("a.jpg", "b.jpg", "a.jpg")]
        urls.append(site.url("/c.jpg?sig=x"))
        events = await asyncio.gather(*(agent.handle(extracted(url)) for url in urls))
        again = await agent.handle(extracted(events[0].dataref))
    assert {event.dataref for event in (*events, again)} == {events[0].dataref}
    assert events[-1].file_name == "c.jpg"
    assert again.file_name is None
    store = BlobStore(settings.photo_store_url)
    assert [key async for key in store.keys("originals")] == [f"originals/{events[0].sha256}"]
    assert [key async for key in store.keys("facts")] == [f"facts/{events[0].sha256}.json"]


@pytest.mark.parametrize("name", GOOD)
async def test_every_kind_of_photo_is_taken(name: str, settings: Settings, tmp_path: Path) -> None:
    data, kind, (width, height) = GOOD[name]
    event = await fetch(settings, tmp_path, "x", data)
    assert (event.media_type, event.width, event.height) == (kind.media_type, width, height)


async def test_a_heic_keeps_its_facts_and_counts_as_upright(settings: Settings, tmp_path: Path) -> None:
    event = await fetch(settings, tmp_path, "IMG_1.HEIC", heic(picture(), exif=EXIF, quarter_turns=3))
    assert (event.media_type, event.orientation) == ("image/heic", 1)
    assert event.exif.has_position
    assert event.exif.taken_at == "2024-05-12T14:33:22+02:00"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            b"<!DOCTYPE html><html><body>Anmeldung</body></html>",
            "the file is an HTML page, not a photo (named photo.jpg): check the source address",
        ),
        (
            b"",
            "the file (named photo.jpg) is empty (0 bytes): check the source, the photo never arrived there",
        ),
        (
            jpeg()[:-50],
            (
                f"the JPEG photo (named photo.jpg) is cut off after {len(jpeg()) - 50} bytes: send the whole"
                " file again"
            ),
        ),
        (
            png_header(50_000, 50_000),
            (
                "the PNG photo (named photo.jpg) of 50,000 by 50,000 pixels is larger than the 120 megapixels"
                " that are decoded: make it smaller"
            ),
        ),
        (
            saved(picture(), "GIF"),
            "the file is a GIF image, not a photo (named photo.jpg): check the source address",
        ),
    ],
)
async def test_what_is_no_photo_ends_with_a_sentence_and_stores_nothing(
    data: bytes, sentence: str, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(PermanentError) as caught:
        await fetch(settings, tmp_path, "photo.jpg", data)
    assert str(caught.value) == sentence
    assert cause_of(caught.value) == "file"
    store = BlobStore(settings.photo_store_url)
    assert [key async for key in store.keys("")] == []


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("file://{photos}/missing.jpg", PermanentError, "is not there"),
        (
            "{site}/missing.jpg",
            HttpStatusError,
            "answered 404: there is nothing: check the source address",
        ),
        ("http://169.254.169.254/latest/meta-data", PermanentError, "SOURCE_HOSTS"),
        ("store:originals/missing", FileNotFoundError, "the photo store has no originals/missing"),
        ("sharepoint:nowhere", PermanentError, "cannot be read: expected sharepoint:"),
        ("ftp://host/a.jpg", PermanentError, "publish an http:"),
    ],
)
async def test_a_source_that_gives_nothing_is_a_permanent_failure(
    url: str, error: type[Exception], words: str, settings: Settings, tmp_path: Path
) -> None:
    async with Site({}) as site, running(settings) as agent:
        address = url.format(photos=tmp_path / "photos", site=site.url(""))
        with pytest.raises(error, match=words) as caught:
            await agent.handle(extracted(address))
    assert classify(caught.value) is Kind.PERMANENT
    assert cause_of(caught.value) == "source"


async def test_bombs_do_not_make_the_process_large(settings: Settings, tmp_path: Path) -> None:
    """Eight at once, as an agent has them in hand, in a process of their own."""
    folder = tmp_path / "photos"
    (folder / "header.png").write_bytes(png_header(50_000, 50_000))
    (folder / "pixels.png").write_bytes(saved(Image.new("RGB", (5_250, 5_250)), "PNG", compress_level=1))
    (folder / "canvas.webp").write_bytes(webp_canvas(1 << 24, 1 << 24))
    (folder / "header.jpg").write_bytes(jpeg_of_size(jpeg(), 65_000, 65_000))
    script = """
import asyncio, os, sys
import msgspec
from redis.asyncio import Redis
from consumers.photo_fetcher import PhotoFetcher
from events.types import SchemaExtracted
from shared.settings import Settings

async def main():
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    agent = PhotoFetcher(settings, Redis())
    await agent.open()
    event = msgspec.json.decode(sys.argv[2], type=SchemaExtracted)
    urls = [f"file://{path}" for path in sys.argv[3:]] * 2
    handled = (agent.handle(msgspec.structs.replace(event, source_url=url)) for url in urls)
    results = await asyncio.gather(*handled, return_exceptions=True)
    await agent.close()
    print(sum(isinstance(result, Exception) for result in results))
    # not ru_maxrss: that counts the process we were forked from too
    status = open("/proc/self/status").read()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, msgspec.json.encode(settings), msgspec.json.encode(extracted("-"))),
        *(str(path) for path in folder.iterdir()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    refused, megabytes = map(int, out.split())
    assert refused == 6
    assert megabytes < 400


async def test_a_photo_larger_than_allowed_is_refused(settings: Settings, tmp_path: Path) -> None:
    small = msgspec.structs.replace(settings, max_photo_bytes=500)
    with pytest.raises(PermanentError, match=r"big\.jpg has more than 500 bytes"):
        await fetch(small, tmp_path, "big.jpg", jpeg())
