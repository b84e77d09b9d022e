"""Serves HTTP inside a process that does other work, so that nobody who reaches the port can disturb it.

A thousand connections that never send a request took all descriptors of an agent. And no web page may read a
server inside the network from a browser there, by a name that it points at that server (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiohttp.typedefs import Handler

MAX_CONNECTIONS: Final = 100
"""A handful are needed: for Prometheus, an orchestrator's probes, a person."""
SILENT_SECONDS: Final = 30.0
"""How long a connection may take for the header of its next request; Prometheus asks every 15 s."""
LINGERING_SECONDS: Final = 1.0
"""How long the rest of a refused body is read and dropped, so that its sender sees the answer."""
_JUDGED: Final = 100
"""Host headers whose answer is kept: nearly every request has the one that the last had."""
_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".svc", ".svc.cluster.local", ".home.arpa")
"""Nobody can register a name below these: RFC 6761, 6762 and 8375, ICANN's `.internal`, Kubernetes' own."""


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; ``::`` listens on IPv4, too. Raises OSError.

    The event loop does not do this: if another process takes the port between bind and listen, uvloop only
    logs the error and goes on without a socket.
    """
    if host == "::" and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


class GuardedServer:
    """Serves an application. Past `max_connections`, the oldest silent one makes way for a new one."""

    def __init__(
        self,
        app: web.Application,
        *,
        allowed_hosts: Collection[str] = (),
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """Take an application without its middlewares frozen.

        `allowed_hosts`: what a request may name besides IP addresses and names that exist inside a network
        only; ``*`` for any.
        """
        self._names = frozenset(name.lower().rstrip(".") for name in allowed_hosts)
        self._judged: dict[str, bool] = {}
        self._max_connections = max_connections
        self._open: dict[asyncio.Transport, _Connection] = {}
        self._listening: asyncio.Server | None = None

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._request(request, handler)

        app.middlewares.append(guarded)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            # aiohttp counts it from the start of a connection, too
            keepalive_timeout=SILENT_SECONDS,
            lingering_time=LINGERING_SECONDS,
        )

    async def listen(self, sock: socket.socket) -> int:
        """Serve on a socket that listens, and return its port."""
        await self._runner.setup()
        server: Any = self._runner.server

        def connection() -> _Connection:
            return _Connection(self, server())

        self._listening = await asyncio.get_running_loop().create_server(connection, sock=sock)
        return int(sock.getsockname()[1])

    async def stop(self) -> None:
        """Close the port and the connections."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    def admit(self, transport: asyncio.Transport, connection: _Connection) -> bool:
        """Report whether a new connection may stay."""
        if len(self._open) >= self._max_connections:
            silent = next((at for at, other in self._open.items() if not other.busy), None)
            if silent is None:
                return False
            self._open.pop(silent)
            silent.abort()
        self._open[transport] = connection
        return True

    def forget(self, transport: asyncio.Transport | None) -> None:
        """Drop a connection that has ended."""
        if transport is not None:
            self._open.pop(transport, None)

    def is_allowed(self, host: str) -> bool:
        """Report whether a Host header can only mean this machine, this network, or an allowed name."""
        found = self._judged.get(host)
        if found is None:
            if len(self._judged) >= _JUDGED:
                self._judged.clear()
            found = self._judged[host] = self._judge(host)
        return found

    def _judge(self, host: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        if name in self._names or "*" in self._names or name == socket.gethostname().lower():
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return bool(name) and ("." not in name or name.endswith(_PRIVATE_NAMES))
        return True

    async def _request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self.is_allowed(request.host):
            return web.Response(
                status=HTTPStatus.MISDIRECTED_REQUEST,
                text="this server is not reached by that name: allow the name with HTTP_ALLOWED_HOSTS\n",
            )
        connection = self._open.get(request.transport) if request.transport else None
        if connection is None:
            return await handler(request)
        connection.busy = True
        try:
            return await handler(request)
        finally:
            connection.busy = False


class _Connection(asyncio.Protocol):
    """Passes on what happens to a connection, unless there are too many."""

    def __init__(self, server: GuardedServer, inner: Any) -> None:
        self._server = server
        # Any: the class of aiohttp's protocol is not public
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self.busy = False
        """Whether a handler works for it."""

    def connection_made(self, transport: Any) -> None:
        if not self._server.admit(transport, self):
            transport.abort()
            return
        self._transport = transport
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self._transport)
        if self._transport is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        if self._transport is None:
            return None
        answer: bool | None = self._inner.eof_received()
        return answer

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
