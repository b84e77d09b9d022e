"""Runs the trace receiver as a process of its own, for tests and for the embedded defaults."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Final, cast

import msgspec

from sandbox.children import end_with_parent
from sandbox.traces.store import BYTES_LIMIT

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    otlp_endpoint: str
    url: str


class RunningTraces:
    """Is a running receiver: `otlp_endpoint` takes spans, `url` shows them."""

    def __init__(self, process: asyncio.subprocess.Process, otlp_endpoint: str, url: str) -> None:
        self._process = process
        self.otlp_endpoint = otlp_endpoint
        self.url = url

    @property
    def pid(self) -> int:
        """Return the process id, for callers that stop or pause it from outside."""
        return self._process.pid

    async def stop(self) -> None:
        """End the process, after five seconds by force."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start_traces(
    *, otlp_port: int = 0, http_port: int = 0, max_bytes: int = BYTES_LIMIT
) -> RunningTraces:
    """Start a receiver on loopback and wait until it listens; port 0 takes any free one.

    Raises RuntimeError with its output if it cannot start.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sandbox.traces",
        "--otlp-port",
        str(otlp_port),
        "--http-port",
        str(http_port),
        "--max-bytes",
        str(max_bytes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=end_with_parent(),
    )
    output, errors = (
        cast("asyncio.StreamReader", process.stdout),
        cast("asyncio.StreamReader", process.stderr),
    )
    try:
        line = await asyncio.wait_for(output.readline(), _START_SECONDS)
        ready = msgspec.json.decode(line, type=_Ready)
    except (TimeoutError, msgspec.DecodeError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        said = (await errors.read()).decode(errors="replace").strip()
        await process.wait()
        raise RuntimeError(f"the trace receiver did not start: {said or 'it wrote nothing'}") from error
    return RunningTraces(process, ready.otlp_endpoint, ready.url)
