"""An upstream gets the contract as one package, `erni_events`, and needs nothing of the repository."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.events.test_base_install import _FORBID, _PUBLISH
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

FORBID = _FORBID.replace('"events"', '"erni_events"')


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, str(ROOT / "deploy" / "erni_events" / "build.py"), str(folder))
    return folder


def installed(built: Path, kind: str, folder: Path) -> Path:
    """The distribution alone in a folder of its own."""
    [archive] = built.glob(kind)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--no-build-isolation", "--target", str(folder), str(archive))
    return folder


def python(folder: Path, code: str, *arguments: str) -> str:
    """Run code where only the standard library, the folder and the three dependencies can be imported."""
    # -S -E: no .pth file and no PYTHONPATH, which could lead back to the repository
    paths = [path for path in sys.path if path.endswith("site-packages")]
    start = f"import sys; sys.path[:0] = {[str(folder), *paths]!r}; sys.path.remove('')\n"
    return run(sys.executable, "-S", "-E", "-c", start + FORBID + code, *arguments)


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
async def test_it_publishes_in_an_environment_of_its_own(
    built: Path, kind: str, tmp_path: Path, redis: Redis, redis_url: str
) -> None:
    folder = installed(built, kind, tmp_path)
    code = _PUBLISH.replace("from events.", "from erni_events.")
    assert python(folder, code, redis_url).splitlines() == ["[True, False]", "[]"]
    assert await redis.xlen("erni:photo.submitted") == 1
    printed = python(folder, "from erni_events.asyncapi import text\nprint(text(), end='')\n")
    assert printed == (ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8")


def test_exactly_one_package_comes_with_every_file_of_the_contract(built: Path) -> None:
    [wheel], [sdist] = built.glob("*.whl"), built.glob("*.tar.gz")
    contract = {
        path.relative_to(ROOT / "events").as_posix()
        for path in (ROOT / "events").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"erni_events"}
    assert {name.removeprefix("erni_events/") for name in names if "dist-info" not in name} == contract
    with tarfile.open(sdist) as archive:
        below = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"erni_events/{name}" for name in contract} <= below


def test_what_it_needs_is_what_the_base_install_needs(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    [metadata] = (name for name in archive.namelist() if name.endswith("METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    needed = {line.partition(": ")[2].partition(">")[0] for line in lines if line.startswith("Requires-Dist")}
    assert needed == {"msgspec", "opentelemetry-api", "redis"}
