"""An operation goes on when the gateway that drives it is killed, and acts on each letter once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp

from sandbox.children import end_with_parent
from shared.operations import sign_in
from tests.console.pages.conftest import Person
from tests.console.pipeline import KEYS, dies
from tests.shared.delivery.harness import until
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

LETTERS = 60


def _gateway(url: str, folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A gateway process, and its port."""
    environment = {
        **os.environ,
        "REDIS_URL": url,
        "HTTP_PORT": "0",
        "PHOTO_STORE_URL": str(folder / "store"),
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "console.main", "gateway"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent(),  # noqa: PLW1509  # one prctl call, looked up before the fork
    )
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r":(\d+)$", line.strip())
    assert found, line
    process.stdout.close()
    return process, int(found[1])


async def test_an_operation_survives_the_kill_of_its_gateway(
    redis: Redis, client: Any, redis_url: str, tmp_path: Path
) -> None:
    stream = KEYS.stream("photo.analyzed")
    for number in range(LETTERS):
        dies(
            client,
            "sharepoint_uploader",
            "photo.analyzed",
            photo=f"p-{number}",
            session=None,
            fields={"id": str(number), "data": "{}"},
        )
    process, port = _gateway(redis_url, tmp_path)
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            person = Person(port, http)
            ticket = await sign_in.make_ticket(redis, "petra", "operator")
            await person.post("/login", {"ticket": ticket})
            asked = await person.get("/ask/replay?reason=exhausted")
            assert f"Replay {LETTERS} dead letters?" in asked.text
            fields = {"kind": "replay", "selection": asked.hidden("selection"), "rate": "40"}
            path = (await person.post("/operations", fields)).headers["Location"]
            await until(lambda: redis.xlen(stream))
            process.kill()
            process.wait()
            moved = client.xlen(stream)
            assert 0 < moved < LETTERS
            process, port = _gateway(redis_url, tmp_path)
            person.origin = f"http://127.0.0.1:{port}"

            async def done() -> bool:
                return f"{LETTERS} of {LETTERS}" in (await person.get(path)).text

            await until(done, 40)
            assert " done " in (await person.get(path)).text
        ids = [fields[b"id"].decode() for _, fields in client.xrange(stream)]
        assert sorted(ids, key=int) == [str(number) for number in range(LETTERS)]
    finally:
        process.kill()
        process.wait()
