"""The receiver as a process: says where it is, ends when told, and says why when it cannot start."""

from __future__ import annotations

import asyncio
import signal
import socket

import aiohttp
import psutil
import pytest

from sandbox.traces.process import start_traces


async def test_it_says_where_it_listens_and_ends_cleanly_on_sigterm() -> None:
    running = await start_traces()
    process = psutil.Process(running.pid)
    async with aiohttp.ClientSession() as client, client.get(running.url + "/api/services") as answer:
        assert (await answer.json())["data"] == []
    host, port = running.otlp_endpoint.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    process.send_signal(signal.SIGTERM)
    assert await running._process.wait() == 0
    await running.stop()


async def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=rf"cannot show traces on 127\.0\.0\.1:{port}.*choose another"):
            await start_traces(http_port=port)
