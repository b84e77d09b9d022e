"""Serves both ports: OTLP over gRPC for incoming spans, HTTP for people and tools that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import grpc.aio  # type: ignore[import-untyped]  # its stubs are one more dependency for six lines here
import msgspec
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from sandbox.traces import jaeger, jaeger_v3
from sandbox.traces.listing import list_page
from sandbox.traces.page import POLICY
from sandbox.traces.span_file import SpanFile
from sandbox.traces.store import BYTES_LIMIT, Query, TraceStore
from sandbox.traces.waterfall import trace_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_LARGEST_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes of one export; a batch of 512 spans from the SDK has less than a million."""
_GRAPH_TRACES: Final = 500
"""Traces from which the graph of services is made, the most recent ones."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class _Receiver(TraceServiceServicer):
    """Implements OTLP's trace service."""

    def __init__(self, store: TraceStore, file: SpanFile | None) -> None:
        self._store = store
        self._file = file

    async def Export(  # noqa: N802  # the name is the protocol's
        self, request: ExportTraceServiceRequest, _context: object
    ) -> ExportTraceServiceResponse:
        refused = self._store.add(request)
        if self._file is not None:
            self._file.append(request)
        if not refused:
            return ExportTraceServiceResponse()
        answer = ExportTracePartialSuccess(
            rejected_spans=refused, error_message="spans without ids, or too many in one trace"
        )
        return ExportTraceServiceResponse(partial_success=answer)


class TraceService:
    """Runs receiver and pages in one process, around one store."""

    def __init__(
        self, *, host: str = "127.0.0.1", max_bytes: int = BYTES_LIMIT, file: Path | None = None
    ) -> None:
        """`host`: where both listen. `max_bytes`: the limit of spans in memory. `file`: keeps them too."""
        self.store = TraceStore(max_bytes=max_bytes)
        self._file = None if file is None else SpanFile(file)
        if self._file is not None:
            for request in self._file.read():
                self.store.add(request)
        self._host = host
        self._grpc: grpc.aio.Server | None = None
        self._runner: web.AppRunner | None = None
        self.otlp_port = 0
        self.http_port = 0

    async def start(self, *, otlp_port: int = 0, http_port: int = 0) -> None:
        """Listen on both ports; 0 takes any free one. Raises OSError naming the one that is taken."""
        # with so_reuseport, a second receiver could share the port and get half of the spans
        server = grpc.aio.server(
            options=(("grpc.max_receive_message_length", _LARGEST_MESSAGE), ("grpc.so_reuseport", 0))
        )
        add_TraceServiceServicer_to_server(_Receiver(self.store, self._file), server)  # type: ignore[no-untyped-call]  # generated code
        try:
            self.otlp_port = server.add_insecure_port(f"{self._host}:{otlp_port}")
        except RuntimeError as error:
            raise OSError(f"cannot take spans on {self._host}:{otlp_port}: the port is taken") from error
        await server.start()
        self._grpc = server
        runner = web.AppRunner(
            self._application(), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, self._host, http_port).start()
        except OSError as error:
            await self.stop()
            raise OSError(f"cannot show traces on {self._host}:{http_port}: {error.strerror}") from error
        self.http_port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Close both ports; exports under way get half a second."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._grpc is not None:
            await self._grpc.stop(grace=0.5)
        if self._file is not None:
            self._file.close()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[_guard] if self._host in _LOOPBACK else [_answer_errors])
        app.router.add_get("/", self._list)
        app.router.add_get("/search", self._list)
        app.router.add_get("/trace/{id}", self._trace_page)
        app.router.add_get("/api/services", self._services)
        app.router.add_get("/api/services/{service}/operations", self._operation_names)
        app.router.add_get("/api/operations", self._operations)
        app.router.add_get("/api/traces", self._traces)
        app.router.add_get("/api/traces/{id}", self._trace)
        app.router.add_get("/api/dependencies", self._dependencies)
        app.router.add_get("/api/v3/services", self._services_v3)
        app.router.add_get("/api/v3/operations", self._operations_v3)
        app.router.add_get("/api/v3/trace-summaries", self._summaries_v3)
        app.router.add_get("/api/v3/traces", self._traces_v3)
        app.router.add_get("/api/v3/traces/{id}", self._trace_v3)
        app.router.add_get("/api/v3/dependencies", self._dependencies_v3)
        return app

    async def _services(self, _request: web.Request) -> web.Response:
        names = self.store.services()
        return _json(jaeger.envelope(names, total=len(names)))

    async def _operation_names(self, request: web.Request) -> web.Response:
        names = sorted({name for name, _ in self.store.operations(request.match_info["service"])})
        return _json(jaeger.envelope(names, total=len(names)))

    async def _operations(self, request: web.Request) -> web.Response:
        found = self.store.operations(request.query.get("service", ""), request.query.get("spanKind", ""))
        return _json(
            jaeger.envelope([{"name": name, "spanKind": kind} for name, kind in found], total=len(found))
        )

    async def _traces(self, request: web.Request) -> web.Response:
        ids = request.query.getall("traceID", [])
        if ids:
            found = [trace for trace in map(self.store.get, ids) if trace is not None]
        elif not request.query.get("service"):
            return _json(jaeger.failure(400, "parameter 'service' is required"), status=400)
        else:
            try:
                query = jaeger.query_of(request.query, request.query.getall("tag", []))
            except jaeger.QueryError as error:
                return _json(jaeger.failure(400, str(error)), status=400)
            found = self.store.search(query)
        return _json(jaeger.envelope([jaeger.trace_json(trace) for trace in found]))

    async def _trace(self, request: web.Request) -> web.Response:
        trace = self.store.get(request.match_info["id"])
        if trace is None:
            return _json(jaeger.failure(404, "trace not found"), status=404)
        return _json(jaeger.envelope([jaeger.trace_json(trace)]))

    async def _dependencies(self, request: web.Request) -> web.Response:
        """Return the graph of services; ``endTs`` and ``lookback`` are milliseconds."""
        try:
            end, lookback = (int(request.query.get(name, "0")) for name in ("endTs", "lookback"))
        except ValueError:
            return _json(jaeger.failure(400, "endTs and lookback: expected milliseconds"), status=400)
        query = Query(
            start=(end - lookback) * 1000 if end and lookback else 0, end=end * 1000, limit=_GRAPH_TRACES
        )
        return _json(jaeger.envelope(jaeger_v3.dependencies(self.store.search(query))))

    async def _dependencies_v3(self, request: web.Request) -> web.Response:
        names = {"startTime": "query.start_time_min", "endTime": "query.start_time_max"}
        times = {new: request.query[old] for old, new in names.items() if request.query.get(old)}
        try:
            query = jaeger_v3.query_v3({**times, "query.num_traces": str(_GRAPH_TRACES)})
        except jaeger.QueryError as error:
            return _json({"code": 3, "message": str(error)}, status=400)
        return _json({"dependencies": jaeger_v3.dependencies(self.store.search(query))})

    async def _services_v3(self, _request: web.Request) -> web.Response:
        return _json({"services": self.store.services()})

    async def _operations_v3(self, request: web.Request) -> web.Response:
        kind = request.query.get("span_kind", "")
        found = self.store.operations(request.query.get("service", ""), kind)
        return _json({"operations": [{"name": name, "spanKind": kind} for name, kind in found]})

    async def _summaries_v3(self, request: web.Request) -> web.Response:
        try:
            found = self.store.search(jaeger_v3.query_v3(request.query))
        except jaeger.QueryError as error:
            return _json({"code": 3, "message": str(error)}, status=400)
        return _json({"summaries": [jaeger_v3.summary(trace) for trace in found]})

    async def _traces_v3(self, request: web.Request) -> web.Response:
        try:
            found = self.store.search(jaeger_v3.query_v3(request.query))
        except jaeger.QueryError as error:
            return _json({"code": 3, "message": str(error)}, status=400)
        return _json(jaeger_v3.otlp_json(found))

    async def _trace_v3(self, request: web.Request) -> web.Response:
        trace = self.store.get(request.match_info["id"])
        if trace is None:
            return _json({"code": 5, "message": "trace not found"}, status=404)
        return _json(jaeger_v3.otlp_json([trace]))

    async def _trace_page(self, request: web.Request) -> web.Response:
        trace = self.store.get(request.match_info["id"])
        if trace is None:
            return _html(
                list_page(
                    (),
                    Query(),
                    services=self.store.services(),
                    instead="This trace is not here. It has not arrived yet (a span leaves its process about"
                    " a second after it ended), was not sampled, or had to make room for newer ones.",
                ),
                status=404,
            )
        return _html(trace_page(trace))

    async def _list(self, request: web.Request) -> web.Response:
        problem = ""
        try:
            query = jaeger.query_of(request.query, request.query.getall("tag", []))
        except jaeger.QueryError as error:
            query, problem = Query(), str(error)
        found = () if problem else self.store.search(query)
        return _html(
            list_page(
                found,
                query,
                services=self.store.services(),
                tags_text=request.query.get("tags", "")[:2000],
                held=len(self.store),
                instead=problem,
            ),
            status=400 if problem else 200,
        )


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    return await handler(request)


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer only to the names of this machine, so that no web page reads traces through its DNS name."""
    if urlsplit(f"//{request.host}").hostname not in _LOOPBACK:
        return _json(jaeger.failure(403, "this address answers only on this machine"), status=403)
    return await handler(request)


def _json(value: object, *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def _html(text: str, *, status: int = 200) -> web.Response:
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        headers={
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )
