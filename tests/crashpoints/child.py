"""An agent process as the runner forks it: the real one, with a trap or a protocol bug in it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from consumers import (
    photo_fetcher,
    schema_extractor,
    sharepoint_uploader,
    validation_reporter,
    vision_analyzer,
)
from events.connection import connect
from sandbox.children import end_with_parent
from shared.delivery.process import AgentProcess, consumer_name
from shared.operations import background
from shared.retry import policy
from shared.settings import Settings
from shared.telemetry.logs import configure_logging
from shared.vision.contract import Answer
from tests.crashpoints import mutations
from tests.crashpoints.coordinates import Coordinates
from tests.crashpoints.trap import Trap, set_trap

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from shared.columns.schema import LibrarySchema
    from shared.delivery.agent import Agent
    from shared.vision.contract import PhotoContext

AGENTS: dict[str, type[Agent[Any, Any]]] = {
    agent.name: agent
    for agent in (
        schema_extractor.SchemaExtractor,
        photo_fetcher.PhotoFetcher,
        vision_analyzer.VisionAnalyzer,
        sharepoint_uploader.SharepointUploader,
        validation_reporter.ValidationReporter,
    )
}

# Taken when the fork server imports this module: its children end with it, stopped ones too.
_ARM = end_with_parent()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to be."""

    agents: tuple[str, ...]
    settings: Settings
    log: str
    """File for its log lines."""
    asked: str
    """File that gets a line for each question put to the analyzer."""
    trapped: bool = False
    """Whether calls are numbered, and told at the end."""
    target: Coordinates | None = None
    mutation: str = ""


class Ready(msgspec.Struct, frozen=True):
    """Told to the runner when all its agents read."""

    consumer: str


class ConstantAnalyzer:
    """Answers at once and the same: what a model sees is not the subject here."""

    model = "constant"
    prompt_version = "1"

    def __init__(self, asked: str, trap: Trap | None) -> None:
        self._asked = asked
        self._trap = trap

    async def open(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to close."""

    async def describe(self, _preview: bytes, _schema: LibrarySchema, context: PhotoContext) -> Answer:
        """One answer, paid for: a line in the file says so."""
        call = self._trap.number("vision", "describe") if self._trap else ""
        if self._trap:
            await self._trap.sending(call, lambda: None)  # type: ignore[arg-type, return-value]  # never held
        with open(self._asked, "a", encoding="ascii") as lines:  # noqa: ASYNC230, PTH123 - one short line
            lines.write(f"{context.session_id}\n")
        if self._trap:
            await self._trap.answered(call)
        return Answer(fields={}, description="Ein Bild.")


def main(job: Job, link: Connection) -> None:
    """Run until SIGTERM; the exit code is 0 then."""
    if _ARM is not None:
        _ARM()
    log = os.open(job.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_run(job, link))
    sys.stderr.flush()


async def _run(job: Job, link: Connection) -> None:
    trap = Trap(job.target, link) if job.trapped else None
    if job.mutation:
        mutations.APPLY[job.mutation]()
    if trap:
        set_trap(trap)
    vision_analyzer.make_analyzer = lambda *_: ConstantAnalyzer(job.asked, trap)  # type: ignore[attr-defined]
    consumer = consumer_name()
    configure_logging(job.settings, agent=job.agents[0], consumer=consumer)
    clients = [connect(job.settings.redis_url) for _ in job.agents]
    processes = [
        AgentProcess(
            AGENTS[name](job.settings, client), job.settings, consumer=consumer, background=background.run
        )
        for name, client in zip(job.agents, clients, strict=True)
    ]
    if trap:
        trap.processes = processes

    def stop() -> None:
        for process in processes:
            process.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGUSR1, _say_where)
    ready = asyncio.create_task(_tell(processes, link))
    with policy.without_waiting():
        await asyncio.gather(*(process.run(serve=False) for process in processes))
    ready.cancel()
    for client in clients:
        await client.aclose()
    if trap:
        trap.tell()


async def _tell(processes: list[AgentProcess], link: Connection) -> None:
    for process in processes:
        await process.ready.wait()
    link.send(Ready(processes[0].runtime.consumer))


def _say_where() -> None:
    """Where every task stands, into the log: what a run is stuck at."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()
