"""The outside world of the light agents: a small HTTP service that takes effects once and fails as told."""

from __future__ import annotations

import asyncio
import hashlib
import random
import struct
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_STATUS: Final = {
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "429": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
    "429_long": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 12\r\nContent-Length: 0\r\n\r\n",
    "garbage": b"\x00\xffnothing that speaks HTTP\r\n\r\n",
}

TROUBLE: Final = {
    "503": 0.08, "429": 0.03, "429_long": 0.003, "reset": 0.03, "lost": 0.03, "garbage": 0.02
}  # fmt: skip
"""Shares of the calls that fail while there is trouble."""


class Effects:
    """What took place, by (agent, photo, call number): an effect is there once, however often it is tried."""

    def __init__(self, seed: int) -> None:
        self.tried: Counter[tuple[str, str, str]] = Counter()
        self.taken: dict[tuple[str, str, str], float] = {}
        """The key's effect and when it took place (monotonic)."""
        self.refused: Counter[str] = Counter()
        """Faults by kind."""
        self.shares: Mapping[str, float] = {}
        """Kind of fault → its share of the calls; kinds are those of `_STATUS`, and ``reset``, ``lost``
        (it took effect, the answer is lost)."""
        self.fixed_share = 0.0
        """Share of 503 answers decided by a hash of key and trial: the same in every run with the seed."""
        self.once_each = False
        """Whether an effect fails in its first call at most, so that no photo uses up its attempts."""
        self.reports_wait = True
        """Whether the report of a session, too, is asked to wait for so long that it is postponed."""
        self.slowness = 0.03
        """Seconds an answer takes at most."""
        self.held = False
        """Whether calls are left without an answer, for good."""
        self._seed = seed
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._open: set[_Caller] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Caller(self, self._open), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def trouble(self, *, on: bool) -> None:
        """Let a share of the calls fail, or none any more."""
        self.shares = TROUBLE if on else {}

    async def stop(self) -> None:
        """Stop listening, end what is open."""
        if self._server is not None:
            self._server.close()
        for caller in list(self._open):
            caller.end()

    def called(self, path: str) -> tuple[str, float]:
        """What shall become of a call: ``ok`` or a fault's kind, and after how many seconds."""
        agent, photo, call = path.strip("/").split("/")
        key = (agent, photo, call)
        self.tried[key] += 1
        if self.held:
            return "held", 0.0
        fault = self._fault(key)
        if fault in ("ok", "lost"):
            self.taken.setdefault(key, time.monotonic())
        if fault != "ok":
            self.refused[fault] += 1
        return fault, self._random.random() * self.slowness

    def _fault(self, key: tuple[str, str, str]) -> str:
        if self.once_each and self.tried[key] > 1:
            return "ok"
        if self.fixed_share:
            text = f"{self._seed} {' '.join(key)} {self.tried[key]}".encode()
            [number] = struct.unpack("<Q", hashlib.blake2b(text, digest_size=8).digest())
            if number < self.fixed_share * 2**64:
                return "503"
        for kind, share in self.shares.items():
            if self._random.random() < share:
                return "ok" if kind == "429_long" and self._is_report(key) and not self.reports_wait else kind
        return "ok"

    @staticmethod
    def _is_report(key: tuple[str, str, str]) -> bool:
        return key[0] == "validation_reporter" and "." in key[1]


class _Caller(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, effects: Effects, others: set[_Caller]) -> None:
        self._effects = effects
        self._others = others
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass and has all of it
        self._others.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._others.discard(self)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            fault, seconds = self._effects.called(head.split(b" ", 2)[1].decode())
            asyncio.get_running_loop().call_later(seconds, self._answer, fault)

    def _answer(self, fault: str) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if fault == "held":
            return
        if fault in ("reset", "lost"):
            self._transport.abort()
        else:
            self._transport.write(_STATUS.get(fault, _OK))
