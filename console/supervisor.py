"""Keeps processes running: starts them in order, collects their output, restarts what died, stops all.

No process outlives its supervisor: each is a session of its own that the kernel ends with us, and an orderly
stop asks (SIGTERM), waits the grace, then kills the whole group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from sandbox.children import end_with_parent
from sandbox.stack import Process  # noqa: TC001  # msgspec reads the annotation at run time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from io import FileIO
    from pathlib import Path
    from typing import BinaryIO

State: TypeAlias = Literal["starting", "running", "waiting", "failed", "stopping", "stopped"]

BACKOFF = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before the n-th restart in a row; after the last one the process counts as failed for good."""
STABLE_SECONDS = 10.0
"""A process that ran this long has recovered: the next death starts the row again."""
WRONG_USAGE = 2
"""Exit code of a process whose command line or settings cannot be used: starting it again cannot help."""
LOG_BYTES = 10_000_000
"""Above this a log file becomes ``….old`` and a new one begins."""
_OBSTACLE_SECONDS = 1.0
"""Between two looks whether processes can run again."""
_LINE_BYTES = 65_536
_TAIL_LINES = 20


class StartError(RuntimeError):
    """A process did not come up; the message holds its last words and where its log is."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a process, for people to read."""

    name: str
    state: State
    text: str
    pid: int | None = None
    """Of its present life; None between two."""


class Child:
    """One process under supervision: its present life, and how often it had to be started again."""

    def __init__(self, spec: Process, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.state: State = "stopped"
        self.pid: int | None = None
        self.restarts = 0
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        """The last lines it wrote."""
        self.was_ready = False
        self.settled = asyncio.Event()
        """Set once it was ready, failed or stopped: nobody has to wait for it any longer."""
        self.task: asyncio.Task[None] | None = None


class Supervisor:
    """Runs processes until `stop`. Calls `on_change` for each change, `on_line` for each line they write."""

    def __init__(
        self,
        logs: Path,
        *,
        on_change: Callable[[Change], None] | None = None,
        on_line: Callable[[str, str], None] | None = None,
        obstacle: Callable[[], str] = lambda: "",
    ) -> None:
        """`logs`: the folder for one file per process. `on_line` gets process name and line.

        `obstacle` returns why no process can run now, such as a full disk, or ''. Whatever ends meanwhile is
        started again when that is over, and its ends do not count.
        """
        self._logs = logs
        self._obstacle = obstacle
        self._on_change = on_change
        self._on_line = on_line
        self._stopping = False
        self.children: dict[str, Child] = {}

    async def start(self, specs: Sequence[Process]) -> None:
        """Start these together and wait until each is ready.

        Raises StartError when one is not; what runs by then runs on until `stop`.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        started = []
        for spec in specs:
            child = Child(spec, self._logs / f"{spec.name}.log")
            self.children[spec.name] = child
            child.task = asyncio.create_task(self._keep(child), name=f"supervise {spec.name}")
            started.append(child)
        await asyncio.gather(*(child.settled.wait() for child in started))
        for child in started:
            if child.state == "failed":
                raise StartError(self._last_words(child))

    async def stop(self) -> None:
        """End all, those started last first: SIGTERM, the grace of each, then SIGKILL for its whole group."""
        self._stopping = True
        by_stage: dict[int, list[Child]] = {}
        for child in self.children.values():
            by_stage.setdefault(child.spec.stage, []).append(child)
        for stage in sorted(by_stage, reverse=True):
            await asyncio.gather(*(self._end(child) for child in by_stage[stage]))

    def kill(self) -> None:
        """Kill all processes at once, whatever they have in flight."""
        self._stopping = True
        for child in self.children.values():
            _signal_group(child.pid, signal.SIGKILL)

    async def _keep(self, child: Child) -> None:
        """One process's lives, one after the other."""
        row = 0
        while True:
            began = time.monotonic()
            try:
                code = await self._live(child)
            except OSError as error:
                self._change(child, "failed", f"cannot be started: {error}")
                break
            if self._stopping or child.state == "failed":
                break
            ended = _how_it_ended(code)
            if child.was_ready and (obstacle := self._obstacle()):
                row = 0
                child.restarts += 1
                self._change(child, "waiting", f"{ended}: {obstacle}")
                while self._obstacle():  # noqa: ASYNC110 - a disk sends no signal
                    await asyncio.sleep(_OBSTACLE_SECONDS)
                continue
            row = 1 if time.monotonic() - began >= STABLE_SECONDS else row + 1
            if code == WRONG_USAGE or not child.was_ready:
                self._change(child, "failed", f"{ended}; it is not started again. Its log: {child.log}")
                break
            if row > len(BACKOFF):
                self._change(
                    child,
                    "failed",
                    f"{ended}, {row} times in a row within {STABLE_SECONDS:.0f} s of its start; it is not"
                    f" started again. Its log: {child.log}",
                )
                break
            pause = BACKOFF[row - 1]
            child.restarts += 1
            again = f"in {pause:.0f} s" if pause else "at once"
            self._change(child, "waiting", f"{ended}; starts again {again}")
            await asyncio.sleep(pause)
        if child.state != "failed":
            self._change(child, "stopped", "stopped")
        child.settled.set()

    async def _live(self, child: Child) -> int:
        """Run it once, to its end. Returns the exit code (negative: the signal). Raises OSError."""
        self._change(child, "starting", "starting")
        # A pipe of ours: asyncio's own would have `wait` go on until all who inherited it have ended.
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *child.spec.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=writing,
                    stderr=writing,
                    cwd=child.spec.folder,
                    env=child.spec.environment,
                    # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop in order.
                    start_new_session=True,
                    preexec_fn=end_with_parent(),
                )
            finally:
                os.close(writing)
            child.pid = process.pid
            collecting = asyncio.create_task(self._collect(child, output))
            readiness = asyncio.create_task(self._await_ready(child, process.pid))
            try:
                return await process.wait()
            finally:
                # What it started itself must not live on and hold its ports.
                _signal_group(process.pid, signal.SIGKILL)
                child.pid = None
                readiness.cancel()
                await asyncio.gather(readiness, collecting, return_exceptions=True)

    async def _await_ready(self, child: Child, pid: int) -> None:
        spec = child.spec
        deadline = time.monotonic() + spec.start_seconds
        while spec.ready is not None and not await asyncio.to_thread(spec.ready, pid):
            if time.monotonic() > deadline and self._obstacle():
                deadline = time.monotonic() + spec.start_seconds
            if time.monotonic() > deadline:
                self._change(
                    child, "failed", f"was not ready within {spec.start_seconds:.0f} s. Its log: {child.log}"
                )
                _signal_group(pid, signal.SIGKILL)
                return
            await asyncio.sleep(0.05)
        child.was_ready = True
        self._change(child, "running", "ready")
        child.settled.set()

    async def _collect(self, child: Child, output: BinaryIO) -> None:
        """Everything it writes goes to its log file, line by line to who listens."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), output
        )
        log = _LogFile(child.log, lambda text: self._change(child, child.state, text))
        try:
            rest = b""
            while chunk := await reader.read(_LINE_BYTES):
                log.write(chunk)
                # A line without end must not fill the memory.
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._heard(child, line)
            if rest:
                self._heard(child, rest)
        finally:
            log.close()
            transport.close()

    def _heard(self, child: Child, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            child.tail.append(text)
            if self._on_line is not None:
                self._on_line(child.spec.name, text)

    async def _end(self, child: Child) -> None:
        if child.task is None:
            return
        if child.pid is None:
            # Between two lives, or done: there is nobody to ask.
            child.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await child.task
            if child.state != "failed":
                child.state = "stopped"
            return
        self._change(child, "stopping", "is asked to stop")
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(child.task), child.spec.grace)
        except TimeoutError:
            self._change(child, "stopping", f"has not stopped within {child.spec.grace:.0f} s: killed")
            _signal_group(child.pid, signal.SIGKILL)
            await child.task

    def _change(self, child: Child, state: State, text: str) -> None:
        child.state = state
        if self._on_change is not None:
            self._on_change(Change(name=child.spec.name, state=state, text=text, pid=child.pid))

    def _last_words(self, child: Child) -> str:
        tail = "\n".join(f"  {line}" for line in list(child.tail)[-8:])
        obstacle = self._obstacle()
        return (
            f"{child.spec.name} did not start{f': {obstacle}' if obstacle else ''}. Its log is {child.log}"
            + (f" and ends with:\n{tail}" if tail else "")
        )


def _signal_group(pid: int | None, number: signal.Signals) -> None:
    """Send a signal to a process and all it started (it leads a session, so a group, of its own)."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def _how_it_ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class _LogFile:
    """Writes a process's output to its log, and begins a new file when that is full.

    What cannot be written (disk full, folder gone) is dropped and its lines counted. Reading goes on: a
    process whose pipe nobody reads stands still.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        """`report` takes a sentence when the trouble begins and when it ends."""
        self._path = path
        self._report = report
        self._file: FileIO | None = None
        self._dropped = 0
        self._away = False

    def write(self, chunk: bytes) -> None:
        try:
            # Unbuffered: a buffer keeps what could not be written, and then refuses what comes next.
            file = self._opened()
            rest = chunk
            while rest:
                rest = rest[file.write(rest) or 0 :]
        except OSError as error:
            self._dropped += max(1, chunk.count(b"\n"))
            if not self._away:
                self._away = True
                self._report(
                    f"{self._path} cannot be written ({error.strerror or error}): its lines are dropped"
                )
            return
        if self._away:
            self._away = False
            self._report(f"{self._path} can be written again; {self._dropped} lines were dropped")
            self._dropped = 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self) -> FileIO:
        """Return the file to write to. Raises OSError."""
        if self._file is not None and self._file.tell() >= LOG_BYTES:
            self._file.close()
            self._file = None
            self._path.replace(self._path.with_name(f"{self._path.name}.old"))
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        return self._file
