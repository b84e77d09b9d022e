"""Photos from folders, from the store, from a library; and what they have in common."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

import pytest

from shared.fetching.sources import FetchedFile, name_of
from shared.photo_store import BlobMissingError
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shared.fetching.sources import Sources
    from shared.photo_store import BlobStore
    from tests.shared.fetching.conftest import OpenSources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a photo, beside a folder with a secret."""
    folder = tmp_path / "photos"
    (folder / "Küssnacht 2").mkdir(parents=True)
    (folder / "Küssnacht 2" / "Bild #1.jpg").write_bytes(b"photo")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "photos-of-others").mkdir()
    (tmp_path / "photos-of-others" / "a.jpg").write_bytes(b"other")
    return folder


async def test_a_file_below_a_root_is_read(root: Path, open_sources: OpenSources) -> None:
    url = (root / "Küssnacht 2" / "Bild #1.jpg").as_uri()
    async with open_sources(roots=("/nowhere", str(root))) as sources:
        for address in (
            url,
            url.replace("file:///", "file://localhost/"),
            url.replace("/photos/", "/photos/./"),
        ):
            async with sources.fetch(address) as file:
                assert file.path.read_bytes() == b"photo"
                assert file.path != root / "Küssnacht 2" / "Bild #1.jpg"


async def test_a_link_that_stays_below_the_root_is_followed(root: Path, open_sources: OpenSources) -> None:
    (root / "link.jpg").symlink_to(root / "Küssnacht 2" / "Bild #1.jpg")
    url = (root / "link.jpg").as_uri()
    async with open_sources(roots=(str(root),)) as sources, sources.fetch(url) as file:
        assert file.size == 5


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/../secret",
        "{root}/%2e%2e/secret",
        "{root}/Küssnacht 2/../../secret",
        "{root}-of-others/a.jpg",
        "{root}/out.jpg",
        "{root}/folder-out/secret",
        "",
        "/",
    ],
)
async def test_a_file_outside_of_the_roots_is_not_read(
    path: str, root: Path, open_sources: OpenSources
) -> None:
    (root / "out.jpg").symlink_to(root.parent / "secret")
    (root / "folder-out").symlink_to(root.parent)
    async with open_sources(roots=(str(root),)) as sources:
        with pytest.raises(PermanentError, match="outside of the folders that SOURCE_ROOTS names"):
            async with sources.fetch("file://" + path.format(root=root)):
                pass


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.jpg", "is not there"),
        ("Küssnacht%202/Bild%20%231.jpg/inside", "is not there"),
        ("Küssnacht%202", "is not a file"),
        ("pipe", "is not a file"),
        ("null%00byte", "no path that can be followed"),
        ("loop", "no path that can be followed"),
        ("linked.jpg", "has several names"),
        ("x" * 300, "is not there|no path"),
    ],
)
async def test_what_is_no_readable_file_is_said_and_never_waited_for(
    path: str, words: str, root: Path, open_sources: OpenSources
) -> None:
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to(root / "loop")
    (root / "linked.jpg").hardlink_to(root.parent / "secret")
    async with open_sources(roots=(str(root),)) as sources:
        with pytest.raises(PermanentError, match=words):
            async with sources.fetch(f"file://{root}/{path}"):
                pass


async def test_files_are_off_without_roots_and_on_other_machines(
    root: Path, open_sources: OpenSources
) -> None:
    async with open_sources() as sources:
        with pytest.raises(PermanentError, match="SOURCE_ROOTS"):
            async with sources.fetch("file:///etc/passwd"):
                pass
    async with open_sources(roots=(str(root),)) as sources:
        with pytest.raises(PermanentError, match="another machine"):
            async with sources.fetch(f"file://server{root}/a.jpg"):
                pass


async def test_a_file_larger_than_allowed_is_not_taken(root: Path, open_sources: OpenSources) -> None:
    (root / "large.jpg").write_bytes(bytes(1001))
    async with open_sources(roots=(str(root),), max_bytes=1000) as sources:
        with pytest.raises(PermanentError, match=r"large\.jpg has more than 1,000 bytes"):
            async with sources.fetch((root / "large.jpg").as_uri()):
                pass


async def test_stored_bytes_that_are_too_many_are_told_by_the_photos_name(
    blobs: BlobStore, open_sources: OpenSources
) -> None:
    url = await blobs.put("originals/abc", bytes(1001))
    async with open_sources(max_bytes=1000) as sources:
        with pytest.raises(
            PermanentError, match=r"^a\.jpg \(store:originals/abc\) has more than 1,000 bytes"
        ):
            async with sources.fetch(url, name="a.jpg"):
                pass


async def test_bytes_in_the_store_are_read_from_there(blobs: BlobStore, open_sources: OpenSources) -> None:
    url = await blobs.put("originals/abc", b"photo")
    async with open_sources() as sources:
        async with sources.fetch(url) as file:
            assert file.path.read_bytes() == b"photo"
        with pytest.raises(BlobMissingError, match="originals/gone"):
            async with sources.fetch("store:originals/gone"):
                pass
        with pytest.raises(ValueError, match="not a reference"):
            async with sources.fetch("store:../secret"):
                pass


async def test_a_library_is_asked_for_its_own_addresses(open_sources: OpenSources) -> None:
    asked: list[str] = []

    async def download(url: str) -> AsyncGenerator[bytes, None]:
        asked.append(url)
        yield b"pho"
        yield b"to"

    url = "sharepoint:/sites/Bau/Fotos/a.jpg"
    async with open_sources(sharepoint=download) as sources, sources.fetch(url) as file:
        assert file.path.read_bytes() == b"photo"
    assert asked == [url]


@pytest.mark.parametrize(
    "url", ["ftp://host/a.jpg", "data:image/png;base64,AAAA", "a.jpg", "", "//host/a.jpg"]
)
async def test_other_kinds_of_address_are_refused_with_what_there_is(
    url: str, open_sources: OpenSources
) -> None:
    async with open_sources(hosts=("*",)) as sources:
        with pytest.raises(
            PermanentError, match="publish an http:, https:, file:, store: or sharepoint: address"
        ):
            async with sources.fetch(url):
                pass


async def test_the_fetched_file_is_gone_afterwards_whatever_happened(
    blobs: BlobStore, open_sources: OpenSources
) -> None:
    url = await blobs.put("originals/abc", b"photo")
    seen: list[FetchedFile] = []

    async def use(sources: Sources, failure: Exception | None) -> None:
        async with sources.fetch(url) as file:
            seen.append(file)
            if failure:
                raise failure

    async with open_sources() as sources:
        await use(sources, None)
        with pytest.raises(RuntimeError, match="later"):
            await use(sources, RuntimeError("later"))
    assert len(seen) == 2
    assert not any(file.path.exists() for file in seen)


async def test_a_full_disk_is_no_fault_of_the_source(
    blobs: BlobStore, open_sources: OpenSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await blobs.put("originals/abc", b"photo")
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda **_: io.FileIO("/dev/full", "wb"))
    async with open_sources() as sources:
        with pytest.raises(OSError, match="no space left") as caught:
            async with sources.fetch(url):
                pass
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://photos.example/a/IMG_1.JPG?sig=x#y", "IMG_1.JPG"),
        ("file:///photos/Bild%20%231.jpg", "Bild #1.jpg"),
        ("sharepoint:/sites/Bau/Fotos/a.jpg", "a.jpg"),
        ("store:originals/abc", None),
        ("https://photos.example", None),
        ("http://[::1/a.jpg", "a.jpg"),
        ("https://photos.example/..%2f..%2fetc%2fpasswd", "passwd"),
    ],
)
def test_a_name_for_people_is_the_end_of_the_address(url: str, name: str | None) -> None:
    assert name_of(url) == name
