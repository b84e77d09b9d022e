"""Sessions belong to no process: who makes one, who fills it and who asks for it are different ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.shared.delivery.harness import until
from tests.shared.sessions.places import Place, fields, store_at
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

pytestmark = pytest.mark.slow


def start(place: Place, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.shared.sessions.worker", place.url, str(place.lanes), *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """Let a process end; gives what it said."""
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out


def typed(place: Place, folder: Path, *words: str) -> Any:
    """What a command answers."""
    ran = subprocess.run(
        [sys.executable, "-m", "console.main", *words, "--json"],
        cwd=folder,
        env=os.environ | {"REDIS_URL": place.url, "LANES": str(place.lanes), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


async def test_made_by_one_process_touched_by_two_others_at_once(client: Redis, place: Place) -> None:
    ended(start(place, "set", "seewen", "/sites/Bau"))
    others = [start(place, "touch", "seewen", "50") for _ in range(2)]
    assert [ended(other).split() for other in others] == [["True"] * 50] * 2
    found = await store_at(client, place).get("seewen")
    assert found is not None
    assert (found.access_count, found.site) == (101, "/sites/Bau")


async def test_published_by_one_process_filled_by_others_read_by_the_command_line(
    client: Redis, place: Place, tmp_path: Path
) -> None:
    agents = [start(place, "agents") for _ in range(2)]
    ended(start(place, "publish", "seewen", "20"))

    async def completed() -> bool:
        return (await fields(client, place, "seewen")).get("status") == "completed"

    await until(completed, 60)
    for process in agents:
        ended(process)
    session = typed(place, tmp_path, "session", "show", "seewen")["session"]
    assert [session[name] for name in ("expected", "received", "validated", "dead", "completion")] == [
        20, 20, 20, 0, 1,
    ]  # fmt: skip
    document = typed(place, tmp_path, "session", "list")
    assert [one["session_id"] for one in document["sessions"]] == ["seewen"]
    assert document["statistics"]["created"] == 1
