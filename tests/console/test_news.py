"""What `erni up` says while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from console.explain import redis_client
from console.news import tell
from shared.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from sandbox.redis_server import Valkey


async def test_a_frozen_redis_is_said_and_that_it_answers_again(
    own_redis_server: Valkey, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("console.explain.PATIENCE", 0.5)
    monkeypatch.setattr("console.news._LOOK_SECONDS", 0.01)
    settings = load({"REDIS_URL": own_redis_server.url, "PHOTO_STORE_URL": str(tmp_path)}, folder=tmp_path)
    said: asyncio.Queue[str] = asyncio.Queue()
    async with redis_client(settings) as redis:
        telling = asyncio.create_task(tell(redis, settings, said.put_nowait))
        os.kill(own_redis_server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                begin = await said.get()
        finally:
            os.kill(own_redis_server.pid, signal.SIGCONT)
        async with asyncio.timeout(20):
            end = await said.get()
        telling.cancel()
    assert f"its process {own_redis_server.pid} is stopped (SIGSTOP, or a debugger)" in begin
    assert end == "Redis answers again, and all goes on"
