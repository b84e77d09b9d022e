"""The gateway over real HTTP: health, readiness, metrics, and Prometheus' list of targets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest

from console.errors import CommandError
from console.gateway.server import Gateway
from shared.settings import Settings
from tests.console.pipeline import beats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis import Redis

    from sandbox.redis_server import Valkey


def _settings(redis_url: str, port: int = 0) -> Settings:
    return Settings(redis_url=redis_url, http_port=port)


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    serving = Gateway(_settings(redis_url))
    await serving.start()
    yield serving
    await serving.stop()


async def _get(gateway: Gateway, path: str) -> tuple[int, aiohttp.ClientResponse, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{gateway.port}{path}") as answer,
    ):
        return answer.status, answer, await answer.text()


async def test_targets_are_the_processes_that_beat(gateway: Gateway, client: Redis) -> None:
    beats(client, "vision_analyzer", "vm-1-a", metrics_address="10.0.0.1:9200")
    beats(client, "vision_analyzer", "vm-2-b", metrics_address="10.0.0.2:9200")
    beats(client, "photo_fetcher", "vm-3-c", metrics_address="10.0.0.3:9200", ago=60)
    beats(client, "schema_extractor", "vm-4-d", metrics_address="")
    status, answer, text = await _get(gateway, "/metrics/targets")
    assert status == 200
    assert answer.content_type == "application/json"
    assert answer.headers["X-Prometheus-Refresh-Interval-Seconds"] == "15"
    targets = sorted(await answer.json(), key=str)
    assert targets == [
        {
            "targets": [f"10.0.0.{n}:9200"],
            "labels": {"agent": "vision_analyzer", "instance": f"vm-{n}-{letter}"},
        }
        for n, letter in ((1, "a"), (2, "b"))
    ], text


async def test_without_a_process_the_list_is_empty(gateway: Gateway) -> None:
    status, _, text = await _get(gateway, "/metrics/targets")
    assert (status, text) == (200, "[]\n")


async def test_health_and_metrics_are_served(gateway: Gateway) -> None:
    status, _, text = await _get(gateway, "/health")
    assert status == 200
    assert '"alive"' in text
    status, answer, text = await _get(gateway, "/metrics")
    assert status == 200
    assert answer.content_type == "text/plain"
    assert "process_cpu_seconds_total" in text


async def test_with_redis_away_it_is_alive_and_not_ready_and_keeps_the_old_targets_in_force(
    own_redis_server: Valkey,
) -> None:
    gateway = Gateway(_settings(own_redis_server.url))
    await gateway.start()
    try:
        assert (await _get(gateway, "/ready"))[0] == 200
        own_redis_server.kill()
        status, _, text = await _get(gateway, "/ready")
        assert status == 503
        assert "does not answer" in text
        # Prometheus keeps its last list when it gets an error; an empty list would drop every process.
        assert (await _get(gateway, "/metrics/targets"))[0] == 503
        assert (await _get(gateway, "/health"))[0] == 200
        own_redis_server.start()
        assert (await _get(gateway, "/ready"))[0] == 200
    finally:
        await gateway.stop()


async def test_a_port_that_is_taken_is_wrong_usage(redis_url: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CommandError, match=f"HTTP_PORT={port} is taken") as raised:
            await Gateway(_settings(redis_url, port)).start()
    assert raised.value.code == 2
