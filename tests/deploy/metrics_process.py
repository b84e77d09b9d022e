"""An agent process as Prometheus sees it: ``python -m tests.deploy.metrics_process AGENT DONE``.

Prints its port, serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import sys

from shared.settings import Settings
from shared.telemetry.metrics import AgentMetrics
from shared.telemetry.server import HealthServer, HealthState


async def main(agent: str, done: int) -> None:
    """Serve the numbers of a process that has finished `done` deliveries."""
    metrics = AgentMetrics(agent)
    for _ in range(done):
        metrics.delivered("done", 0.5)
    metrics.backlog.set(40)
    server = HealthServer(Settings(metrics_port=0), HealthState)
    await server.start()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
