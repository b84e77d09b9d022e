"""A rolling upgrade: processes of the old and of the new code work side by side on the same streams."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from events.connection import connect
from events.types import PhotoFetched, PhotoSubmitted, SchemaExtracted
from shared.delivery.agent import Agent
from shared.delivery.process import AgentProcess
from tests.events.samples import sample
from tests.shared.delivery.harness import entries, extracted, publisher, running, settings_for, until
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

PHOTOS: Final = 400
pytestmark = pytest.mark.slow


class OldFetcher(Agent[SchemaExtracted, PhotoFetched]):
    """The second agent as it is now, which knows nothing of what a newer first one adds."""

    name = "photo_fetcher"

    async def handle(self, event: SchemaExtracted) -> PhotoFetched:
        carried = {name: getattr(event, name) for name in event.__struct_fields__}
        full = cast("PhotoFetched", sample("photo.fetched"))
        added = {name: getattr(full, name) for name in full.__struct_fields__ if name not in carried}
        return PhotoFetched(**carried, **added)


@pytest.fixture
def next_year(tmp_path: Path) -> Path:
    """The code with a field more in what is submitted and in what travels, and an agent that fills it."""
    for package in ("events", "shared", "tests/shared/delivery"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("tests", "tests/shared"):
        (tmp_path / package / "__init__.py").touch()
    for path, old, new in (
        ("events/types.py", "    file_name: str | None = None\n    hints:", "    since: list[str] = []\n"),
        (
            "tests/shared/delivery/harness.py",
            "        source_url=event.source_url,\n",
            '        since=["next year"],\n',
        ),
    ):
        source = (tmp_path / path).read_text()
        assert old in source
        (tmp_path / path).write_text(source.replace(old, new + old))
    return tmp_path


async def test_old_and_new_processes_share_the_work_without_a_dead_letter(
    redis: Redis, redis_url: str, next_year: Path
) -> None:
    settings = settings_for(redis_url, lease_seconds=15.0)
    newer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.shared.delivery.fuzzed_agent",
        redis_url,
        "4",
        cwd=next_year,
        env={**os.environ, "PYTHONPATH": str(next_year)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert newer.stdout is not None
    assert await newer.stdout.readline() == b"reads\n"

    async def unhurried(event: PhotoSubmitted) -> SchemaExtracted:
        # leaves some of the work to the other process
        await asyncio.sleep(0.002)
        return extracted(event)

    async with connect(redis_url) as client, running(settings, unhurried) as (_, old):
        fetcher = AgentProcess(OldFetcher(settings, client), settings)
        fetching = asyncio.create_task(fetcher.run(serve=False))
        async with publisher(settings) as upstream:
            for number in range(PHOTOS):
                await upstream.publish(PhotoSubmitted(source_url=f"https://example.org/{number}"))
        await until(lambda: _all_there(redis), seconds=60)
        newer.send_signal(signal.SIGTERM)
        assert await newer.wait() == 0
        fetcher.stop()
        await fetching
        assert 0 < len(old.handled) < PHOTOS
    for agent in ("schema_extractor", "photo_fetcher"):
        assert await redis.xlen(f"erni:dead:{agent}") == 0
    sources = {fields[fields.index(b"subject") + 1] for fields in await entries(redis, "erni:photo.fetched")}
    assert len(sources) == PHOTOS


async def _all_there(redis: Redis) -> Any:
    return await redis.xlen("erni:photo.fetched") == PHOTOS
