"""The steps of docs/operating.md, word for word: a copy under load, a restore, and every photo ends once."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from events import topology
from tests.chaos.run import begun, drained
from tests.chaos.submitter import Mix
from tests.chaos.test_promises import Scene, scene, until
from tests.shared.delivery.harness import entries
from tests.shared.photos.pictures import jpeg
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = [pytest.mark.chaos, pytest.mark.needs("gcc"), pytest.mark.timeout(300)]

_BLOCK: Final = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
MIX: Final = Mix(die=0, refuse=0, nonsense=0, without_session=0, given_up=0, repeated=0)


def steps() -> tuple[str, str]:
    """Return the commands of the page: those of a backup, those of a restore."""
    page = (ROOT / "docs" / "operating.md").read_text()
    section = page.split("## Backup and restore", 1)[1].split("\n## ", 1)[0]
    backup, restore = _BLOCK.findall(section)
    return backup, restore


def sh(commands: str, places: Mapping[str, str]) -> None:
    subprocess.run(["/bin/sh", "-eu", "-c", commands], env={**os.environ, **places}, check=True, timeout=60)


async def ends(s: Scene) -> Counter[str]:
    """Return how often each photo was validated."""
    found = await entries(s.server.admin, f"erni:{topology.VALIDATED}")
    return Counter(fields[1::2][fields[::2].index(b"subject")].decode() for fields in found)


async def publish(s: Scene, folder: Path, count: int) -> list[str]:
    """Publish pictures as a person does, so that the store has their bytes; return their ids."""
    await asyncio.to_thread(folder.mkdir)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(jpeg() + bytes(number + 1))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "console.main", "publish", "--session", folder.name, "--json", str(folder)],
        env={**os.environ, **s.herd.environment, "PYTHONPATH": str(ROOT)},
        cwd=folder.parent,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [photo["photo_id"] for photo in msgspec.json.decode(done.stdout)["photos"]]


async def test_a_restored_copy_loses_nothing_that_was_published_before_it_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    async with scene(start=False, mix=MIX, per_agent=1, stuck_seconds=30.0) as s:
        s.herd.environment["PHOTO_STORE_URL"] = str(store)
        s.herd.start_agents()
        await begun(s.here)
        backup, restore = steps()
        places = {"DATA": str(s.server.data), "STORE": str(store), "BACKUP": str(tmp_path / "backup")}
        files = await publish(s, tmp_path / "before", 6)
        publishing = asyncio.create_task(s.submitter.run())

        async def came_through() -> bool:
            return await s.validated() > 40

        await until(came_through)
        before = {photo.photo_id for photo in s.submitter.photos.values() if photo.state == "published"}
        before |= set(files)
        await asyncio.to_thread(sh, backup, places)
        seen = await s.validated()

        async def went_on() -> bool:
            return await s.validated() > seen + 20

        await until(went_on)
        s.submitter.stop()
        await publishing
        after = set(await publish(s, tmp_path / "after", 3))

        assert await s.herd.stop() == []
        s.server.kill()
        for path in store.rglob("*"):
            # as if its disk was lost, too
            if path.is_file():
                path.unlink()
        await asyncio.to_thread(sh, restore, places)
        await s.server.start()
        known = set(await ends(s))
        s.herd.keep_up = True
        s.herd.start_agents()
        await begun(s.here)
        assert await drained(s.here) == []
        found = await ends(s)
        assert not before - found.keys(), "what was published before the copy is lost"
        assert len(known) < len(found), "nothing was on its way in the copy"
        assert not after & found.keys(), "the copy knows what was published after it"

        # what the page says of the rest: the upstream publishes all of it once more
        for photo in s.submitter.photos.values():
            await s.submitter.publish_one(photo)
        assert await drained(s.here) == []
        found = await ends(s)
        assert found.keys() == s.submitter.photos.keys() | set(files)
        assert set(found.values()) == {1}
        assert {number for _, photo, number in s.here.effects.taken if photo in found} == {"0"}
        stored = sorted(path.stat().st_size for path in store.rglob("*") if path.is_file())
        assert len(stored) >= len(files)
        assert {len(jpeg()) + number + 1 for number in range(len(files))} <= set(stored)
