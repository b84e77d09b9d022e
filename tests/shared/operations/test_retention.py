"""What is old goes from the photo store by itself, and what a photo still needs does not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from events.connection import connect
from events.keys import Keys
from shared.delivery import packing
from shared.operations import retention
from shared.photo_store import BlobStore
from shared.settings import Settings
from tests.shared.delivery.harness import until
from tests.shared.test_photo_store import age

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

KEYS = Keys()
SHA, OTHER = "a" * 64, "b" * 64
REPORTS = ("reports/s1/report.html", "reports/s1/photos/p-1.json", "reports/-/photos/p-2.json")
LASTING = (f"sharepoint/list/{SHA}/name.json", "sharepoint/drive/seen.json", "schemas/d.json")


def of(sha: str) -> tuple[str, ...]:
    """Everything that is kept about a content."""
    return (
        f"originals/{sha}",
        f"previews/{sha}.jpg",
        f"previews/{sha}-320.jpg",
        f"facts/{sha}.json",
        f"vision/{sha}-{'1' * 32}.json",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(folder: Path) -> BlobStore:
    store = BlobStore(str(folder))
    for key in (*of(SHA), *of(OTHER), *REPORTS, *LASTING):
        await store.put(key, b"x")
        age(folder, key, 40)
    return store


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """As an agent sees Redis."""
    client = connect(redis_url)
    yield client
    await client.aclose()


async def swept(store: BlobStore, client: Redis) -> dict[str, int]:
    return dict(await retention.sweep(store, client, datetime.now(UTC) - timedelta(days=30), lanes=1))


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_what_is_old_goes_and_what_makes_submissions_idempotent_stays(
    store: BlobStore, client: Redis, folder: Path
) -> None:
    removed = await swept(store, client)
    assert removed == {"originals": 2, "previews": 4, "facts": 2, "vision": 2, "reports": 3}
    assert left(folder) == set(LASTING)


async def test_what_is_not_old_enough_stays(store: BlobStore, client: Redis, folder: Path) -> None:
    for key in (*of(SHA), *REPORTS):
        age(folder, key, 29)
    await swept(store, client)
    assert left(folder) == {*of(SHA), *REPORTS, *LASTING}


async def test_a_content_that_was_submitted_again_is_as_young_as_its_facts(
    store: BlobStore, client: Redis, folder: Path
) -> None:
    await store.replace(f"facts/{SHA}.json", b"x")
    await swept(store, client)
    assert left(folder) == {*of(SHA), *LASTING}


def entry(sha: str) -> dict[Any, Any]:
    return {"sessionid": "s1", "data": f'{{"dataref":"store:originals/{sha}"}}'}


async def _waits(client: Redis) -> None:
    await client.xadd(KEYS.stream("photo.fetched"), entry(SHA))


async def _in_front(client: Redis) -> None:
    await client.xadd(
        KEYS.stream("photo.submitted"), {"data": f'{{"source_url":"store:\\/originals\\/{SHA}"}}'}
    )


async def _postponed(client: Redis) -> None:
    flat = [part for pair in entry(SHA).items() for part in pair]
    await client.zadd(KEYS.delayed("vision_analyzer"), {packing.pack(flat): 1})


async def _dead(client: Redis) -> None:
    flat = [part for pair in entry(SHA).items() for part in pair]
    letter: dict[Any, Any] = {"raw": packing.pack(flat), "session": "s1"}
    await client.xadd(KEYS.dead("sharepoint_uploader"), letter)


@pytest.mark.parametrize("somewhere", [_waits, _in_front, _postponed, _dead])
async def test_a_photo_that_is_not_through_keeps_its_blobs(
    store: BlobStore, client: Redis, folder: Path, somewhere: Any
) -> None:
    await somewhere(client)
    await swept(store, client)
    kept = left(folder)
    assert {*of(SHA)} <= kept
    assert not {*of(OTHER)} & kept
    assert "reports/-/photos/p-2.json" not in kept


async def test_a_session_that_is_not_through_keeps_its_reports(
    store: BlobStore, client: Redis, folder: Path
) -> None:
    mine = {key for key in REPORTS if "/s1/" in key}
    await client.zadd(KEYS.session_open, {"s1": 1})
    await swept(store, client)
    assert left(folder) == {*mine, *LASTING}
    await client.delete(KEYS.session_open)
    await _dead(client)
    await swept(store, client)
    assert mine <= left(folder)
    await client.delete(KEYS.dead("sharepoint_uploader"))
    await swept(store, client)
    assert left(folder) == set(LASTING)


@asynccontextmanager
async def kept(client: Redis, folder: Path, *, processes: int, days: int = 30) -> AsyncIterator[None]:
    """The loop that an agent's processes run."""
    settings = Settings(photo_store_url=str(folder), store_retention_days=days)
    tasks = [asyncio.create_task(retention.keep(client, settings)) for _ in range(processes)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_goes_without_anybody_calling_one_process_at_a_time(
    store: BlobStore, client: Redis, folder: Path
) -> None:
    assert await store.exists(f"store:{REPORTS[0]}")

    async def told() -> list[Any]:
        return [line for line in lines if "removed what is too old" in line["event"]]

    with structlog.testing.capture_logs() as lines:
        async with kept(client, folder, processes=3):
            await until(told)
    assert [line["originals"] for line in await told()] == [2]
    assert left(folder) == set(LASTING)
    assert 0 < await client.ttl("erni:store:retention") <= 3600


async def test_a_store_that_fails_is_told_and_ends_nothing(
    client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pass fails, and the loop goes on."""
    monkeypatch.setattr(retention, "_ASK_SECONDS", 0.01)
    (tmp_path / "file").touch()

    async def told() -> bool:
        await client.delete("erni:store:retention")
        return len([line for line in lines if "not tidied" in line["event"]]) > 1

    with structlog.testing.capture_logs() as lines:
        async with kept(client, tmp_path / "file" / "store", processes=1):
            await until(told)
    assert {line["log_level"] for line in lines} == {"warning"}


async def test_without_retention_everything_stays(store: BlobStore, client: Redis, folder: Path) -> None:
    before = left(folder)
    assert await store.exists(f"store:{REPORTS[0]}")
    await retention.keep(client, Settings(photo_store_url=str(folder)))
    assert left(folder) == before
