"""A TCP proxy before Redis that fails the way networks do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

STRIKES: Final = ("cut_reply", "swallow", "swallow_and_cut", "cut_request", "stall", "half_close")
"""What can happen to a connection: the reply ends in its middle; it never comes, and the line stays open or
is cut; the request never arrives; nothing moves for a while; one direction ends."""


class _End(asyncio.Protocol):
    """One end of a link; the bytes it receives go to the other end."""

    def __init__(self, link: _Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []
        """What came before the other end was there, or while the link stood still."""
        self.finished = False
        """We ended this direction: nothing can be written any more."""

    def write(self, data: bytes) -> None:
        """Send, unless the connection is gone; the bytes are lost then, as on a wire."""
        if self.transport is not None and not self.finished and not self.transport.is_closing():
            self.transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass and has all of it
        self.link.made(self)

    def data_received(self, data: bytes) -> None:
        self.link.received(self, data)

    def eof_received(self) -> bool:
        return self.link.ended(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.link.lost(self)


class _Link:
    """A client's connection and the one to the server behind it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = _End(self)
        self.server = _End(self)
        self.strike = ""
        self.still = False
        self._connecting: asyncio.Task[None] | None = None

    def made(self, end: _End) -> None:
        if end is self.client:
            self.proxy.links.add(self)
            if self.proxy.shut:
                self.cut()
                return
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self._flush()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.server, "127.0.0.1", self.proxy.server_port)
        except OSError:
            self.cut()

    def received(self, end: _End, data: bytes) -> None:
        other = self.server if end is self.client else self.client
        if self.still or other.transport is None:
            end.early.append(data)
            return
        if self.strike and self._struck(end, data):
            return
        other.write(data)

    def _struck(self, end: _End, data: bytes) -> bool:
        """Whether a strike that waited for these bytes ate them."""
        reply = end is self.server
        if self.strike == "cut_request" and not reply:
            self.cut()
        elif self.strike == "cut_reply" and reply:
            self.client.write(data[: len(data) // 2])
            self.close()
        elif self.strike == "swallow_and_cut" and reply:
            self.cut()
        elif not (self.strike == "swallow" and reply):
            return False
        self.proxy.struck += 1
        return True

    def _flush(self) -> None:
        for end, other in ((self.client, self.server), (self.server, self.client)):
            early, end.early = end.early, []
            for data in early:
                other.write(data)

    def stall(self, seconds: float) -> None:
        """Let nothing through for a while."""
        self.still = True
        self.proxy.struck += 1

        def go_on() -> None:
            self.still = False
            self._flush()

        asyncio.get_running_loop().call_later(seconds, go_on)

    def half_close(self) -> None:
        """End the direction to the client, the other stays open."""
        transport = self.client.transport
        if transport is not None and not self.client.finished and not transport.is_closing():
            self.proxy.struck += 1
            self.client.finished = True
            transport.write_eof()

    def ended(self, end: _End) -> bool:
        other = self.server if end is self.client else self.client
        if other.transport is not None and not other.transport.is_closing():
            other.transport.close()
        return False

    def lost(self, end: _End) -> None:
        other = self.server if end is self.client else self.client
        if end is self.client:
            self.proxy.links.discard(self)
        if other.transport is not None and not other.transport.is_closing():
            other.transport.close()

    def cut(self) -> None:
        """End both connections with a reset."""
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.abort()

    def close(self) -> None:
        """End both connections after what was written."""
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.close()


class Proxy:
    """Listens on loopback and forwards to the server, unless struck."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.links: set[_Link] = set()
        self.shut = False
        """Whether new connections are refused."""
        self.struck = 0
        """Strikes that took place."""
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self).client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def strike(self, kind: str, rng: Random, *, stall: float) -> None:
        """Let something happen to one connection."""
        links = sorted(self.links, key=id)
        if not links:
            return
        link = rng.choice(links)
        if kind == "stall":
            link.stall(stall)
        elif kind == "half_close":
            link.half_close()
        else:
            link.strike = kind

    def heal(self) -> None:
        """No strike waits any more; connections that only swallow are cut, as no client could use them."""
        self.shut = False
        for link in list(self.links):
            if link.strike == "swallow":
                link.cut()
            link.strike = ""

    async def stop(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            link.cut()
