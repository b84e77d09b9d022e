"""The Redis under test: killed, cut from its power, filled up, squeezed, its clock set wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from events.connection import RedisError, connect
from events.keys import Keys
from sandbox import append_only_file
from sandbox import redis_server as valkey
from sandbox.children import end_with_parent
from tests.tools import require

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.chaos.proxy import Proxy

SHIMS: Final = Path(__file__).parent / "shims"
DISK_MEGABYTES: Final = 768
"""The small disk of the server: memory of this machine, all of it used only while the disk is full."""
_ROTATE_BYTES: Final = 64_000_000
_DISK_RESERVE: Final = 4096


class DiskRefusedError(RuntimeError):
    """No small file system can be mounted here."""


class Disk:
    """A small file system of its own for the server's data, so that it can be full. Linux, as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @classmethod
    def mounted(cls, folder: Path) -> Disk:
        """Mount one at `folder`. Raises DiskRefusedError."""
        folder.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount")
        if mount is None:
            raise DiskRefusedError("there is no program `mount`")
        done = subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DiskRefusedError(done.stderr.strip() or "mount failed")
        return cls(folder)

    def fill(self) -> None:
        """Leave no room for another page."""
        with self._ballast.open("ab") as file, contextlib.suppress(OSError):
            room = os.statvfs(self.folder)
            size = file.tell()
            while (free := room.f_bavail * room.f_frsize) > _DISK_RESERVE:
                os.posix_fallocate(file.fileno(), size, free)
                size += free
                room = os.statvfs(self.folder)

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take it away with all that is in it."""
        umount = shutil.which("umount") or "umount"
        subprocess.run([umount, "-l", str(self.folder)], capture_output=True, check=False)


_MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
_ADDED: Final = re.compile(rb"(XADD\r\n\$\d+\r\n\S+\r\n\$\d+\r\n)\d{13}")
_EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"


def build_shims(folder: Path) -> list[Path]:
    """Compile both shims into `folder`. Raises FileNotFoundError without a compiler."""
    compiler = require("gcc")
    built = []
    for source in sorted(SHIMS.glob("*.c")):
        target = folder / f"{source.stem}.so"
        subprocess.run(
            [str(compiler), "-shared", "-fPIC", "-O2", "-o", str(target), str(source), "-ldl"], check=True
        )
        built.append(target)
    return built


class Server:
    """One server with its shims. Every change of its state is awaited until it has taken place."""

    def __init__(
        self, folder: Path, *, password: str, appendfsync: str = "always", repairs: bool = True
    ) -> None:
        """Data in `folder`/disk, a file system of its own where that is possible."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.disk: Disk | None = None
        self.disk_refused = ""
        try:
            self.disk = Disk.mounted(folder / "disk")
        except DiskRefusedError as error:
            self.disk_refused = str(error)
        self.data = folder / "disk"
        self.data.mkdir(exist_ok=True)
        self.archive = folder / "aof"
        self.archive.mkdir()
        self._kept = self.data / "kept"
        self._kept.mkdir()
        self._linked: dict[int, Path] = {}
        self.port = valkey.free_port()
        self._password = password
        self._appendfsync = appendfsync
        self._repairs = repairs
        self._cuts = 0
        self._clock = folder / "clock"
        self._clock.write_bytes(struct.pack("=q", 0))
        self._shims = build_shims(folder)
        self._binary = valkey.find_server()
        self._process: subprocess.Popen[bytes] | None = None
        self.admin: Redis = connect(self.url, password=password, client_name="chaos")
        """Past the proxy. Raises what redis-py raises while the server is away."""

    @property
    def url(self) -> str:
        """Its own address, not the proxy's."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def lanes(self) -> tuple[Keys, ...]:
        """The keys of its one lane."""
        return (Keys(),)

    def address(self, proxy: Proxy) -> str:
        """The address that agents and upstreams have."""
        return f"redis://127.0.0.1:{proxy.port}/0"

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    async def start(self, seconds: float = 30.0) -> None:
        """Start it on what is on its disk and wait until it answers."""
        options = {
            "requirepass": self._password,
            "appendfsync": self._appendfsync,
            # rewritten when we say so: the files tell every hand-off there ever was
            "auto-aof-rewrite-percentage": "0",
        }
        if not self._repairs:
            # as a server does that nobody configured: it cuts what it takes for the end, and goes on
            options["aof-load-truncated"] = "yes"
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(map(str, self._shims)),
            "CLOCK_JUMP": str(self._clock),
        }
        async with asyncio.timeout(seconds):
            while True:
                if not self.running:
                    self._spawn(options, environment)
                with contextlib.suppress(RedisError, OSError):
                    await self.admin.ping()
                    return
                await asyncio.sleep(0.02)

    def _spawn(self, options: dict[str, str], environment: dict[str, str]) -> None:
        if self._repairs:
            append_only_file.repair(self.data)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                valkey.command(self._binary, folder=self.data, port=self.port, options=options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=end_with_parent(),  # noqa: PLW1509 - one prctl call, looked up before the fork
            )

    def kill(self) -> None:
        """End it at once; what it wrote stays, synced or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def cut_power(self) -> int:
        """End it at once, and lose what was not on disk; the number of bytes lost.

        A disk may have taken a part of what was not synced: every second cut leaves a transaction torn at any
        byte. The server seldom dies between write and sync, so a copy of its last hand-off stands for it.
        """
        self.kill()
        self._cuts += 1
        lost = 0
        for file in self.data.rglob("*.incr.aof"):
            note = file.with_name(file.name + ".synced")
            synced = int(note.read_text()) if note.exists() else 0
            size = file.stat().st_size
            if size > synced:
                os.truncate(file, synced)
                lost += size - synced
        if self._cuts % 2 and (logs := self._incremental()):
            self._tear(logs[-1])
        return lost

    def _tear(self, log: Path) -> None:
        data = log.read_bytes()
        begin = data.rfind(_MULTI, 0, max(0, data.rfind(b"\r\nXADD\r\n")))
        end = data.find(_EXEC, begin)
        if min(begin, end) < 0:
            return
        transaction = data[begin:end]
        # what it adds has ids of its own: the first one was acknowledged
        now = b"%d" % (time.time() * 1000)
        transaction = _ADDED.sub(lambda found: found[1] + now, transaction)
        with log.open("ab") as file:
            file.write(transaction[: Random(self._cuts).randrange(len(transaction) // 2, len(transaction))])

    def jump(self, seconds: int) -> None:
        """Set its clock wrong by so much."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("=q", seconds))

    async def squeeze(self) -> None:
        """Set its memory limit below what it uses."""
        used = int((await self.admin.info("memory"))["used_memory"])
        await self.admin.config_set("maxmemory", max(1_000_000, used // 2))

    async def release(self) -> None:
        """Take the memory limit away."""
        await self.admin.config_set("maxmemory", 0)

    async def rotate(self) -> None:
        """Let it begin a new append-only file if the one it writes is long, and keep the old one."""
        if sum(file.stat().st_size for file in self._incremental()) < _ROTATE_BYTES:
            return
        self._keep()
        with contextlib.suppress(RedisError, OSError):
            await self.admin.bgrewriteaof()
        await asyncio.to_thread(self._move_closed)

    def _incremental(self) -> list[Path]:
        return sorted((self.data / "appendonlydir").glob("*.incr.aof"))

    def _keep(self) -> None:
        """Hard links: the server deletes its own name of a file, and its content stays for us."""
        for file in self._incremental():
            with contextlib.suppress(FileNotFoundError):
                inode = file.stat().st_ino
                if inode not in self._linked:
                    kept = self._kept / f"{_sequence(file):06d}.aof"
                    os.link(file, kept)
                    self._linked[inode] = kept

    def _move_closed(self) -> None:
        """Take off the small disk what the server writes no more."""
        for kept in list(self._linked.values()):
            if kept.exists() and kept.stat().st_nlink == 1:
                shutil.move(kept, self.archive / kept.name)

    def all_that_happened(self) -> list[Path]:
        """Every append-only file there was, oldest first; for after the end."""
        self._keep()
        for kept in self._kept.glob("*.aof"):
            shutil.copy(kept, self.archive / kept.name)
        return sorted(self.archive.glob("*.aof"))

    async def close(self) -> None:
        """End it and take its disk away."""
        await self.admin.aclose()
        self.kill()
        if self.disk:
            self.disk.unmount()


def _sequence(file: Path) -> int:
    return int(file.name.split(".")[-3])
