"""The process in which foreign bytes are parsed and decoded: ``python -m shared.photos.decoder_process``.

An agent starts it (`shared.photos.decoders`). It has an empty environment and three descriptors that lead
anywhere, and before the first photo it gives up the right to open another one: no file, no socket. On Linux
it gains no privileges, the kernel refuses such calls (`shared.photos.system_calls`), and it ends with its
parent. Memory and CPU have limits; past them it is killed, by itself or by the kernel, and takes nothing with
it but the one photo.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

import msgspec

from shared.photos.decoder_messages import (
    LENGTH,
    PHOTO_FILE,
    Examined,
    Failed,
    MakePreview,
    OutOfMemory,
    Preview,
    Ready,
    Refused,
    Reply,
    Request,
    Start,
)
from shared.photos.system_calls import refuse_calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.photos.kinds import Data

# Numbers of prctl(2).
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_WEBP_BYTES: Final = 160_000_000
"""40 megapixels of four bytes: libwebp and libvips reserve them both."""


def main() -> None:
    """Serve photos until the agent closes the connection."""
    start = msgspec.json.decode(sys.argv[1], type=Start)
    _tie_to(start.parent)
    connection = socket.socket(fileno=0)
    try:
        work = _work()
        unfiltered = _give_up_rights(start)
    except Exception as error:  # noqa: BLE001 - the agent has the only place to say it
        _send(connection, Failed(text=f"{type(error).__name__}: {error}"))
        return
    _send(connection, Ready(unfiltered=unfiltered))
    decode = msgspec.msgpack.Decoder(Request).decode
    while (length := _received(connection, LENGTH.size)) and (
        message := _received(connection, LENGTH.unpack(length)[0])
    ):
        _send(connection, _answer(work, decode(message)))


def _tie_to(parent: int) -> None:
    """End with the agent, and not by a signal that is meant for it: it needs this process for its drain."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # it may have ended before that
    if os.getppid() != parent:
        sys.exit()


def _work() -> Callable[[Request, Data], Reply]:
    """Import and warm up all that decoding needs: afterwards no file can be opened."""
    import pyvips

    from shared.photos.exif import facts_of
    from shared.photos.malloc import use_one_arena
    from shared.photos.open import opened
    from shared.photos.preview import make_preview
    from shared.photos.whole import ensure_whole
    from shared.retry.errors import PermanentError

    use_one_arena()
    small = pyvips.Image.black(64, 64, bands=3).copy(interpretation="srgb")
    for photo in (small.jpegsave_buffer(), small.pngsave_buffer(), small.webpsave_buffer()):
        make_preview(bytes(photo), 32)
    for encoding in ("ascii", "latin-1", "utf-8", "utf-16", "cp437"):
        b"".decode(encoding)

    def work(request: Request, photo: Data) -> Reply:
        try:
            if isinstance(request, MakePreview):
                jpeg = make_preview(photo, request.side, quality=request.quality, name=request.name)
                return Preview(jpeg=jpeg)
            with opened(photo, name=request.name) as header:
                ensure_whole(header, name=request.name)
                return Examined(header=header.header, facts=facts_of(header))
        except PermanentError as error:
            return Refused(sentence=str(error))
        except MemoryError:
            return OutOfMemory()

    return work


def _give_up_rights(start: Start) -> str:
    """Keep the connection and the photo's bytes; nothing else can be opened from here on.

    Returns why the kernel filters no system calls, '' if it does: then the limit of descriptors must do.
    """
    if start.photo_file != PHOTO_FILE:
        os.dup2(start.photo_file, PHOTO_FILE)
    os.closerange(PHOTO_FILE + 1, 1024)
    # where it is honoured: not on macOS
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no pathlib here
            pages = int(file.read().split()[0])
        memory = pages * resource.getpagesize() + start.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory + _WEBP_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # one more for the mapping of a photo, which has a descriptor of its own
    resource.setrlimit(resource.RLIMIT_NOFILE, (PHOTO_FILE + 2, PHOTO_FILE + 2))
    return refuse_calls()


def _answer(work: Callable[[Request, Data], Reply], request: Request) -> Reply:
    """Read the photo's bytes and do the work, within the CPU time that the agent grants."""
    # whole seconds; the kernel ends the process with SIGXCPU
    used = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + request.cpu_seconds, resource.RLIM_INFINITY))
    try:
        photo = _photo(request.size)
        _set_memory(photo)
        return work(request, photo)
    except Exception as error:  # noqa: BLE001 - the next photo must not suffer
        return Failed(text=f"{type(error).__name__}: {error}"[:500])


def _photo(size: int) -> Data:
    """Map the photo's bytes, which copies nothing but the pages that are changed."""
    if not size:
        return b""
    try:
        return mmap.mmap(PHOTO_FILE, size, access=mmap.ACCESS_COPY)
    except OSError:  # the mapping of the photo before is still in use somewhere
        return os.pread(PHOTO_FILE, size, 0)


def _set_memory(photo: Data) -> None:
    """Allow for addresses that a WebP reserves and hardly uses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        soft = hard if photo[8:12] == b"WEBP" else hard - _WEBP_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _received(connection: socket.socket, size: int) -> bytes:
    """So many bytes; none where the agent has closed the connection."""
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            return b""
        received += part
    return received


def _send(connection: socket.socket, reply: Reply) -> None:
    message = msgspec.msgpack.encode(reply)
    connection.sendall(LENGTH.pack(len(message)) + message)


if __name__ == "__main__":
    main()
