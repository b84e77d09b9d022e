"""A machine without free descriptors, or with a full temporary folder, costs no photo its end."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.console.test_up import _erni, _hear, _until, _up
from tests.shared.photos.pictures import picture, saved

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit and tmpfs"),
]
INNOCENTS: Final = 20
_NOTICED: Final = "this machine is unhealthy"


def _photos(folder: Path, session: str) -> Path:
    photos = folder / session
    photos.mkdir()
    for number in range(INNOCENTS):
        (photos / f"IMG_{number:04}.jpg").write_bytes(saved(picture(320 + number, 240 + len(session))))
    return photos


def _processes_of(running: subprocess.Popen[str], agent: str) -> list[int]:
    return [child.pid for child in psutil.Process(running.pid).children() if agent in child.cmdline()]


def _noticed(folder: Path, agent: str) -> bool:
    logs = (folder / ".erni" / "logs").glob(f"{agent}*.log")
    return any(_NOTICED in log.read_text(encoding="utf-8") for log in logs)


def _all_validated(folder: Path, session: str) -> None:
    counts = _erni(folder, "session", "show", session)[1]["session"]
    assert (counts["validated"], counts["dead"]) == (INNOCENTS, 0)
    assert _erni(folder, "dead", "list")[1]["total"] == 0


@contextmanager
def _no_free_descriptor(processes: list[int]) -> Iterator[None]:
    """Let processes open nothing more: their limit is the first number that is free."""
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in processes}
    for pid, (soft, hard) in limits.items():
        used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        free = next(number for number in range(soft) if number not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


@pytest.mark.parametrize("agent", ["photo_fetcher", "vision_analyzer"])
def test_no_photo_dies_of_an_agent_that_can_open_nothing(tmp_path: Path, agent: str) -> None:
    with _up(tmp_path) as running:
        with _no_free_descriptor(_processes_of(running, agent)):
            photos = _photos(tmp_path, "haus")
            code, published, _ = _erni(tmp_path, "publish", str(photos), "--session", "haus")
            assert code == 0, published
            _until(lambda: _noticed(tmp_path, agent))
        _hear(running, "haus is through")
        _all_validated(tmp_path, "haus")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for a megabyte."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount:
        pytest.skip("there is no mount here")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run([umount, "--lazy", folder], check=True)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(bytes(4096))


def test_no_photo_dies_of_a_full_temporary_folder(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("TMPDIR", str(small_disk))
        with _up(tmp_path) as running:
            filler = small_disk / "filler"
            _fill(filler)
            photos = _photos(tmp_path, "haus")
            code, published, _ = _erni(tmp_path, "publish", str(photos), "--session", "haus")
            assert code == 0, published
            _until(lambda: _noticed(tmp_path, "photo_fetcher"))
            filler.unlink()
            _hear(running, "haus is through")
            _all_validated(tmp_path, "haus")
