"""Start the emulator as a child process and talk to it: for tests, the demo and ``erni up``."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from sandbox.children import end_with_parent
from sandbox.sharepoint.model import Effect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 5.0


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON line that the emulator prints when it is ready."""

    url: str
    authority: str
    site: str
    library: str
    admin: str
    tenant_id: str
    client_id: str
    client_secret: str
    admin_token: str
    """A token of an administrator, who may grant the site to apps."""
    folder: str

    def settings(self) -> dict[str, str]:
        """The environment that points our agents at it."""
        return {
            "GRAPH_URL": self.url,
            "AZURE_AUTHORITY": self.authority,
            "AZURE_TENANT_ID": self.tenant_id,
            "AZURE_CLIENT_ID": self.client_id,
            "AZURE_CLIENT_SECRET": self.client_secret,
            "SHAREPOINT_SITE": self.site,
            "SHAREPOINT_LIBRARY": self.library,
        }


class GraphStartError(Exception):
    """Raised when the emulator does not start; the message holds its output."""


@dataclass(slots=True)
class RunningGraph:
    """An emulator that is up."""

    ready: Ready
    folder: Path
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        """Graph's address, ``…/v1.0``."""
        return self.ready.url

    @property
    def authority(self) -> str:
        """The token endpoint's address, without tenant."""
        return self.ready.authority

    @property
    def admin(self) -> str:
        """The administrator's address, ``…/_erni``."""
        return self.ready.admin

    @property
    def port(self) -> int:
        """The port, to start it on again."""
        return int(self.ready.authority.rpartition(":")[2])

    def settings(self) -> dict[str, str]:
        """The environment that points our agents at it."""
        return self.ready.settings()

    async def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            return await self.process.wait()

    async def kill(self) -> None:
        """End it as a power failure would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def effects(self) -> list[Effect]:
        """What took place so far, read from the log; works after its end too."""
        decoder = msgspec.json.Decoder(Effect)
        lines = (self.folder / "effects.jsonl").read_bytes().splitlines(keepends=True)
        return [decoder.decode(line) for line in lines if line.endswith(b"\n")]


async def _ended(process: asyncio.subprocess.Process) -> int:
    """The exit code of a process that is about to end; killed if it does not."""
    # Not killed at once: asyncio looks for the child before it sends a signal, and the watcher that finds an
    # ended child gone then reports 255 in place of its code (Python 3.11).
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


async def start_graph(folder: Path, *, args: Sequence[str] = ()) -> RunningGraph:
    """Start the emulator on `folder` and wait until it is ready. Raises GraphStartError.

    `args`: further arguments, for example ``("--strict", "--seed", "7")``.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sandbox.sharepoint",
        "--folder",
        str(folder),
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=end_with_parent(),
    )
    try:
        if process.stdout is None:
            raise GraphStartError("the Graph emulator has no standard output to read from")
        async with asyncio.timeout(_START_SECONDS):
            line = await process.stdout.readline()
        ready = msgspec.json.decode(line, type=Ready)
    except (TimeoutError, msgspec.DecodeError) as error:
        code = await _ended(process)
        raise GraphStartError(
            f"the Graph emulator on {folder} did not start (exit code {code}): see its messages above"
        ) from error
    return RunningGraph(ready, folder, process)
