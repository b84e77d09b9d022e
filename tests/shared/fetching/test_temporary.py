"""Temporary files have one place, and what goes wrong there is this machine's and no photo's."""

from __future__ import annotations

import errno
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.fetching.temporary import TemporaryFiles
from shared.photos.decoders import Decoders
from shared.retry.classify import Kind, classify
from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.photo_store import BlobStore
    from tests.shared.fetching.conftest import OpenSources


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of TMPDIR; Python has not chosen one yet, as in a process that just started."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def inside(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def remove(folder: Path) -> None:
    folder.rmdir()


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_a_free_descriptor_this_machine_is_to_blame(
    blobs: BlobStore, open_sources: OpenSources, folder: Path
) -> None:
    url = await blobs.put("originals/abc", b"photo")
    async with open_sources() as sources:
        with no_free_descriptor(), pytest.raises(OSError, match="too many open files") as caught:
            async with sources.fetch(url):
                pass
        assert classify(caught.value) is Kind.UNHEALTHY
        assert str(caught.value) == (
            f"no temporary file in {folder} (too many open files): raise the process' limit of open files."
            " Photos wait meanwhile"
        )
        async with sources.fetch(url) as file:
            assert file.path.read_bytes() == b"photo"


async def test_a_folder_that_goes_while_photos_are_fetched_is_this_machines_fault(
    blobs: BlobStore, open_sources: OpenSources, folder: Path
) -> None:
    url = await blobs.put("originals/abc", b"photo")
    async with open_sources() as sources:
        remove(folder)
        with pytest.raises(OSError, match=f"no temporary file in {folder}") as caught:
            async with sources.fetch(url):
                pass
        assert classify(caught.value) is Kind.UNHEALTHY


async def test_files_are_made_in_the_folder_of_tmpdir_and_removed(
    blobs: BlobStore, open_sources: OpenSources, folder: Path
) -> None:
    url = await blobs.put("originals/abc", b"photo")
    async with open_sources() as sources, sources.fetch(url) as file:
        assert file.path.parent == folder
    assert inside(folder) == []


def test_a_folder_that_is_not_there_is_said_at_the_start(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(SettingsError, match=rf"in {folder} \(no such file or directory\): name a folder"):
        TemporaryFiles().check()


def test_a_disk_that_is_full_at_the_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    TemporaryFiles().check()


async def test_a_decoder_that_finds_no_descriptor_leaves_none_behind() -> None:
    before = len(inside(Path("/proc/self/fd")))
    async with Decoders() as decoders:
        for _ in range(3):
            with no_free_descriptor(), pytest.raises(OSError, match="decoder does not start") as caught:
                await decoders.examine(b"photo")
            assert classify(caught.value) is Kind.UNHEALTHY
    assert len(inside(Path("/proc/self/fd"))) == before
