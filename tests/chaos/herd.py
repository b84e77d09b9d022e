"""The agent processes of a run: started, stopped, killed, and started again when they have ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from events import topology
from sandbox.children import end_with_parent
from tests.chaos.zygote import News, Order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NEWS: Final = msgspec.json.Decoder(News)


@dataclass(eq=False)
class Process:
    """One start of an agent. Times are monotonic."""

    agent: str
    slot: int
    newer: bool
    log: Path
    earlier: bool = False
    """Whether it runs the code of an earlier commit."""
    pid: int = 0
    started: float = 0.0
    ended: float | None = None
    code: int | None = None
    signals: list[tuple[float, int]] = field(default_factory=list)
    """What we sent it."""

    @property
    def alive(self) -> bool:
        """Whether it runs, or is stopped."""
        return bool(self.pid) and self.ended is None

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.alive:
            self.signals.append((time.monotonic(), number))
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a kernel's file
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Herd:
    """Keeps `per_agent` processes of each agent running."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        per_agent: int,
        light: bool = True,
        bug: str = "",
        mixed: bool = True,
        tree: Path | None = None,
        hooks: bool = False,
    ) -> None:
        """`mixed`: every second process runs the newer code. `tree`: run another checkout's code.

        `hooks`: the notifier runs, too.
        """
        self.folder = folder
        self.environment = dict(environment)
        self.per_agent = per_agent
        self.agents = topology.CONSUMERS if hooks else topology.AGENTS
        self.light = light
        self.bug = bug
        self.mixed = mixed
        self.tree = tree
        self.all: list[Process] = []
        """Every process there ever was."""
        self.slots: list[Process] = []
        """The one that is at work in each place."""
        self.keep_up = True
        """Whether what has ended is started again."""
        self._zygote: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Start the zygote; no agents yet."""
        self._zygote = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.zygote",
            cwd=self.tree,
            env={**os.environ, "PYTHONPATH": str(self.tree)} if self.tree else None,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=end_with_parent(),
        )
        self._reader = asyncio.create_task(self._read())

    def start_agents(self) -> None:
        """Start every process."""
        self.slots = [self._order(agent, slot) for slot in range(self.per_agent) for agent in self.agents]

    def _order(self, agent: str, slot: int) -> Process:
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        number = len(self.all)
        newer = self.mixed and slot % 2 == 1
        process = Process(
            agent, slot, newer, self.folder / f"{number:05d}-{agent}.log", self.tree is not None
        )
        self.all.append(process)
        order = Order(
            number=number,
            agent=agent,
            light=self.light,
            newer=newer,
            bug=self.bug,
            environment=self.environment,
            folder=str(self.folder),
            log=str(process.log),
        )
        self._zygote.stdin.write(msgspec.json.encode(order) + b"\n")
        return process

    async def _read(self) -> None:
        assert self._zygote is not None
        assert self._zygote.stdout is not None
        by_pid: dict[int, Process] = {}
        while line := await self._zygote.stdout.readline():
            news = _NEWS.decode(line)
            if news.number is not None:
                process = self.all[news.number]
                process.pid, process.started = news.pid, time.monotonic()
                by_pid[news.pid] = process
            elif news.code is not None:
                process = by_pid.pop(news.pid)
                process.ended, process.code = time.monotonic(), news.code
                if self.keep_up and process in self.slots:
                    place = self.slots.index(process)
                    self.slots[place] = self._order(process.agent, process.slot)
            self._changed.set()

    def add(self, agent: str) -> Process:
        """Start one process more."""
        process = self._order(agent, 0)
        self.slots.append(process)
        return process

    async def retire(self, process: Process, number: int = signal.SIGTERM, seconds: float = 30.0) -> None:
        """End one process and start no other in its place. Raises TimeoutError."""
        self.slots.remove(process)
        process.send(number)
        async with asyncio.timeout(seconds):
            while process.ended is None:
                self._changed.clear()
                await self._changed.wait()

    def of(self, agent: str) -> list[Process]:
        """The processes of an agent that are at work."""
        return [process for process in self.slots if process.agent == agent]

    async def stop(self, seconds: float = 30.0) -> list[Process]:
        """SIGTERM to all; those that did not end in time are killed and given back."""
        self.keep_up = False
        for process in self.slots:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        late: list[Process] = []
        try:
            async with asyncio.timeout(seconds):
                while any(process.ended is None for process in self.slots):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            late = [process for process in self.slots if process.alive]
            for process in late:
                process.send(signal.SIGKILL)
        return late

    async def close(self) -> None:
        """End the zygote, and with it whatever is left."""
        if self._zygote is not None and self._zygote.stdin is not None:
            self._zygote.stdin.close()
            await self._zygote.wait()
        if self._reader is not None:
            self._reader.cancel()
