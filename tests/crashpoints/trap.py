"""Inside the faulty process: its calls are numbered; at one of them it crashes, stalls or is cancelled."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote, urlencode, urlsplit

import aiohttp
import msgspec
from aiohttp.base_protocol import BaseProtocol
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from events import publisher
from events.scripts import Script
from shared.delivery import scripts
from shared.photo_store import BlobStore
from shared.sessions import shared_store
from tests.crashpoints.coordinates import TAKEN, Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from multiprocessing.connection import Connection

    from shared.delivery.process import AgentProcess
    from tests.crashpoints.coordinates import Coordinates

_MOST_OF_A_KIND: Final = 3
"""Calls of one kind that are struck: what a timer repeats is the same call again."""
_SCRIPTS: Final = {
    script.digest.encode(): script.name
    for module in (publisher, scripts, shared_store)
    for script in vars(module).values()
    if isinstance(script, Script)
}


class Late(msgspec.Struct, frozen=True):
    """A request that arrives when its sender has long been given up."""

    redis: bytes = b""
    method: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""


class Reached(msgspec.Struct, frozen=True):
    """Told to the runner when the fault strikes."""

    late: Late | None = None


class Made(msgspec.Struct, frozen=True):
    """Told to the runner at the end: the calls that were made."""

    calls: tuple[Call, ...]


class CutError(ConnectionError):
    """The connection broke; each hook raises what its library would."""


class Trap:
    """Counts calls and strikes once."""

    def __init__(self, target: Coordinates | None, link: Connection) -> None:
        self._target = target
        self._link = link
        self._counts: Counter[tuple[str, str]] = Counter()
        self._made: list[Call] = []
        self._armed = target is not None
        self.processes: list[AgentProcess] = []

    def number(self, kind: Literal["redis", "http", "store", "vision"], label: str) -> str:
        """Count a call; its name."""
        self._counts[kind, label] += 1
        call = Call(kind, label, self._counts[kind, label], any(self._limits()))
        if call.number <= _MOST_OF_A_KIND:
            self._made.append(call)
        return call.name

    def tell(self) -> None:
        """Tell the runner what calls were made."""
        self._link.send(Made(tuple(self._made)))

    async def sending(self, call: str, late: Callable[[], Late]) -> None:
        """A call is about to be made. Raises CutError if it is not to be."""
        if not self._is_here(call, "before", "held"):
            return
        assert self._target is not None
        held = self._target.point == "held"
        await self._strike(late() if held else None)
        if held or self._target.fault == "cut":
            raise CutError

    async def sent(self, call: str) -> None:
        """A call is on its way: who dies now may have been heard."""
        if (
            self._target is not None
            and self._target.fault in ("crash", "timeout")
            and self._is_here(call, "no_reply")
        ):
            if self._target.fault == "timeout":
                self._armed = False
                self._link.send(Reached())
                self._cut_off()
                return
            await self._strike(None)

    async def answered(self, call: str) -> None:
        """The answer is here. Raises CutError if it is not to be seen."""
        if not self._is_here(call, "no_reply", "after"):
            return
        assert self._target is not None
        await self._strike(None)
        if self._target.point == "no_reply":
            raise CutError

    def _is_here(self, call: str, *points: str) -> bool:
        return (
            self._armed
            and self._target is not None
            and (call == self._target.call and self._target.point in points)
        )

    async def _strike(self, late: Late | None) -> None:
        assert self._target is not None
        self._armed = False
        self._link.send(Reached(late))
        match self._target.fault:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stall":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "stop":
                for process in self.processes:
                    process.stop()
                    process.stop()
                # the handlers are cancelled by the loop, as they would be beside a slow call
                await asyncio.sleep(0)
            case "timeout":
                self._cut_off()
                await asyncio.sleep(0)
            case "cut":
                pass

    def _limits(self) -> list[Any]:
        return [limit for process in self.processes for limit in process.runtime.limits.running]

    def _cut_off(self) -> None:
        for limit in self._limits():
            limit.cut_off()


def set_trap(trap: Trap) -> None:
    """Let every call of this process go through the trap."""
    _hook_redis(trap)
    _hook_http(trap)
    _hook_store(trap)


def _hook_redis(trap: Trap) -> None:
    send: Callable[..., Awaitable[None]] = AbstractConnection.send_packed_command
    read: Callable[..., Awaitable[Any]] = AbstractConnection.read_response
    # in the order of the answers: a handshake sends several commands before it reads
    under_way: dict[int, deque[str]] = {}

    async def send_packed_command(
        self: AbstractConnection,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 - theirs
    ) -> None:
        if not self.is_connected:
            under_way.pop(id(self), None)
            await self.connect_check_health(check_health=False)
        raw = command.encode() if isinstance(command, str) else command
        raw = raw if isinstance(raw, bytes) else b"".join(raw)
        call = trap.number("redis", redis_label(raw))
        try:
            await trap.sending(call, lambda: Late(redis=raw))
            await send(self, raw, check_health)
            under_way.setdefault(id(self), deque()).append(call)
            await trap.sent(call)
        except CutError:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("cut by the test") from None

    async def read_response(self: AbstractConnection, *args: Any, **options: Any) -> Any:
        calls = under_way.get(id(self))
        call = calls.popleft() if calls else ""
        try:
            try:
                reply = await read(self, *args, **options)
            except ResponseError:
                # a refusal is an answer, too
                await trap.answered(call)
                raise
            await trap.answered(call)
            if reply and call.startswith("redis XREADGROUP BLOCK"):
                await trap.answered(trap.number("redis", TAKEN))
        except CutError:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("cut by the test") from None
        return reply

    AbstractConnection.send_packed_command = send_packed_command  # type: ignore[method-assign]
    AbstractConnection.read_response = read_response  # type: ignore[method-assign]


def redis_label(raw: bytes) -> str:
    """What a packed command is called: its name, and that of its script or subcommand."""
    parts = raw.split(b"\r\n", 6)
    name = parts[2].decode().upper()
    if name == "EVALSHA":
        return f"{name} {_SCRIPTS.get(parts[4], 'lock')}"
    if name in ("CLIENT", "SCRIPT", "XGROUP", "CONFIG"):
        return f"{name} {parts[4].decode().upper()}"
    if name == "XREADGROUP" and b"\r\nBLOCK\r\n" in raw:
        return f"{name} BLOCK"
    return name


def _hook_http(trap: Trap) -> None:
    request: Callable[..., Awaitable[aiohttp.ClientResponse]] = aiohttp.ClientSession._request

    async def _request(
        self: aiohttp.ClientSession, method: str, url: Any, **options: Any
    ) -> aiohttp.ClientResponse:
        call = trap.number("http", http_label(method, str(url)))
        try:
            await trap.sending(call, lambda: _late(self, method, str(url), options))
            response = await request(self, method, url, **options)
            _refill(response, await response.read())
            await trap.sent(call)
            await trap.answered(call)
        except CutError:
            raise aiohttp.ServerDisconnectedError("cut by the test") from None
        return response

    setattr(aiohttp.ClientSession, "_request", _request)  # noqa: B010 - its signature is longer than a line


def _refill(response: aiohttp.ClientResponse, body: bytes) -> None:
    """Let the body be read again: it was taken in, so that the answer is whole before anything strikes."""
    loop = asyncio.get_running_loop()
    response.content = aiohttp.StreamReader(BaseProtocol(loop), 1 << 16, loop=loop)
    response.content.feed_data(body)
    response.content.feed_eof()


def http_label(method: str, url: str) -> str:
    """Method and path without what differs from run to run."""
    parts = urlsplit(url)
    path = re.sub(r"(?<=[/:])(?=[^/:]*([0-9]|%))[^/:]{5,}", "*", unquote(parts.path))
    return f"{method} {path.replace('|', '*')}"


def _late(session: aiohttp.ClientSession, method: str, url: str, options: dict[str, Any]) -> Late:
    headers = dict(session.headers) | dict(options.get("headers") or {})
    data = options.get("data")
    if isinstance(data, dict):
        body = urlencode(data).encode()
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    else:
        body = data.getvalue() if isinstance(data, io.BytesIO) else data or b""
    return Late(method=method, url=url, headers=headers, body=body)


def _hook_store(trap: Trap) -> None:
    for name in ("put", "replace", "put_file", "delete"):
        setattr(BlobStore, name, _counted(trap, name, getattr(BlobStore, name)))


def _counted(trap: Trap, name: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(self: BlobStore, key: str, *args: Any) -> Any:
        number = trap.number("store", f"{name} {key.removeprefix('store:').split('/', 1)[0]}")
        await trap.sending(number, Late)
        result = await original(self, key, *args)
        await trap.answered(number)
        return result

    return call
