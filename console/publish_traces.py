"""The traces of a publish: the command's own span, and for each photo the root of its trace."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import SpanContext, Tracer

    from shared.settings import Settings


@contextmanager
def tracing(settings: Settings) -> Iterator[Tracer | None]:
    """A tracer for a publish, if somebody listens: else each photo's trace begins at the first agent."""
    from shared.telemetry.trace_target import apply_variables, trace_target

    target = trace_target(settings, apply_variables())
    if target.off or target.problems or not _listens(target.host, target.port):
        yield None
        return
    from shared.telemetry.manager import VERSION, TelemetryManager
    from shared.telemetry.tracing import SCOPE

    telemetry = TelemetryManager(settings, consumer="erni-publish")
    telemetry.start()
    try:
        yield trace.get_tracer(SCOPE, VERSION) if telemetry.tracing else None
    finally:
        telemetry.shutdown()


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def command_span(tracer: Tracer | None, session_id: str, photos: int) -> Iterator[SpanContext | None]:
    """The command's own span: each photo's trace links to it."""
    if tracer is None:
        yield None
        return
    with tracer.start_as_current_span(
        "erni publish", attributes={"session.id": session_id, "messaging.batch.message_count": photos}
    ) as span:
        yield span.get_span_context()


def traceparent(span: SpanContext) -> str:
    """A span's context as W3C Trace Context writes it: a session's report belongs to the command's trace."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


@contextmanager
def photo_span(
    tracer: Tracer | None,
    around: SpanContext | None,
    session_id: str,
    *,
    stream: str,
    redis_url: str,
    file_name: str | None = None,
) -> Iterator[None]:
    """Where a photo's trace begins: a root span of its own, linked to the command's.

    `stream`: the key it is sent to, by the name that the consumer's span has, so that a graph joins the two;
    `redis_url`: the server that it is sent to, likewise.
    """
    if tracer is None or around is None:
        yield
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind

    from shared.telemetry.tracing import server_attributes, server_of

    with tracer.start_as_current_span(
        "publish photo.submitted",
        context=Context(),
        kind=SpanKind.PRODUCER,
        links=[Link(around)],
        attributes={
            "session.id": session_id,
            **({"photo.file_name": file_name} if file_name else {}),
            "messaging.system": "redis",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": stream,
            **server_attributes(server_of(redis_url)),
        },
    ):
        yield
