"""A server inside an agent serves whoever asks, and keeps its descriptors from whoever does not."""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import aiohttp.web
import pytest
import uvloop

from shared.settings import Settings
from shared.telemetry import http_guard
from shared.telemetry.http_guard import GuardedServer, listening_socket
from shared.telemetry.server import HealthServer, HealthState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HALF_OPEN = 300


@pytest.fixture
async def here() -> AsyncIterator[HealthServer]:
    server = HealthServer(Settings(metrics_port=0, http_allowed_hosts=("photos.example",)), HealthState)
    await server.start()
    yield server
    await server.stop()


async def status(port: int, host: str = "", address: str = "127.0.0.1") -> int:
    headers = {"Host": host} if host else {}
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://{address}:{port}/health", headers=headers) as answer,
    ):
        return answer.status


def half_open(port: int, held: ExitStack) -> list[socket.socket]:
    """Connections that send the start of a request, and no more."""
    links = []
    for _ in range(HALF_OPEN):
        link = held.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=5)))
        link.sendall(b"GET /health HTTP/1.1\r\nHost: 127")
        links.append(link)
    return links


def test_half_open_connections_do_not_take_the_descriptors_of_an_agent() -> None:
    async def run() -> None:
        server = HealthServer(Settings(metrics_port=0), HealthState)
        await server.start()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = len(descriptors())
        # ours and the clients' side, the limit of connections, and a few more
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (before + HALF_OPEN + http_guard.MAX_CONNECTIONS + 50, hard)
        )
        try:
            with ExitStack() as held:
                await asyncio.to_thread(half_open, server.port, held)
                assert await status(server.port) == 200
                assert len(descriptors()) < before + HALF_OPEN + http_guard.MAX_CONNECTIONS + 10
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await server.stop()

    uvloop.run(run())


def descriptors() -> list[str]:
    return [entry.name for entry in Path("/dev/fd").iterdir()]


async def test_a_connection_that_sends_no_header_in_time_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_guard, "SILENT_SECONDS", 0.2)
    server = HealthServer(Settings(metrics_port=0), HealthState)
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\n")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    finally:
        await server.stop()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9200",
        "[::1]:9200",
        "localhost",
        "gateway:8085",
        "gateway.erni.svc",
        "photo-fetcher.erni.svc.cluster.local",
        socket.gethostname(),
        "photos.example:443",
        "PHOTOS.example.",
    ],
)
async def test_requests_by_an_address_or_a_name_of_this_network_are_answered(
    here: HealthServer, host: str
) -> None:
    assert await status(here.port, host) == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "photos.example.evil.example"])
async def test_a_name_that_somebody_else_may_own_is_refused(here: HealthServer, host: str) -> None:
    assert await status(here.port, host) == 421


def test_any_name_may_be_allowed() -> None:
    assert GuardedServer(aiohttp.web.Application(), allowed_hosts=("*",)).is_allowed("evil.example")


async def test_the_address_of_every_interface_is_that_of_ipv4_too() -> None:
    server = HealthServer(Settings(metrics_host="::", metrics_port=0), HealthState)
    await server.start()
    try:
        assert await status(server.port) == 200
        assert await status(server.port, address="[::1]") == 200
        assert server.address == f"{socket.gethostname()}:{server.port}"
    finally:
        await server.stop()


def test_a_name_is_listened_on_as_well() -> None:
    with listening_socket("localhost", 0) as listening:
        assert listening.getsockname()[1]
