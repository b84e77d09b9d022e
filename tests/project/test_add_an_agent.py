"""docs/add-an-agent.md, followed to the letter in a copy of the code, makes an agent that works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from events import codec
from events.publisher import Publisher
from events.types import PhotoAnalyzed
from tests.events.samples import sample
from tests.shared.delivery.harness import entries, until
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.asyncio import Redis

PAGE: Final = (ROOT / "docs" / "add-an-agent.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code with the page's changes."""
    for package in ("events", "shared", "sandbox", "consumers", "console"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for change in re.findall(r"^```diff\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        _apply(tmp_path, change)
    [agent] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "consumers" / "caption_writer.py").write_text(agent)
    return tmp_path


def _apply(folder: Path, change: str) -> None:
    """Apply one change; what it takes out, or stands around it, is in the file exactly once."""
    head, *lines = change.splitlines(keepends=True)
    path = folder / head.removeprefix("--- ").strip()
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    source = path.read_text()
    assert source.count(before) == 1, f"{path.name} does not look as the page says:\n{before}"
    path.write_text(source.replace(before, after))


def python(folder: Path, *words: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(folder: Path, *words: str, code: int = 0, **environ: str) -> str:
    process = python(folder, *words, **environ)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    return said


@pytest.fixture
def process(copy: Path, redis_url: str) -> Iterator[subprocess.Popen[str]]:
    """The sixth agent, as a process."""
    started = python(
        copy,
        "-m",
        "consumers",
        "caption_writer",
        REDIS_URL=redis_url,
        METRICS_PORT="0",
        ENABLE_TRACING="false",
    )
    yield started
    started.terminate()
    said, _ = started.communicate(timeout=30)
    assert started.returncode == 0, said


@pytest.mark.leaves_keys(r"erni:photo\.captioned")
async def test_the_sixth_agent_takes_its_place(
    redis: Redis, redis_url: str, copy: Path, process: subprocess.Popen[str]
) -> None:
    analyzed = sample("photo.analyzed")
    assert isinstance(analyzed, PhotoAnalyzed)
    assert analyzed.session_id is not None
    await Publisher(redis).open_session(analyzed.session_id)
    unseen = msgspec.structs.replace(analyzed, fields={})
    for event in (analyzed, unseen):
        fields: list[Any] = codec.encode(
            event, event_id="e", source="test", photo_id=event.photo_id, session_id=event.session_id
        )
        await redis.execute_command("XADD", "erni:photo.analyzed", "*", *fields)  # type: ignore[no-untyped-call]  # redis-py's types
    [out] = await until(lambda: entries(redis, "erni:photo.captioned"))
    pairs = dict(zip(out[::2], out[1::2], strict=True))
    data = msgspec.json.decode(pairs[b"data"])
    assert data.pop("caption") == "Dach, Fassade"
    assert msgspec.convert(data, PhotoAnalyzed) == analyzed
    assert pairs[b"type"] == b"photo.captioned"
    assert [step.agent for step in codec.read_steps(pairs[b"ernisteps"])] == ["caption_writer"]
    # what it could not do is a dead letter of its own, and the session counts both
    [letter] = await until(lambda: entries(redis, "erni:dead:caption_writer"))
    assert b"nothing was seen on this photo: a caption has nothing to say" in letter
    counted: Any = await redis.hgetall("erni:session:" + analyzed.session_id)
    assert (counted[b"caption_writer"], counted[b"dead"]) == (b"1", b"1")
    # the status knows it, and misses the five others
    status = output(copy, "-m", "console.main", "status", "--json", code=1, REDIS_URL=redis_url)
    assert "sharepoint_uploader: no process runs" in status
    assert "caption_writer: no process runs" not in status
    assert process.poll() is None


def test_its_neighbours_and_the_documents_know_it(copy: Path) -> None:
    output(copy, "-c", "import consumers.sharepoint_uploader, consumers.validation_reporter")
    said = output(copy, "-m", "events.asyncapi")
    assert '"erni:photo.captioned"' in said
    assert '"sharepoint_uploader.reads.photo.captioned"' in said
    assert "caption_writer" in output(copy, "-c", "from events import topology; print(topology.picture())")
