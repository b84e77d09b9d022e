"""The command line in this process: what was typed, what came out, which exit code."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from console.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Ran:
    """What a command left."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def document(self) -> Any:
        """The JSON document, which must be all there is on stdout."""
        return json.loads(self.out)


@pytest.fixture
def erni(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], redis_url: str
) -> Callable[..., Ran]:
    """Type a command in an empty folder, with an empty Redis and a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("PHOTO_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("ENABLE_TRACING", "0")
    # workers of pytest-xdist have it, and lines are whole without it
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def nearly_no_room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let every disk have so many free bytes."""

    def leave(free: int) -> None:
        def usage(_: object) -> tuple[int, int, int]:
            return shutil._ntuple_diskusage(40_000_000, 40_000_000 - free, free)

        monkeypatch.setattr("shared.operations.disks.shutil.disk_usage", usage)

    return leave


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """A plain client of the test's Redis, to put there what a pipeline would."""
    with Redis.from_url(redis_url, protocol=2) as client:
        yield client
