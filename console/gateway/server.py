"""The process of the HTTP side: `/v1`, health, readiness, metrics, and what Prometheus shall scrape."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from console.errors import CommandError
from console.explain import redis_trouble
from console.gateway.observing import Observing
from console.gateway.v1 import V1
from console.pages.console import Console
from events import topology
from events.connection import RedisError, connect
from shared.operations.memory import read_memory
from shared.operations.status import read_status
from shared.telemetry.http_guard import GuardedServer, listening_socket
from shared.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Tracer
    from redis.asyncio import Redis

    from shared.settings import Settings

MAX_CONNECTIONS: Final = 1_000
"""Publishers keep theirs open between two requests."""
REFRESH_SECONDS: Final = 15
"""How often Prometheus shall ask for the targets: a process that starts is scraped that soon."""


class Gateway:
    """Serves HTTP on HTTP_HOST and HTTP_PORT."""

    def __init__(self, settings: Settings, tracer: Tracer | None = None) -> None:
        """`tracer`: None makes no spans."""
        self._settings = settings
        self._observing = Observing(tracer)
        self._redis: Redis = connect(
            settings.redis_url, password=str(settings.redis_password), client_name="erni-gateway"
        )
        self._server: GuardedServer | None = None
        self.port = 0
        """The port it listens on; 0 before `start`."""

    async def start(self) -> None:
        """Listen. Raises CommandError when the port cannot be had."""
        # each request that has a body reads it within a limit of its own
        app = web.Application(client_max_size=0)
        app.middlewares.append(self._observing.middleware)
        V1(self._redis, self._settings).add_to(app)
        Console(self._redis, self._settings).add_to(app)
        app.router.add_get("/health", _health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", _metrics)
        app.router.add_get("/metrics/targets", self._targets)
        host, port = self._settings.http_host, self._settings.http_port
        try:
            listening = listening_socket(host, port)
        except OSError as error:
            await self.stop()
            if error.errno == errno.EADDRINUSE:
                raise CommandError(
                    f"HTTP_PORT={port} is taken on {host} by another process: choose another, or 0 for any",
                    code=2,
                ) from error
            raise CommandError(
                f"cannot listen on {host}:{port}: {error.strerror or error}", code=2
            ) from error
        self._server = GuardedServer(
            app, allowed_hosts=self._settings.http_allowed_hosts, max_connections=MAX_CONNECTIONS
        )
        self.port = await self._server.listen(listening)

    async def stop(self) -> None:
        """Close port and connections."""
        if self._server is not None:
            await self._server.stop()
        await self._redis.aclose()

    async def _ready(self, _request: web.Request) -> web.Response:
        """Ready while Redis answers and has memory left: publishing needs both."""
        try:
            memory = await read_memory(self._redis, lanes=self._settings.lanes)
        except RedisError as error:
            return _json(
                {"status": "not ready", "reasons": [redis_trouble(error, self._settings)]}, status=503
            )
        if memory.full:
            return _json({"status": "not ready", "reasons": [memory.sentence]}, status=503)
        return _json({"status": "ready", "reasons": []})

    async def _targets(self, _request: web.Request) -> web.Response:
        """Prometheus HTTP service discovery: the full list, always; an error leaves the last one in force.

        https://prometheus.io/docs/prometheus/latest/http_sd/
        """
        try:
            targets = await self.targets()
        except RedisError as error:
            return _json({"error": redis_trouble(error, self._settings)}, status=503)
        return _json(targets, headers={"X-Prometheus-Refresh-Interval-Seconds": str(REFRESH_SECONDS)})

    async def targets(self) -> list[dict[str, object]]:
        """List every agent process with a fresh heartbeat; agent and consumer name are labels."""
        status = await read_status(
            self._redis, lanes=self._settings.lanes, alive_within=self._settings.lease_seconds
        )
        return [
            {
                "targets": [process.says.metrics_address],
                "labels": {"agent": agent.agent, "instance": process.consumer},
            }
            for agent in status.agents
            for process in agent.processes
            if process.says.metrics_address
        ]


async def _health(_request: web.Request) -> web.Response:
    """Alive as long as this is answered."""
    return _json({"status": "alive", "agents": topology.AGENTS})


async def _metrics(request: web.Request) -> web.Response:
    """This process's own numbers, in the format the scraper asks for."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})


def _json(
    document: Mapping[str, object] | Sequence[object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document) + b"\n",
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
