"""Which services are asked through the environment's proxy, and that the photos' sources never are."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shared.fetching import guard
from shared.settings import Settings, proxy_for
from shared.sharepoint.client import GraphClient
from shared.telemetry.export import send_nothing
from shared.telemetry.trace_target import trace_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Queue[str]]:
    """The first lines of what a proxy is asked; it refuses everything."""
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.put_nowait(head.split(b"\r\n")[0].decode())
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    yield asked
    server.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://graph.microsoft.com/v1.0", "http://secure:1"),
        ("http://collector:4317", "http://plain:1"),
        ("https://bau.sharepoint.com/x", None),
        ("http://inside:8080/x", None),
        ("http://inside:9090/x", "http://plain:1"),
        ("http://localhost:8086", None),
        ("http://127.0.0.2:8086", None),
        ("http://[::1]:8086", None),
    ],
)
def test_the_standard_variables_decide(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: str | None
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://plain:1")
    monkeypatch.setenv("https_proxy", "http://secure:1")
    monkeypatch.setenv("NO_PROXY", ".sharepoint.com,inside:8080")
    assert proxy_for(Settings(), url) == expected
    assert proxy_for(Settings(use_proxy=False), url) is None


async def test_the_sign_in_goes_through_the_proxy(proxy: asyncio.Queue[str]) -> None:
    settings = Settings(
        graph_url="http://graph.test/v1.0",
        azure_authority="http://login.test",
        azure_tenant_id="tenant",
        azure_client_id="client",
        azure_client_secret="geheim",
    )
    async with GraphClient(settings) as client:
        with pytest.raises(Exception, match="403"):
            await client.sign_in()
    assert await proxy.get() == "POST http://login.test/tenant/oauth2/v2.0/token HTTP/1.1"


async def test_traces_go_through_the_proxy_over_http_and_over_grpc(proxy: asyncio.Queue[str]) -> None:
    settings = Settings(otlp_endpoint="http://collector.test:4317")
    over_http = trace_target(settings, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert "403" in await asyncio.to_thread(send_nothing, over_http)
    assert await proxy.get() == "POST http://collector.test:4317/v1/traces HTTP/1.1"
    over_grpc = trace_target(settings, {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"})
    assert await asyncio.to_thread(send_nothing, over_grpc)
    assert await proxy.get() == "CONNECT collector.test:4317 HTTP/1.1"


async def test_a_photos_source_is_never_asked_through_the_proxy(proxy: asyncio.Queue[str]) -> None:
    async with guard.session(public_only=False) as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get("http://photos.invalid/a.jpg")
    assert proxy.empty()
