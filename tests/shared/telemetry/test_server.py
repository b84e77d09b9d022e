"""Health, readiness and metrics over real HTTP, and which port they are on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest
import uvloop

from shared.settings import Settings, SettingsError
from shared.telemetry import server
from shared.telemetry.server import HealthServer, HealthState

if TYPE_CHECKING:
    from collections.abc import Iterator


def healthy() -> HealthState:
    return HealthState(details={"agent": "photo_fetcher", "in_hand": 2})


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def ask(port: int, path: str, **headers: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer,
    ):
        return answer.status, answer.content_type, await answer.text()


async def test_a_healthy_process_says_so_and_shows_its_numbers() -> None:
    here = HealthServer(Settings(metrics_port=0), healthy)
    await here.start()
    try:
        assert await ask(here.port, "/health") == (
            200,
            "application/json",
            '{"status":"alive","reasons":[],"details":{"agent":"photo_fetcher","in_hand":2}}\n',
        )
        assert (await ask(here.port, "/ready"))[0] == 200
        status, kind, text = await ask(here.port, "/metrics")
        assert (status, kind) == (200, "text/plain")
        assert "# TYPE erni_deliveries_total counter" in text
        status, kind, text = await ask(
            here.port, "/metrics", Accept="application/openmetrics-text; version=1.0.0"
        )
        assert kind == "application/openmetrics-text"
        assert text.endswith("# EOF\n")
        assert (await ask(here.port, "/other"))[0] == 404
    finally:
        await here.stop()


async def test_an_open_breaker_is_not_ready_but_alive_and_gives_its_reason_without_secrets() -> None:
    state = HealthState(ready=False, reasons=("Redis is away: redis://:geheim@cache:6379 refused",))
    here = HealthServer(Settings(metrics_port=0), lambda: state)
    await here.start()
    try:
        assert (await ask(here.port, "/health"))[0] == 200
        status, _, text = await ask(here.port, "/ready")
        assert status == 503
        assert "Redis is away: redis://cache:6379 refused" in text
    finally:
        await here.stop()


async def test_a_loop_that_stands_still_is_neither_alive_nor_ready() -> None:
    here = HealthServer(Settings(metrics_port=0), lambda: HealthState(live=False, reasons=("stuck",)))
    await here.start()
    try:
        assert (await ask(here.port, "/health"))[0] == 503
        assert (await ask(here.port, "/ready"))[0] == 503
    finally:
        await here.stop()


async def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_says_so(taken: int) -> None:
    here = HealthServer(Settings(metrics_port=taken), healthy)
    with pytest.raises(SettingsError, match=rf"METRICS_PORT={taken} is taken on 127\.0\.0\.1"):
        await here.start()


async def test_without_a_port_the_first_free_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setattr(server, "FIRST_PORT", taken)
    first, second = HealthServer(Settings(), healthy), HealthServer(Settings(), healthy)
    await first.start()
    await second.start()
    try:
        assert taken < first.port < second.port
        assert (await ask(second.port, "/health"))[0] == 200
    finally:
        await first.stop()
        await second.stop()


def test_a_port_that_another_process_gets_at_the_same_moment_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def start_and_ask() -> int:
        here = HealthServer(Settings(), healthy)
        await here.start()
        try:
            assert (await ask(here.port, "/health"))[0] == 200
        finally:
            await here.stop()
        return here.port

    listen = socket.socket.listen
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))

        def listen_a_moment_later(own: socket.socket, backlog: int = 128) -> None:
            listen(other, 1)
            listen(own, backlog)

        monkeypatch.setattr(socket.socket, "listen", listen_a_moment_later)
        monkeypatch.setattr(server, "FIRST_PORT", other.getsockname()[1])
        assert uvloop.run(start_and_ask()) > other.getsockname()[1]


async def test_when_no_port_is_free_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(server, "FIRST_PORT", taken)
    monkeypatch.setattr(server, "_PORTS_TRIED", 1)
    with pytest.raises(SettingsError, match="set METRICS_PORT"):
        await HealthServer(Settings(), healthy).start()


async def test_an_address_that_is_not_this_machines_is_an_error_that_says_so() -> None:
    here = HealthServer(Settings(metrics_host="192.0.2.1", metrics_port=0), healthy)
    with pytest.raises(SettingsError, match=r"METRICS_HOST=192\.0\.2\.1"):
        await here.start()


async def test_metrics_are_for_this_machine_unless_told_otherwise() -> None:
    here = HealthServer(Settings(metrics_port=0), healthy)
    await here.start()
    try:
        assert here.address == f"127.0.0.1:{here.port}"
        with pytest.raises(aiohttp.ClientConnectionError):
            async with aiohttp.ClientSession() as client:
                await client.get(f"http://127.0.0.2:{here.port}/health")
    finally:
        await here.stop()


async def test_where_it_listens_for_all_it_is_found_by_the_machines_name() -> None:
    here = HealthServer(Settings(metrics_host="0.0.0.0", metrics_port=0), healthy)  # noqa: S104  # as a container does
    await here.start()
    try:
        assert here.address == f"{socket.gethostname()}:{here.port}"
    finally:
        await here.stop()
