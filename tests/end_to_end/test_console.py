"""Somebody with the console alone sees photos move, SharePoint break, finds out why, and brings them back."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from events.connection import connect
from sandbox.children import end_with_parent
from tests.console.pages.test_browser import Screen
from tests.end_to_end import scenario
from tests.shared.reports.browser import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.end_to_end.system import System

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium"), pytest.mark.timeout(180)]

PHOTOS = 5


@pytest.fixture
def console(system: System) -> Iterator[str]:
    """The address of a gateway of this system."""
    process = subprocess.Popen(
        [sys.executable, "-m", "console.main", "gateway"],
        cwd=system.folder,
        env={**system.environment, "HTTP_PORT": "0", "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent(),  # noqa: PLW1509  # one prctl call, looked up before the fork
    )
    assert process.stdout
    found = re.search(r":(\d+)$", process.stdout.readline().strip())
    assert found
    process.stdout.close()
    yield f"http://127.0.0.1:{found[1]}"
    process.terminate()
    process.wait(20)
    system.heal()


async def test_photos_that_are_missing_are_found_and_brought(
    system: System, console: str, tmp_path: Path
) -> None:
    folder = system.photos / "console"
    names = scenario.pictures(folder, PHOTOS, seed="console")
    async with connect(system.settings().redis_url) as redis, chromium(tmp_path / "profile") as tab:
        screen = Screen(tab, console, redis)
        await screen.sign_in("operator")
        await screen.open("/sessions")
        system.fault("sharepoint", kind="413", method="PUT")
        system.erni("publish", str(folder), "--session", "console")
        # no reload: the page follows
        await screen.see("console", 60)
        await screen.see(f"{PHOTOS} of {PHOTOS}", 90)
        await screen.open("/sessions/console")
        await screen.see(f"{PHOTOS} photos did not get through.")
        await screen.click("See why, and replay")
        await screen.see("larger than SharePoint accepts", 60)
        await screen.see(f"{PHOTOS} dead letters")
        system.heal()
        await screen.click(f"Replay all {PHOTOS}")
        await screen.click(f"Replay {PHOTOS}")
        await screen.see(f"{PHOTOS} of {PHOTOS}")
        await screen.open("/sessions/console")
        await screen.see("complete", 90)
        await screen.click("Open report")
        await screen.see("Bericht zur Sitzung", 60)
        assert not tab.complaints
        assert not [one for one in tab.requests if not one.startswith((console, "data:", "about:"))]
    outcome = system.wait("console")
    scenario.all_stored(system, outcome, names)
