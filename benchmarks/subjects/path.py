"""Lists the functions of the product that one entry passes between its read and its release."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.subjects.engine import Mode, drained, running
from benchmarks.subjects.entries import STREAM, fields

if TYPE_CHECKING:
    from types import CodeType, FrameType

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("events", "shared")
_ENTRIES: Final = 4
"""The first one warms caches. What is not called for each of the others is no part of the path."""
_SETTLE_SECONDS: Final = 0.05
"""The release follows the answer of settle within one turn of the event loop."""


class Recorder:
    """Record the product's functions from the moment a reply of Redis contains entries."""

    def __init__(self) -> None:
        self.calls: dict[CodeType, int] = {}
        self._reading = False

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        """Take one event of `sys.setprofile`."""
        if not self._reading:
            self._reading = event == "return" and _has_entries(frame, value)
        elif event == "call":
            self.calls[frame.f_code] = self.calls.get(frame.f_code, 0) + 1

    def functions(self) -> set[tuple[str, str]]:
        """Return file and name of each function; comprehensions and lambdas count as part of theirs."""
        found = set()
        for code in self.calls:
            path = Path(code.co_filename)
            if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in FOLDERS:
                name = code.co_qualname.split(".<locals>.<")[0].split(".<")[0]
                found.add((str(path.relative_to(ROOT)), name))
        return found


def _has_entries(frame: FrameType, value: Any) -> bool:
    """Return whether redis-py returns a reply that names the stream: that of XREADGROUP."""
    return (
        "redis" in frame.f_code.co_filename
        and isinstance(value, list)
        and bool(value)
        and isinstance(value[0], list)
        and value[0][:1] == [STREAM.encode()]
    )


async def functions_of_one_entry(url: str, mode: Mode) -> list[tuple[str, str]]:
    """Return file and qualified name of every function that one entry passes in an otherwise idle agent."""
    passed: list[set[tuple[str, str]]] = []
    # a long lease: no heartbeat or look at other processes comes in between
    quiet = Mode(sessions=mode.sessions, logs=mode.logs, lease_seconds=600)
    async with running(url, quiet) as redis:
        for number in range(_ENTRIES):
            recorder = Recorder()
            entry: Any = fields(number, session=mode.sessions)
            await asyncio.sleep(_SETTLE_SECONDS)
            sys.setprofile(recorder)
            try:
                await redis.xadd(STREAM, entry)
                async with asyncio.timeout(10):
                    while not recorder.calls:  # noqa: ASYNC110 - an event would add calls to what is recorded
                        await asyncio.sleep(0)
                await asyncio.sleep(_SETTLE_SECONDS)
            finally:
                sys.setprofile(None)
            await drained(redis, number + 1)
            passed.append(recorder.functions())
    return sorted(set.intersection(*passed[1:]))
