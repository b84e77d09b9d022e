"""Serves the health, readiness and metrics of one process over HTTP."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from shared.settings import SettingsError
from shared.telemetry.http_guard import GuardedServer, listening_socket
from shared.telemetry.metrics import REGISTRY
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.settings import Settings

FIRST_PORT: Final = 9200
"""The search for a free port begins here when METRICS_PORT is not set."""
_PORTS_TRIED: Final = 800


class HealthState(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the health of a process."""

    live: bool = True
    """False only when a loop has stopped: the process should be restarted."""
    ready: bool = True
    """False while Redis is away or a breaker is open: a restart would only lose what is in flight."""
    reasons: tuple[str, ...] = ()
    """Why it is not live or not ready, in sentences."""
    details: dict[str, str | int | float | bool] = {}
    """Anything else worth knowing: agent, consumer, entries in flight."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    reasons: tuple[str, ...]
    details: dict[str, str | int | float | bool]


class HealthServer:
    """Serves ``/health``, ``/ready`` and ``/metrics`` on METRICS_HOST and METRICS_PORT."""

    def __init__(self, settings: Settings, health: Callable[[], HealthState]) -> None:
        """`health` is called for each request and must return at once."""
        self._host = settings.metrics_host
        self._asked = settings.metrics_port
        self._health = health
        self._allowed = settings.http_allowed_hosts
        self._server: GuardedServer | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Return the port it listens on; 0 before `start`."""
        return self._port

    @property
    def address(self) -> str:
        """Return where Prometheus finds it: this machine's name and the port, or the one bound address."""
        bound_to_all = self._host in ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound to
        host = socket.gethostname() if bound_to_all else self._host
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    async def start(self) -> None:
        """Start to listen. Raises SettingsError when METRICS_PORT is set and cannot be opened."""
        app = web.Application()
        app.router.add_get("/health", self._alive)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", _metrics)
        listening = self._listening()
        self._server = GuardedServer(app, allowed_hosts=self._allowed)
        self._port = await self._server.listen(listening)

    async def stop(self) -> None:
        """Close the port."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    def _listening(self) -> socket.socket:
        """Bind as METRICS_PORT says."""
        last = min(FIRST_PORT + _PORTS_TRIED - 1, 65_535)
        candidates = range(FIRST_PORT, last + 1) if self._asked is None else (self._asked,)
        for port in candidates:
            try:
                return listening_socket(self._host, port)
            except OSError as error:
                if self._asked is None and error.errno == errno.EADDRINUSE:
                    continue
                raise SettingsError(self._refusal(port, error)) from error
        raise SettingsError(
            f"no port from {FIRST_PORT} to {last} is free on {self._host} for /metrics:"
            " set METRICS_PORT (0 takes any free one)"
        )

    def _refusal(self, port: int, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"METRICS_PORT={port} is taken on {self._host} by another process: choose another"
                f" port, 0 for any free one, or unset it to take the first free one from {FIRST_PORT}"
            )
        return (
            f"cannot listen on METRICS_HOST={self._host}, METRICS_PORT={port} ({error.strerror or error}):"
            " set an address of this machine and a port that this user may open"
        )

    async def _alive(self, _request: web.Request) -> web.Response:
        state = self._health()
        return _answer(state, state.live, "alive", "stuck")

    async def _ready(self, _request: web.Request) -> web.Response:
        state = self._health()
        return _answer(state, state.live and state.ready, "ready", "not ready")


def _answer(state: HealthState, good: bool, yes: str, no: str) -> web.Response:  # noqa: FBT001  # private, positional by nature
    body = _Answer(
        status=yes if good else no,
        reasons=tuple(scrub(reason) for reason in state.reasons),
        details=state.details,
    )
    return web.Response(
        body=msgspec.json.encode(body) + b"\n",
        status=200 if good else 503,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def _metrics(request: web.Request) -> web.Response:
    """Return the registry in the format that the scraper asks for."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})
