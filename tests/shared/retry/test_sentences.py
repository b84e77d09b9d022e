"""What the HTTP client says in its own words is said in words for people."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from shared.retry.classify import sentence_of


async def _cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def _cut_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def _said_of_each() -> dict[str, str]:
    """Return what is said of each server, by its name."""
    found: dict[str, str] = {}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=0.2)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for serve in (_cut, _cut_in_the_middle, _silent):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(aiohttp.ClientError) as raised:
                async with session.get(f"http://127.0.0.1:{port}/") as answer:
                    await answer.read()
            found[serve.__name__] = sentence_of(raised.value)
            server.close()
    return found


async def test_a_connection_that_is_cut_and_a_silent_one_are_told_apart() -> None:
    assert await _said_of_each() == {
        "_cut": "the connection was cut before an answer came",
        "_cut_in_the_middle": "the connection was cut in the middle of the answer",
        "_silent": "no answer in time",
    }


async def test_a_port_at_which_nobody_listens_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError) as raised:
                await session.get(f"http://127.0.0.1:{port}/")
    assert sentence_of(raised.value) == f"no connection to 127.0.0.1:{port} (connection refused)"
