"""Somebody with the console alone sees photos move, SharePoint break, finds out why, and brings them back."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from events import topology
from events.connection import call, connect
from events.keys import Keys
from sandbox.children import end_with_parent
from tests.console.pages.test_browser import Screen
from tests.end_to_end import scenario
from tests.shared.delivery.harness import until
from tests.shared.reports.browser import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.end_to_end.system import System

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium"), pytest.mark.timeout(180)]

KEYS = Keys()
PHOTOS = 50


class Gateway:
    """A gateway of a system, which can be killed and started again at its address."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Where the console is."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; return when it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "console.main", "gateway"],
            cwd=self._system.folder,
            env={
                **self._system.environment,
                "HTTP_PORT": str(self._port),
                "PYTHONPATH": ":".join(sys.path),
            },
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent(),  # noqa: PLW1509  # one prctl call, looked up before the fork
        )
        assert self._process.stdout
        found = re.search(r":(\d+)$", self._process.stdout.readline().strip())
        assert found
        self._port = int(found[1])
        self._process.stdout.close()

    def end(self, how: signal.Signals) -> None:
        """End it; return when it is gone."""
        assert self._process
        self._process.send_signal(how)
        self._process.wait(20)


@pytest.fixture
def console(system: System) -> Iterator[Gateway]:
    """A gateway of this system."""
    gateway = Gateway(system)
    gateway.start()
    yield gateway
    gateway.end(signal.SIGTERM)
    system.heal()


async def _handed_to_the_uploader(redis: Redis) -> int:
    """How many entries were ever written to its streams."""
    stage = topology.stage_of("sharepoint_uploader")
    streams = [KEYS.stream(name) for name in stage.streams]
    infos = [await call(redis, "XINFO", "STREAM", name) for name in streams if await redis.exists(name)]
    return sum(int(dict(zip(info[::2], info[1::2], strict=True))[b"entries-added"]) for info in infos)


async def test_photos_that_are_missing_are_found_and_brought(
    system: System, console: Gateway, tmp_path: Path
) -> None:
    folder = system.photos / "console"
    names = scenario.pictures(folder, PHOTOS, seed="console")
    async with connect(system.settings().redis_url) as redis, chromium(tmp_path / "profile") as tab:
        screen = Screen(tab, console.address, redis)
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
        before = await _handed_to_the_uploader(redis)
        await screen.click(f"Replay all {PHOTOS}")
        await screen.see(f"Replay {PHOTOS} dead letters?")
        await tab.run("document.querySelector('input[name=rate]').value = '10'")
        await screen.click(f"Replay {PHOTOS}")
        # in the middle of it
        await until(
            lambda: tab.run(
                f"!!document.body && /\\b([2-9]|[1-4][0-9]) of {PHOTOS}/.test(document.body.innerText)"
            ),
            60,
        )
        console.end(signal.SIGKILL)
        console.start()
        await screen.open("/activity")
        await screen.see(f"{PHOTOS} of {PHOTOS}", 90)
        assert await _handed_to_the_uploader(redis) - before == PHOTOS, "each once"
        await screen.open("/sessions/console")
        await screen.see("complete", 90)
        await screen.click("Open report (in German)")
        await screen.see("Bericht zur Sitzung", 60)
        # while the gateway was away, the page that stood there could not reach it
        assert not [one for one in tab.complaints if "net::ERR_" not in one]
        assert not [one for one in tab.requests if not one.startswith((console.address, "data:", "about:"))]
    outcome = system.wait("console")
    scenario.all_stored(system, outcome, names)
