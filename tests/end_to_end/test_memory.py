"""What the two agents that touch pixels need at most, under bombs and the largest photos there may be."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import bombs
from tests.end_to_end.system import System

if TYPE_CHECKING:
    import subprocess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]


def _peak(process: subprocess.Popen[bytes]) -> int:
    """The most memory a process ever held, in megabytes. Not sampled: the kernel keeps it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024 // 1_000_000


def test_bombs_and_the_largest_photos_stay_below_400_megabytes(tmp_path: Path) -> None:
    refused, largest = bombs.refused(), bombs.largest()
    with (
        bombs.site() as site,
        # the local analyzer and the face detector: their models lie in the agent's own memory
        System(
            tmp_path, vision=False, settings={"SOURCE_HOSTS": "127.0.0.1", "VISION_FACES": "true"}
        ) as system,
    ):
        for name, data in (refused | largest).items():
            (system.photos / name).write_bytes(data)
        urls = [f"{site}/zeros.jpg", f"{site}/endless.jpg"]
        system.erni("publish", str(system.photos), *urls, "--session", "bombs")
        outcome = system.wait("bombs", 150)
        peaks = {agent: _peak(system.processes[agent]) for agent in ("photo_fetcher", "vision_analyzer")}

    assert outcome.names == sorted(largest)
    assert {dead.file_name for dead in outcome.dead} == {*refused, "zeros.jpg", "endless.jpg"}
    assert all(dead.reason == "permanent" for dead in outcome.dead), outcome.dead
    assert all(peak < 400 for peak in peaks.values()), peaks
