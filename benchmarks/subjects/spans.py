"""Runs a collector that takes spans over OTLP and only counts them, in a process of its own.

It prints its port, then the number of spans it has received for each line on standard input.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Self

import grpc  # type: ignore[import-untyped]  # its stubs are one more dependency for one small server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Collector:
    """Run the process for its parent, as a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.subjects.spans"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.endpoint = f"http://127.0.0.1:{self._line()}"

    def spans(self) -> int:
        """Return how many spans arrived since the last call."""
        if self._process.stdin is None:
            raise SystemExit("the collector of the benchmark has no standard input")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        line = self._process.stdout.readline().strip() if self._process.stdout else ""
        if not line:
            raise SystemExit("the collector of the benchmark has ended")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # it ends when its standard input closes, also when this process is killed
        self._process.communicate()


def serve() -> None:
    """Run until standard input closes. Requests are decoded only when somebody asks for their number."""
    requests: list[bytes] = []

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc carries no types
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            return grpc.unary_unary_rpc_method_handler(export) if details.method == _METHOD else None

    def export(request: bytes, _: grpc.ServicerContext) -> bytes:
        requests.append(request)
        # an empty ExportTraceServiceResponse: everything was accepted
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    for _ in sys.stdin:
        count = 0
        while requests:
            request = ExportTraceServiceRequest.FromString(requests.pop())
            count += sum(len(scope.spans) for part in request.resource_spans for scope in part.scope_spans)
        print(count, flush=True)
    server.stop(0)


if __name__ == "__main__":
    serve()
