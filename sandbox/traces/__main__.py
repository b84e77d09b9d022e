"""Runs the trace receiver as a process: ``python -m sandbox.traces``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import msgspec

from sandbox.traces.service import TraceService
from sandbox.traces.store import BYTES_LIMIT


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Is the one line on standard output: it says where the receiver listens."""

    otlp_endpoint: str
    """The value for OTLP_ENDPOINT."""
    url: str
    """The address of the pages and of Jaeger's API."""


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns 1 when a port is taken."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.traces",
        description="Receives spans over OTLP/gRPC and shows them as pages and through Jaeger's query API.",
        epilog="example: python -m sandbox.traces --otlp-port 4317 --http-port 16686",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--otlp-port", type=int, default=4317, help="port for spans, 0 for any free one")
    parser.add_argument(
        "--http-port", "--port", type=int, default=16686, help="port for pages and API, 0 for any free one"
    )
    parser.add_argument("--max-bytes", type=int, default=BYTES_LIMIT, help="bytes of spans kept in memory")
    parser.add_argument("--file", type=Path, help="file that keeps spans over a restart, up to a limit")
    return asyncio.run(_serve(parser.parse_args()))


async def _serve(arguments: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = TraceService(host=arguments.host, max_bytes=arguments.max_bytes, file=arguments.file)
    try:
        await service.start(otlp_port=arguments.otlp_port, http_port=arguments.http_port)
    except OSError as error:
        sys.stderr.write(f"{error}: choose another, or 0 for any free one\n")
        await service.stop()
        return 1
    ready = Ready(
        otlp_endpoint=f"http://{arguments.host}:{service.otlp_port}",
        url=f"http://{arguments.host}:{service.http_port}",
    )
    sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
    sys.stdout.flush()
    await stop.wait()
    await service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
