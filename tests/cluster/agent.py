"""One agent as its supervisor starts it: a process, and the lines that it writes."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

READS: Final = "agent reads"
_SECONDS: Final = 40.0


class Agent:
    """Start `schema_extractor`; ended at the end of the block, however the block ends."""

    def __init__(self, folder: Path, url: str, *, lanes: int) -> None:
        self._folder = folder
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME")},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "REDIS_URL": url,
            "LANES": str(lanes),
            "PHOTO_STORE_URL": str(folder / "store"),
            "ENABLE_TRACING": "0",
            "METRICS_PORT": "0",
            "ALLOW_VOLATILE_REDIS": "1",
            **{f"AZURE_{name}": "none" for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")},
            "LOG_FORMAT": "json",
        }
        self._process: asyncio.subprocess.Process | None = None
        self.events: list[str] = []
        """What it has logged, and lines that are no log lines, as they are."""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "consumers", "schema_extractor"),
            cwd=self._folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def says(self, event: str) -> None:
        """Return when it logs an event. Fails with all that it said if it ends before."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            async for line in self._process.stdout:
                self.events.append(_event(line))
                if self.events[-1] == event:
                    return
        raise AssertionError((await self._process.wait(), self.events))

    async def ends(self) -> tuple[int, str]:
        """Return its exit code and all that it said, when it has ended by itself."""
        assert self._process is not None
        async with asyncio.timeout(_SECONDS):
            said, _ = await self._process.communicate()
        return await self._process.wait(), said.decode()


def _event(line: bytes) -> str:
    try:
        document: dict[str, Any] = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line.decode()
    return str(document.get("event", document.get("message", "")))
