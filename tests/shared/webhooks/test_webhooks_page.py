"""The receivers of docs/webhooks.md run as they are printed, and get notices of the real notifier."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from events.intake import COMMAND_SOURCE
from shared.operations import webhooks
from shared.webhooks import endpoints
from tests.consumers.test_webhook_notifier import empty, queue
from tests.project import pages
from tests.shared.delivery.harness import until
from tests.shared.webhooks.receiver import hook_settings, notifying, register
from tests.tools import NODE_MODULES, NODE_STANDARDWEBHOOKS, PYTHON_STANDARDWEBHOOKS, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

PAGE: Final = pages.page("webhooks.md")
SHELL: Final = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
LISTENING: Final = re.compile(rb"listening on port (\d+)\n")


def printed(language: str) -> str:
    """The receiver in that language."""
    (example,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(example)


class Example:
    """A receiver of the page that runs."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}/"

    async def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            return (await self.process.stdout.readline()).decode()


@asynccontextmanager
async def running(tool: str, folder: Path, secret: str) -> AsyncIterator[Example]:
    """Start the receiver that this tool runs."""
    node = tool == NODE_STANDARDWEBHOOKS
    path = folder / ("receiver.mjs" if node else "receiver.py")
    path.write_text(printed("js" if node else "python"))
    if node:
        (folder / "node_modules").symlink_to(NODE_MODULES)
    process = await asyncio.create_subprocess_exec(
        str(require(tool)),
        str(path),
        cwd=folder,
        env={**os.environ, "WEBHOOK_SECRET": secret, "PORT": "0", "PYTHONWARNINGS": "error"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            found = LISTENING.fullmatch(await process.stdout.readline())
        assert found is not None
        yield Example(process, int(found[1]))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.needs(PYTHON_STANDARDWEBHOOKS)
async def test_the_python_receiver_takes_real_notices_and_no_others(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    await _takes_real_notices_alone(redis, redis_url, PYTHON_STANDARDWEBHOOKS, tmp_path)


@pytest.mark.needs(NODE_STANDARDWEBHOOKS)
async def test_the_node_receiver_takes_real_notices_and_no_others(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    await _takes_real_notices_alone(redis, redis_url, NODE_STANDARDWEBHOOKS, tmp_path)


async def _takes_real_notices_alone(redis: Redis, redis_url: str, tool: str, folder: Path) -> None:
    settings = hook_settings(redis_url)
    before = await register(redis, settings, "http://127.0.0.1:8000/")
    async with running(tool, folder, before.verify_with) as example, notifying(settings):
        await redis.hset(endpoints.key_of(before.endpoint.id), "url", example.url)
        await queue(redis, before.endpoint, "id-1")
        first = await example.line()
        assert first.startswith("photo.failed ")
        assert "p-1" in first
        # the same id is printed once, and after a rotation the old secret still verifies
        assert await webhooks.rotate(redis, before.endpoint.id)
        await queue(redis, before.endpoint, "id-1", "id-2")
        assert (await example.line()).startswith("photo.failed ")
        await until(lambda: empty(redis))
        statuses = [await _posted(example.url, headers) for headers in FORGED]
    assert statuses == [400] * len(FORGED)
    assert await redis.xlen("erni:dead:webhook_notifier") == 0


def test_the_page_registers_the_source_that_its_command_publishes_with() -> None:
    assert f"erni webhook add http://127.0.0.1:8000/ --source {COMMAND_SOURCE}\n" in SHELL
    assert "erni publish .erni/sample.jpg\n" in SHELL
    assert '"PORT", "8000"' in printed("python")
    assert "process.env.PORT ?? 8000" in printed("js")


FORGED: Final[list[dict[str, str]]] = [
    {},
    {"webhook-id": "id-3", "webhook-timestamp": "1780000000", "webhook-signature": "v1,AAAA"},
    {"webhook-id": "id-3", "webhook-timestamp": "soon", "webhook-signature": "v1,AAAA"},
    {"webhook-id": "id-3", "webhook-timestamp": "4102444800", "webhook-signature": "nonsense"},
]


async def _posted(url: str, headers: dict[str, str]) -> int:
    async with aiohttp.ClientSession() as client, client.post(url, data=b"{}", headers=headers) as answer:
        return answer.status
