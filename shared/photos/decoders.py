"""Runs the processes in which foreign bytes are parsed and decoded, and asks them.

One hostile photo must not cost another. So an agent never parses a photo itself: a process of its own does
(`shared.photos.decoder_process`), kept warm, one for each photo that may be decoded at a time. What happens
to that process is judged like this:

- past its CPU time: the photo's fault, for good;
- not done by the deadline with CPU time left: the machine is too busy; the photo may be tried again;
- ended by itself, or out of memory: tried once more, alone in a fresh process. If that ends as well, it is
  the photo's fault;
- killed from outside, twice: the machine is short of memory; the photo may be tried again.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

import msgspec

from shared.photos.decoder_child import DecoderChild, DecoderError, EndedError
from shared.photos.decoder_messages import (
    Examine,
    Examined,
    Failed,
    MakePreview,
    OutOfMemory,
    Preview,
    Refused,
    Reply,
    Request,
)
from shared.photos.facts import called
from shared.retry.errors import PermanentError, TransientError
from shared.retry.limit import waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PREVIEW_SIDE: Final = 1024
"""Pixels of the long side of what a vision model gets."""
THUMBNAIL_SIDE: Final = 320
"""Pixels of the long side of what a report's page shows."""
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one photo may take."""

    cpu_seconds: int = 10
    """The largest photos that are taken need 1 to 4 s of CPU."""
    seconds: float = 60.0
    """By the clock on the wall, for a machine that is busy; less than HANDLE_TIMEOUT."""
    memory_bytes: int = 260_000_000
    """Address space beyond that of a process without a photo, for a WebP 160 MB more."""


class _OutOfMemoryError(Exception):
    """The process had not enough memory for a photo."""


class Decoders:
    """Decodes photos, `size` at a time. Processes start when they are needed, or before that with `open`.

    Close it after the last photo, or use it as a context.
    """

    def __init__(self, *, size: int = 1, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._size = size
        self._turns = asyncio.Semaphore(size)
        self._idle: list[DecoderChild] = []
        self._ending: set[asyncio.Future[int]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Start the processes; they warm up while other things are opened. Raises DecoderError."""
        self._fill_up()

    async def close(self) -> None:
        """End the processes."""
        self._closed = True
        while self._idle:
            self._end(self._idle.pop())
        await asyncio.gather(*self._ending)

    async def examine(self, photo: bytes | Path, *, name: str | None = None) -> Examined:
        """Check a photo and read its EXIF. Raises PermanentError for what is no whole photo that is taken.

        `photo` is its bytes or its file; `name` is for sentences. Raises TransientError if this machine is
        too busy or short of memory, DecoderError if no process starts.
        """
        reply = await self._ask(Examine(cpu_seconds=self._limits.cpu_seconds, name=name), photo)
        if isinstance(reply, Examined):
            return reply
        raise _unexpected(reply)

    async def preview(
        self, photo: bytes, side: int = PREVIEW_SIDE, *, quality: int = 85, name: str | None = None
    ) -> bytes:
        """Make a small version: an upright JPEG in sRGB, its long side at most `side` pixels.

        Raises as `examine` does, and PermanentError for a photo that is damaged.
        """
        request = MakePreview(cpu_seconds=self._limits.cpu_seconds, side=side, quality=quality, name=name)
        reply = await self._ask(request, photo)
        if isinstance(reply, Preview):
            return reply.jpeg
        raise _unexpected(reply)

    async def _ask(self, request: Request, photo: bytes | Path) -> Reply:
        """Ask when it is this photo's turn. Other photos' time is not counted as this one's."""
        with waiting():
            await self._turns.acquire()
        try:
            return await self._ask_twice(request, photo)
        finally:
            self._turns.release()

    async def _ask_twice(self, request: Request, photo: bytes | Path) -> Reply:
        """Ask a warm process; where that ends, a fresh one, which has had no other photo."""
        try:
            return await self._ask_once(request, photo, fresh=False)
        except (EndedError, _OutOfMemoryError) as error:
            if isinstance(error, EndedError) and error.signal == signal.SIGXCPU:
                raise self._verdict(error, request.name) from None
        try:
            return await self._ask_once(request, photo, fresh=True)
        except (EndedError, _OutOfMemoryError) as error:
            raise self._verdict(error, request.name) from None

    async def _ask_once(self, request: Request, photo: bytes | Path, *, fresh: bool) -> Reply:
        async with self._process(fresh=fresh) as process:
            try:
                async with asyncio.timeout(self._limits.seconds):
                    reply = await process.ask(request, photo)
            except TimeoutError as error:
                raise TransientError(
                    f"the photo{called(request.name)} was not decoded within {self._limits.seconds:g} s:"
                    " this machine is busy"
                ) from error
            if isinstance(reply, OutOfMemory):
                raise _OutOfMemoryError
        if isinstance(reply, Refused):
            raise PermanentError(reply.sentence)
        return reply

    def _verdict(self, error: EndedError | _OutOfMemoryError, name: str | None) -> Exception:
        """Return what to raise for a photo whose decoder ended."""
        photo = f"the photo{called(name)}"
        advice = "save it again as a plain JPEG"
        if isinstance(error, _OutOfMemoryError):
            memory = self._limits.memory_bytes // 1_000_000
            return PermanentError(f"{photo} takes more than {memory} MB of memory to decode: {advice}")
        if error.signal == signal.SIGXCPU:
            seconds = self._limits.cpu_seconds
            return PermanentError(f"{photo} takes more than {seconds} s of computing to decode: {advice}")
        if error.signal in _FROM_OUTSIDE:
            return TransientError(
                f"the decoder of {photo} was killed from outside, twice: this machine may be short of memory"
            )
        how = signal.Signals(error.signal).name if error.signal else "it ended"
        return PermanentError(f"{photo} makes its decoder fail ({how}), twice: {advice}")

    @asynccontextmanager
    async def _process(self, *, fresh: bool) -> AsyncIterator[DecoderChild]:
        """Lend a process that is ready. One whose block fails is ended, and another one is started."""
        process = next((idle for idle in self._idle if not (fresh and idle.used)), None)
        if process is None:
            process = DecoderChild(self._limits.memory_bytes)
        else:
            self._idle.remove(process)
        try:
            with waiting():
                await process.ready()
            yield process
        except BaseException:
            self._end(process)
            with suppress(DecoderError):  # if it stays so, the next photo's error is about it
                self._fill_up()
            raise
        if not self._closed and len(self._idle) < self._size:
            self._idle.append(process)
        else:
            self._end(process)

    def _fill_up(self) -> None:
        while not self._closed and len(self._idle) < self._size:
            self._idle.append(DecoderChild(self._limits.memory_bytes))

    def _end(self, process: DecoderChild) -> None:
        """Kill a process, and collect it beside the loop."""
        ending = asyncio.get_running_loop().run_in_executor(None, process.end)
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def _unexpected(reply: Reply) -> Exception:
    """Return the error for a mistake in the decoder's code."""
    text = reply.text if isinstance(reply, Failed) else f"it sent {type(reply).__name__}"
    return RuntimeError(f"the photo decoder failed: {text}")
