"""The first agent as a process: ``python -m tests.shared.delivery.fuzzed_agent URL CONCURRENCY``."""

from __future__ import annotations

import asyncio
import sys

from events.connection import connect
from shared.delivery.process import AgentProcess
from shared.telemetry.logs import configure_logging
from tests.shared.delivery.harness import FirstAgent, settings_for


async def main(url: str, concurrency: int) -> None:
    """Run until SIGTERM; says "reads" on stdout when the first entry may come."""
    settings = settings_for(
        url, concurrency=concurrency, lease_seconds=15.0, allow_volatile_redis=True, log_format="json"
    )
    configure_logging(settings, agent=FirstAgent.name, consumer="fuzzed")
    redis = connect(url)
    process = AgentProcess(FirstAgent(settings, redis), settings)
    process.handle_signals()
    running = asyncio.create_task(process.run(serve=False))
    await process.ready.wait()
    sys.stdout.write("reads\n")
    sys.stdout.flush()
    await running
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
