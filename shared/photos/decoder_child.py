"""Starts one decoder process and exchanges messages with it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from shared.photos.decoder_messages import (
    LENGTH,
    MAX_MESSAGE,
    Failed,
    Ready,
    Reply,
    Request,
    Start,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND: Final = (sys.executable, "-B", "-m", "shared.photos.decoder_process")
_ROOT: Final = Path(__file__).parents[2]
_NO_ENVIRONMENT: Final[Mapping[str, str]] = {}
_CHUNK: Final = 1 << 20
_START_SECONDS: Final = 60.0
_log = structlog.get_logger(__name__)


class DecoderError(OSError):
    """The decoder process does not start. That is this machine's fault and no photo's (EIO)."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EIO, f"the photo decoder does not start: {text}")


class EndedError(Exception):
    """The process ended while it had a photo."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal = signal_number
        """0 if it was none."""


class DecoderChild:
    """One decoder process, its connection, and the file in memory that holds the photo's bytes."""

    def __init__(self, memory_bytes: int) -> None:
        """Start it; on Linux from the main thread, because the process ends with the thread that made it."""
        self.used = False
        self._ready = False
        self._file = _memory_file()
        try:
            self._connection, theirs = socket.socketpair()
        except OSError as error:
            os.close(self._file)
            raise DecoderError(str(error)) from error
        self._connection.setblocking(False)  # noqa: FBT003 - the library's interface
        start = Start(parent=os.getpid(), photo_file=self._file, memory_bytes=memory_bytes)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*COMMAND, msgspec.json.encode(start).decode()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=_ROOT,
                env=_NO_ENVIRONMENT,
                pass_fds=(self._file,),
            )
        except OSError as error:
            self._connection.close()
            os.close(self._file)
            raise DecoderError(str(error)) from error
        finally:
            theirs.close()

    async def ready(self) -> None:
        """Return once it is warm. Raises DecoderError if it does not get there."""
        if self._ready:
            return
        try:
            async with asyncio.timeout(_START_SECONDS):
                reply = await self._reply()
        except TimeoutError as error:
            raise DecoderError(f"it is not ready after {_START_SECONDS:g} s") from error
        except EndedError as error:
            raise DecoderError(f"it ended by signal {error.signal}") from error
        if not isinstance(reply, Ready):
            raise DecoderError(reply.text if isinstance(reply, Failed) else type(reply).__name__)
        self._ready = True
        if reply.unfiltered:
            _say_once(reply.unfiltered)

    async def ask(self, request: Request, photo: bytes | Path) -> Reply:
        """Have one photo worked on. Raises EndedError if the process ends before it answers."""
        self.used = True
        size = await asyncio.to_thread(_fill, self._file, photo)
        message = msgspec.msgpack.encode(msgspec.structs.replace(request, size=size))
        try:
            await asyncio.get_running_loop().sock_sendall(
                self._connection, LENGTH.pack(len(message)) + message
            )
        except ConnectionError:
            raise await self._ended() from None
        return await self._reply()

    def end(self) -> int:
        """Kill it and wait until it is gone. Blocks for some milliseconds."""
        self._process.kill()
        code: int = self._process.wait()
        if self._file >= 0:
            self._connection.close()
            os.close(self._file)
            self._file = -1
        return code

    async def _reply(self) -> Reply:
        (length,) = LENGTH.unpack(await self._received(LENGTH.size))
        if length > MAX_MESSAGE:
            raise ConnectionError("the photo decoder sent too much")
        reply: Reply = msgspec.msgpack.decode(await self._received(length), type=Reply)
        return reply

    async def _received(self, size: int) -> bytearray:
        received = bytearray()
        while len(received) < size:
            try:
                part = await asyncio.get_running_loop().sock_recv(self._connection, size - len(received))
            except ConnectionError:
                part = b""
            if not part:
                raise await self._ended()
            received += part
        return received

    async def _ended(self) -> EndedError:
        """Say how it ended; it has closed its connection, so it is about to."""
        try:
            code = await asyncio.to_thread(self._process.wait, 5)
        except subprocess.TimeoutExpired:
            code = 0
        return EndedError(max(0, -code))


@cache
def _say_once(why: str) -> None:
    """Log, for the first of the processes, that only limits keep it from files and from the network."""
    _log.warning("the system calls of the photo decoder are not filtered", error=why)


def _memory_file() -> int:
    """Open a file that lies in memory, or is at least removed already."""
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create("erni-photo", os.MFD_CLOEXEC)
        with tempfile.TemporaryFile(prefix="erni-photo-") as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise DecoderError(str(error)) from error


def _fill(file: int, photo: bytes | Path) -> int:
    """Write the photo's bytes over those of the one before; return how many there are."""
    at = 0
    if isinstance(photo, bytes):
        view = memoryview(photo)
        while at < len(photo):
            at += os.pwrite(file, view[at:], at)
    else:
        with photo.open("rb") as source:
            os.lseek(file, 0, os.SEEK_SET)
            while sent := _copied(source.fileno(), file, at):
                at += sent
    os.ftruncate(file, at)
    return at


def _copied(source: int, file: int, at: int) -> int:
    """Copy a piece of a file to the same place of another one; return how many bytes, 0 at its end."""
    if hasattr(os, "memfd_create"):  # Linux, whose kernel copies between any two files
        return os.sendfile(file, source, at, _CHUNK)
    return os.pwrite(file, os.pread(source, _CHUNK, at), at)
