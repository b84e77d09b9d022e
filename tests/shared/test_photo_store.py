"""Blobs that are written again while they are removed by age."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from shared import photo_store as blobs
from shared.photo_store import BlobMissingError, BlobStore, StoreUnhealthyError
from shared.retry.classify import Kind, classify

if TYPE_CHECKING:
    from pathlib import Path

SHA = "a" * 64
ORIGINAL, FACTS = f"originals/{SHA}", f"facts/{SHA}.json"
DAY = 24 * 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> BlobStore:
    return BlobStore(str(folder))


def age(folder: Path, key: str, days: float) -> None:
    """As if it had been written so many days ago."""
    when = time.time() - days * DAY
    os.utime(folder / key, (when, when))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def yesterday() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


async def test_a_blob_put_again_is_as_young_as_a_new_one(store: BlobStore, folder: Path) -> None:
    source = folder.parent / "picture"
    source.write_bytes(b"picture")
    for again in (store.put(ORIGINAL, b"picture"), store.put_file(ORIGINAL, source)):
        await store.put(ORIGINAL, b"picture")
        age(folder, ORIGINAL, 400)
        await again
        assert not [key async for key in store.older("originals/", yesterday())]
        assert await store.get(f"store:{ORIGINAL}") == b"picture"


async def test_a_young_blob_put_again_is_not_written(store: BlobStore, folder: Path) -> None:
    await store.put(ORIGINAL, b"picture")
    age(folder, ORIGINAL, 0.25)
    before = (folder / ORIGINAL).stat().st_mtime_ns
    await store.put(ORIGINAL, b"picture")
    assert (folder / ORIGINAL).stat().st_mtime_ns == before


async def test_only_what_is_old_goes(store: BlobStore, folder: Path) -> None:
    for key in (ORIGINAL, FACTS):
        await store.put(key, b"x")
    age(folder, ORIGINAL, 3)
    assert not await store.expire(ORIGINAL, yesterday(), kept_by=[FACTS])
    assert not await store.expire(FACTS, yesterday())
    assert not await store.expire("originals/nothing", yesterday())
    assert await store.expire(ORIGINAL, yesterday())
    assert not await store.exists(f"store:{ORIGINAL}")
    assert await store.exists(f"store:{FACTS}")
    # not even an empty folder
    assert names_in(folder) == ["facts"]


@pytest.mark.parametrize("moment", ["head", "delete"])
@pytest.mark.parametrize("write", ["put", "replace", "another blob of the content"])
async def test_what_is_written_during_its_removal_stays(
    store: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str, write: str
) -> None:
    """The writer begins right before the removal looks at a date, or right before it deletes."""
    await store.put(ORIGINAL, b"picture")
    age(folder, ORIGINAL, 3)
    other = BlobStore(str(folder))
    writers: list[asyncio.Task[str]] = []
    real = {name: getattr(obstore, f"{name}_async") for name in ("head", "delete", "put")}

    async def meanwhile(opened: object, key: str) -> object:
        if opened is store._store and key == ORIGINAL and not writers:
            written = asyncio.Event()

            async def put(*words: object, **more: object) -> object:
                try:
                    return await real["put"](*words, **more)
                finally:
                    written.set()

            monkeypatch.setattr(obstore, "put_async", put)
            target = FACTS if write.startswith("another") else ORIGINAL
            call = other.put if write == "put" else other.replace
            writers.append(asyncio.create_task(call(target, b"picture")))
            await written.wait()
            if write == "put":
                # it finds the old blob and writes it again
                written.clear()
                await written.wait()
        return await real[moment](opened, key)

    monkeypatch.setattr(obstore, f"{moment}_async", meanwhile)
    gone = await store.expire(ORIGINAL, yesterday(), kept_by=[FACTS])
    await writers[0]
    if write.startswith("another"):
        # the content's writer goes on only after it is decided what is there
        assert gone == (moment == "delete")
        assert await store.exists(f"store:{ORIGINAL}") != gone
    else:
        assert await store.get(f"store:{ORIGINAL}") == b"picture"
        assert not [key async for key in store.older("originals/", yesterday())]


async def test_a_writer_of_a_content_hands_nothing_on_while_a_removal_of_it_runs(
    store: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(ORIGINAL, b"picture")
    age(folder, ORIGINAL, 3)
    other = BlobStore(str(folder))
    begun, end, looked = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(0)
    real_delete, real_head = obstore.delete_async, obstore.head_async

    async def delete(_: object, key: str) -> None:
        if key == ORIGINAL:
            begun.set()
            await end.wait()
        await real_delete(store._store, key)

    async def head(opened: object, key: str) -> object:
        if opened is other._store and key.startswith("removing/"):
            looked.release()
        return await real_head(store._store, key)

    monkeypatch.setattr(obstore, "delete_async", delete)
    monkeypatch.setattr(obstore, "head_async", head)
    removal = asyncio.create_task(store.expire(ORIGINAL, yesterday(), kept_by=[FACTS]))
    await begun.wait()
    writer = asyncio.create_task(other.replace(FACTS, b"facts"))
    await looked.acquire()
    again = asyncio.create_task(looked.acquire())
    await asyncio.wait({writer, again}, return_when=asyncio.FIRST_COMPLETED)
    assert not writer.done()
    end.set()
    assert await removal
    assert await store.exists(await writer)


async def test_a_writer_waits_for_the_removal_it_sees(store: BlobStore, folder: Path) -> None:
    mark = folder / "removing" / SHA
    mark.parent.mkdir(parents=True)
    mark.touch()
    writer = asyncio.create_task(store.put(ORIGINAL, b"picture"))
    while not (folder / ORIGINAL).exists():  # noqa: ASYNC110 - the file system has no event
        await asyncio.sleep(0)
    (folder / ORIGINAL).unlink()
    assert not writer.done()
    mark.unlink()
    await writer
    assert await store.get(f"store:{ORIGINAL}") == b"picture"


async def test_the_mark_of_a_process_that_died_stops_nobody_for_long(
    store: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_DEAD_SECONDS", 0.0)
    for number in range(2):
        mark = folder / "removing" / SHA
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        if number:
            await store.clear_marks()
        else:
            await store.put(ORIGINAL, b"picture")
        assert not mark.exists()


async def test_a_blob_that_went_says_why_and_what_to_do(store: BlobStore) -> None:
    with pytest.raises(BlobMissingError, match=r"retention over.*publish the photo again"):
        await store.get(f"store:{ORIGINAL}")


async def test_a_store_that_cannot_be_written_is_this_machines_trouble_in_one_sentence(
    store: BlobStore, folder: Path
) -> None:
    """A file stands where a folder must be: the system refuses, as it does on a full or broken disk."""
    (folder / "originals").write_bytes(b"")
    with pytest.raises(StoreUnhealthyError) as raised:
        await store.put(ORIGINAL, b"picture")
    assert str(raised.value) == (
        f"the photo store {folder} cannot be used (not a directory): check PHOTO_STORE_URL and its disk."
        " Photos wait meanwhile"
    )
    assert classify(raised.value) is Kind.UNHEALTHY


@pytest.mark.parametrize(
    ("error", "said", "number"),
    [
        (
            GenericError(
                "Generic LocalFileSystem error: Unable to copy data to file: No space left on device"
                " (os error 28)\n\nDebug source:\nGeneric {"
            ),
            r"\(no space left on device; [\d.]+ of [\d.]+ MB free\): free some space there",
            errno.ENOSPC,
        ),
        (
            PermissionDeniedError("The operation lacked the necessary privileges\n\nDebug source:\n"),
            r"\(it does not let us in\): check its credentials",
            errno.EIO,
        ),
        (
            GenericError("Generic S3 error: error sending request https://k:s@host/a?sig=geheim\n\nDebug"),
            r"\(Generic S3 error: error sending request https://…@host/a…\): check PHOTO_STORE_URL",
            errno.EIO,
        ),
    ],
)
async def test_each_error_of_a_store_has_its_cause_and_its_remedy(
    store: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
    number: int,
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(obstore, "put_async", refuse)
    with pytest.raises(StoreUnhealthyError, match=said) as raised:
        await store.put(ORIGINAL, b"picture")
    assert raised.value.errno == number
    assert classify(raised.value) is Kind.UNHEALTHY
    assert "Debug" not in str(raised.value)
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "variables", "said"),
    [
        ("s3://bucket/photos", {"AWS_ALLOW_HTTP": "maybe"}, r'"maybe" as boolean\): check AWS_ALLOW_HTTP\.'),
        ("azure://photos", {}, r"\(AZURE_STORAGE_ACCOUNT_NAME is missing\): set it\."),
        ("s3://b", {"AWS_ACCESS_KEY_ID": "x"}, r"\(AWS_SECRET_ACCESS_KEY is missing\): set it\."),
        ("s3://b", {"AWS_SECRET_ACCESS_KEY": "x"}, r"\(AWS_ACCESS_KEY_ID is missing\): set it\."),
        (
            "az://c",
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "no base64"},
            r"check AZURE_STORAGE_ACCOUNT_KEY\.",
        ),
        (
            "az://c",
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ENDPOINT": "no address, this"},
            r"check AZURE_STORAGE_ENDPOINT\.",
        ),
        (
            "gs://b",
            {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere: not there.json"},
            r"\(no such file or directory\): check GOOGLE_APPLICATION_CREDENTIALS\.",
        ),
        ("gs://b", {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}"}, r"check GOOGLE_SERVICE_ACCOUNT_KEY\."),
    ],
)
def test_a_variable_that_the_stores_client_lacks_or_cannot_read_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], said: str
) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnhealthyError, match=said):
        BlobStore(url)
