"""A line to Redis that can lose replies, and clients that close themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from events.connection import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey


class LossyLine:
    """A TCP line to the server. It throws away the next `to_lose` replies, and cuts their connections."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._links: set[asyncio.Task[None]] = set()
        self.to_lose = 0
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._to)
        pumps = [
            asyncio.create_task(self._pump(reader, to_there, replies=False)),
            asyncio.create_task(self._pump(there, writer, replies=True)),
        ]
        self._links.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, to_there):
            end.close()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._links.difference_update(pumps)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while data := await reader.read(65536):
            if replies and self.to_lose:
                self.to_lose -= 1
                return
            writer.write(data)

    async def stop(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.cancel()
        while self._links:
            await asyncio.wait(self._links)
            await asyncio.sleep(0)


@pytest.fixture
async def line(redis_server: Valkey, redis_url: str) -> AsyncIterator[LossyLine]:
    """A line to the shared server that loses nothing yet."""
    lossy = LossyLine(redis_server.port)
    await lossy.start()
    yield lossy
    await lossy.stop()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """A client as an upstream has it."""
    async with connect(redis_url) as made:
        yield made
