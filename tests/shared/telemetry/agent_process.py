"""One agent's delivery in a process of its own: fields in on standard input, fields for the next out.

``python -m tests.shared.telemetry.agent_process AGENT HANDOFF_TYPE PHOTO_ID URL``; settings from the
environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import aiohttp
import structlog

from shared.settings import load
from shared.telemetry.logs import configure_logging
from shared.telemetry.manager import TelemetryManager


async def main(agent: str, handoff_type: str, photo_id: str, url: str) -> None:
    """Handle one entry, with one request to outside if there is an address."""
    settings, consumer = load(), f"bau-1-{os.getpid()}"
    configure_logging(settings, agent=agent, consumer=consumer)
    manager = TelemetryManager(settings, agent=agent, consumer=consumer)
    manager.start()
    span = manager.deliveries.start(
        agent, handoff_type, json.load(sys.stdin), "1-0", f"erni:{agent}", 1, "seewen-2026", photo_id
    )
    with span:
        if url:
            async with aiohttp.ClientSession() as client:
                await client.get(url)
        structlog.get_logger().info("delivery", outcome="done")
    span.end("done")
    sys.stdout.write(json.dumps({"traceparent": span.traceparent, "tracestate": span.tracestate}))
    manager.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
