"""`erni gateway`: the HTTP side of the pipeline."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from console.arguments import describe

if TYPE_CHECKING:
    import argparse

    from console.output import Output


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni gateway`."""
    describe(
        parser,
        "Serve /v1 (publish photos and follow them, with a key of `erni key add`), /health, /ready, /metrics "
        "and /metrics/targets (Prometheus HTTP service discovery: every agent process that runs) on "
        "HTTP_HOST and HTTP_PORT until SIGTERM or Ctrl-C. `erni up` starts one.",
        "erni gateway",
        "HTTP_PORT=8090 erni gateway",
        run=gateway,
    )


async def gateway(_options: argparse.Namespace, output: Output) -> int:
    """Serve until somebody asks to stop."""
    from opentelemetry import trace

    from console import system
    from console.gateway.server import Gateway
    from shared.delivery.process import calm_collector
    from shared.telemetry.logs import configure_logging
    from shared.telemetry.manager import VERSION, TelemetryManager
    from shared.telemetry.tracing import SCOPE

    settings = system.load()
    configure_logging(settings, agent="gateway", consumer="gateway")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    telemetry = TelemetryManager(settings, consumer="erni-gateway")
    telemetry.start()
    serving = Gateway(settings, trace.get_tracer(SCOPE, VERSION) if telemetry.tracing else None)
    await serving.start()
    calm_collector()
    try:
        output.answer({"host": settings.http_host, "port": serving.port})
        if not output.as_json:
            output.say(f"gateway listens on http://{settings.http_host}:{serving.port}")
        await stop.wait()
    finally:
        await serving.stop()
        telemetry.shutdown()
    return 0
