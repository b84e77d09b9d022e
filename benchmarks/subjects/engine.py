"""Runs one agent process with a no-op handler. Every import of the delivery engine is in this module."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.subjects.entries import OUTPUT, STREAM
from events.connection import connect
from events.types import LibraryRef, PhotoSubmitted, SchemaExtracted
from sandbox.redis_server import Valkey
from shared.delivery.agent import Agent
from shared.delivery.process import AgentProcess
from shared.settings import Settings
from shared.telemetry.logs import configure_logging
from shared.telemetry.manager import TelemetryManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

CONCURRENCY: Final = 400
_SHORT: Final = 0.002
_LIBRARY: Final = LibraryRef(
    site_id="site",
    list_id="list",
    drive_id="drive",
    site="/sites/Bau",
    library="Fotos",
    web_url="http://localhost",
)

__all__ = ["CONCURRENCY", "Mode", "NoOp", "Valkey", "connect", "drained", "running"]


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """Name what the agent does beside the hand-off itself."""

    sessions: bool = False
    """Entries belong to sessions; photo records and one log line per delivery are written."""
    traced: bool = False
    """Spans of sampled traces are exported."""
    lease_seconds: float = 30.0
    logs: bool = False
    """Log lines are rendered and written to the null device."""


class NoOp(Agent[PhotoSubmitted, SchemaExtracted]):
    """Hand on every event unchanged."""

    name = "schema_extractor"
    on_entry: Callable[[], None] | None = None

    async def handle(self, event: PhotoSubmitted) -> SchemaExtracted:
        if self.on_entry is not None:
            self.on_entry()
        return SchemaExtracted(
            photo_id=event.photo_id,  # type: ignore[arg-type]  # the engine sets every photo's id
            session_id=event.session_id,
            source_url=event.source_url,
            library=_LIBRARY,
            schema_digest="0" * 64,  # type: ignore[arg-type]  # any text will do
            schema_ref="store:schemas/x",  # type: ignore[arg-type]  # any text will do
        )


def settings(url: str, mode: Mode, endpoint: str = "") -> Settings:
    """Return the settings of the agent process: no server for metrics, one lane."""
    return Settings(
        redis_url=url,
        concurrency=CONCURRENCY,
        metrics_port=0,
        enable_tracing=mode.traced,
        otlp_endpoint=endpoint or "http://127.0.0.1:4317",
        log_level="info" if mode.logs else "error",
        log_format="json",
        photo_record_hours=48 if mode.sessions else 0,
        lease_seconds=mode.lease_seconds,
    )


@contextlib.asynccontextmanager
async def running(
    url: str, mode: Mode, on_entry: Callable[[], None] | None = None, *, endpoint: str = ""
) -> AsyncIterator[Redis]:
    """Run the agent inside the block, which receives a client.

    Each handler call calls `on_entry`; `endpoint`: where spans go over OTLP.
    """
    chosen = settings(url, mode, endpoint)
    redis = connect(url)
    with Path(os.devnull).open("wb") as nowhere:  # noqa: ASYNC230 - opening the null device never waits
        # rendered and written like any line, but not shown
        configure_logging(chosen, agent=NoOp.name, consumer="benchmark", stream=nowhere)
        telemetry = TelemetryManager(chosen, agent=NoOp.name, consumer="benchmark")
        telemetry.start()
        agent = NoOp(chosen, redis)
        agent.on_entry = on_entry
        process = AgentProcess(agent, chosen, spans=telemetry.deliveries)
        task = asyncio.create_task(process.run(serve=False))
        try:
            async with asyncio.timeout(30):
                await process.ready.wait()
            yield redis
        finally:
            process.stop()
            await task
            await asyncio.to_thread(telemetry.shutdown)
            await redis.aclose()


async def drained(redis: Redis, entries: int) -> None:
    """Wait until every entry is handed off. Raises SystemExit unless there are `entries` outputs then."""
    # settling deletes: an empty stream means that the last hand-off is done
    async with asyncio.timeout(300):
        while await redis.xlen(STREAM):  # noqa: ASYNC110 - the server has no event for that
            await asyncio.sleep(_SHORT)
    moved = await redis.xlen(OUTPUT)
    if moved != entries:
        raise SystemExit(f"{moved} of {entries} entries were handed off: this figure would be wrong")
