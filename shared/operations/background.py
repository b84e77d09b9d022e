"""The background jobs of an agent process: gauges, janitor, ownerless entries, retention."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from events import topology
from shared.operations import gauges, janitor, ownerless, retention
from shared.sessions.store import SessionStore

if TYPE_CHECKING:
    from shared.delivery.process import AgentProcess


async def run(process: AgentProcess) -> None:
    """Run them beside the process's loops, until cancelled."""
    redis, stage, settings = process.redis, process.runtime.stage, process.runtime.settings
    sessions = SessionStore.from_settings(settings)
    try:
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(gauges.keep(redis, stage, process.metrics, process.keys))
            jobs.create_task(ownerless.keep(redis, stage, process.metrics, process.keys))
            jobs.create_task(
                janitor.keep(redis, stage, process.keys, sessions, archive_days=settings.archive_days)
            )
            if topology.COMPLETED in stage.reads:
                # one agent does it: the last one, which knows what has ended
                jobs.create_task(retention.keep(redis, settings))
    finally:
        await sessions.aclose()
