"""Makes spans: one per delivery (`DeliverySpans`), and one per call of a function with `@traced_span`.

The entry's sampled flag is read before anything else: a photo whose trace is not recorded costs a look at one
character and no span.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, StatusCode

from events import redis_address
from shared.telemetry import trace_context
from shared.telemetry.logs import log_context
from shared.telemetry.metrics import TRACE_CONTEXT_REJECTED
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Self

    from opentelemetry.sdk.trace import Tracer
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AnyValue

    from shared.telemetry.logs import LogContext

P = ParamSpec("P")
R = TypeVar("R")

REDIS_PORT: Final = 6379
SCOPE: Final = "erni_foto_agency"
"""The instrumentation scope of our own spans."""

OWN_ATTRIBUTES: Final = frozenset(
    {
        "agent",
        "delivery.count",
        "error.type",
        "function.name",
        "handoff_type",
        "messaging.client.id",
        "messaging.consumer.group.name",
        "messaging.destination.name",
        "messaging.message.conversation_id",
        "messaging.message.id",
        "messaging.operation.name",
        "messaging.operation.type",
        "messaging.system",
        "outcome",
        "photo.id",
        "server.address",
        "session.id",
    }
)
"""Attributes whose values we make or check ourselves, so that they hold no secrets."""

_EMPTY: Final = Context()
_REJECTED: Final = {field: TRACE_CONTEXT_REJECTED.labels(field) for field in ("traceparent", "tracestate")}


class DeliverySpan:
    """Stands for one delivery in its trace. It records nothing: tracing is off, or the trace is unsampled.

    `traceparent` and `tracestate` are written into the outputs (empty: no field). The task that started it
    may use it several times, one after the other: ``with span: …``.
    """

    __slots__ = ("_entry", "_log_token", "_otel_context", "_otel_token", "traceparent", "tracestate")

    traceparent: str
    tracestate: str

    def __init__(
        self,
        traceparent: str,
        tracestate: str,
        entry: tuple[str, str | None, str | None],
        otel_context: Context | None,
    ) -> None:
        """`entry`: entry id, session id, photo id. `otel_context`: what is active inside; None: as it is."""
        self.traceparent = traceparent
        self.tracestate = tracestate
        self._entry = entry
        self._otel_context = otel_context
        self._otel_token: Token[Context] | None = None
        self._log_token: Token[LogContext | None] | None = None

    def retry(self, attempt: int, wait_seconds: float, error_type: str, message: str) -> None:
        """Note on the span that attempt `attempt` failed and the next comes after `wait_seconds`."""

    def end(
        self, outcome: str, error: BaseException | str | None = None, *, reason: str | None = None
    ) -> None:
        """End the span with the delivery's outcome, and what went wrong (scrubbed) if something did.

        `reason` becomes ``error.type`` where `error` is no exception; by default a dead delivery without one
        was over the delivery limit.
        """

    def __enter__(self) -> Self:
        """Make it the active one: inside, client spans nest under it and log lines carry the ids."""
        self._log_token = log_context.set(self)
        if self._otel_context is not None:
            self._otel_token = otel_context.attach(self._otel_context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._otel_token is not None:
            otel_context.detach(self._otel_token)
            self._otel_token = None
        if self._log_token is not None:
            log_context.reset(self._log_token)
            self._log_token = None

    @property
    def log_fields(self) -> dict[str, str]:
        """Return the ids that every log line inside carries."""
        entry_id, session_id, photo_id = self._entry
        fields = {}
        if self.traceparent:
            fields["trace_id"] = self.traceparent[3:35]
            fields["span_id"] = self.traceparent[36:52]
        if session_id:
            fields["session_id"] = session_id
        if photo_id:
            fields["photo_id"] = photo_id
        fields["entry_id"] = entry_id
        return fields

    @property
    def log_span(self) -> Span | None:
        """Return the span that log lines compare the active one with; None: no other can be active."""
        return None


class _RecordedDelivery(DeliverySpan):
    """A delivery whose trace is sampled: it has a span of the SDK."""

    __slots__ = ("span",)

    def __init__(
        self, traceparent: str, tracestate: str, entry: tuple[str, str | None, str | None], span: Span
    ) -> None:
        # With a new context, nothing of the delivery engine's (suppressed instrumentation) reaches the agent.
        super().__init__(traceparent, tracestate, entry, trace.set_span_in_context(span, _EMPTY))
        self.span = span

    def retry(self, attempt: int, wait_seconds: float, error_type: str, message: str) -> None:
        self.span.add_event(
            "retry",
            {
                "attempt": attempt,
                "wait_seconds": round(wait_seconds, 3),
                "error.type": error_type,
                "error.message": message[:1024],
            },
        )

    def end(
        self, outcome: str, error: BaseException | str | None = None, *, reason: str | None = None
    ) -> None:
        span = self.span
        if not span.is_recording():
            return
        span.set_attribute("outcome", outcome)
        if error is not None or outcome == "dead":
            _fail(span, error or "", reason or ("delivery_limit" if outcome == "dead" else outcome))
        span.end()

    @property
    def log_span(self) -> Span | None:
        return self.span


def _fail(span: Span, error: BaseException | str, reason: str) -> None:
    """Mark a span as failed. `reason`: the ``error.type`` if no exception says it."""
    if isinstance(error, BaseException):
        reason = type(error).__name__
        span.record_exception(error)
    text = str(error) or (reason if isinstance(error, BaseException) else "")
    span.set_attribute("error.type", reason)
    span.set_status(StatusCode.ERROR, scrub(text)[:1024] or None)


class DeliverySpans:
    """Makes the span of each delivery. Without a tracer it makes none, at almost no cost."""

    def __init__(
        self, tracer: Tracer | None = None, *, consumer: str = "", server: tuple[str, int] | None = None
    ) -> None:
        """`consumer`: this process's consumer name; `server`: host and port of Redis. Both are attributes."""
        self._tracer = tracer
        self._consumer = consumer
        self._server = server
        self._fixed: dict[tuple[str, str, str], dict[str, AnyValue]] = {}
        self._flag_decides = tracer is not None and _asks_the_parent(tracer)

    def start(
        self,
        agent: str,
        handoff_type: str,
        fields: Mapping[str, str] | Mapping[bytes, bytes],
        entry_id: str,
        stream: str,
        deliveries: int,
        session_id: str | None,
        photo_id: str | None,
        *,
        link_traceparent: str | None = None,
        file_name: str | None = None,
    ) -> DeliverySpan:
        """Begin the span of one delivery, child of and linked to the context among the entry's fields.

        `link_traceparent`: the failed span that this delivery replays. `file_name`: the photo's. A malformed
        context starts a new trace and is counted; it never fails a delivery.
        """
        incoming = trace_context.read(fields)
        if incoming.rejected:
            _REJECTED[incoming.rejected].inc()
        entry = (entry_id, session_id, photo_id)
        tracer = self._tracer
        if tracer is None:
            return DeliverySpan(incoming.traceparent, incoming.tracestate, entry, None)
        around, links = _EMPTY, []
        if incoming.traceparent:
            parent = trace_context.span_context_of(incoming.traceparent, incoming.tracestate)
            around = trace.set_span_in_context(NonRecordingSpan(parent), _EMPTY)
            if self._flag_decides and not incoming.sampled:
                return DeliverySpan(incoming.traceparent, incoming.tracestate, entry, around)
            links.append(Link(parent))
        if link_traceparent and trace_context.is_traceparent(link_traceparent):
            failed = trace_context.span_context_of(link_traceparent)
            links.append(Link(failed, {"link": "replay_of"}))
        key = (agent, stream, handoff_type)
        fixed = self._fixed.get(key)
        if fixed is None:
            fixed = self._fixed[key] = self._same_for_all(*key)
        attributes = {**fixed, "messaging.message.id": entry_id, "delivery.count": deliveries}
        attributes |= _names(session_id, photo_id, file_name)
        span = tracer.start_span("agent_handoff." + agent, around, SpanKind.CONSUMER, attributes, links)
        context = span.get_span_context()
        traceparent, tracestate = trace_context.traceparent_of(context), context.trace_state.to_header()
        if not context.trace_flags.sampled:
            return DeliverySpan(traceparent, tracestate, entry, trace.set_span_in_context(span, _EMPTY))
        return _RecordedDelivery(traceparent, tracestate, entry, span)

    def _same_for_all(self, agent: str, stream: str, handoff_type: str) -> dict[str, AnyValue]:
        """Return what is the same for every delivery of an agent from a stream.

        The names are those of OpenTelemetry's conventions for messaging spans (v1.44).
        """
        return {
            "agent": agent,
            "handoff_type": handoff_type,
            "function.name": "".join(part.capitalize() for part in agent.split("_")) + ".handle",
            "messaging.system": "redis",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": stream,
            "messaging.consumer.group.name": agent,
            "messaging.client.id": self._consumer,
            **server_attributes(self._server),
        }


def server_of(redis_url: str) -> tuple[str, int] | None:
    """Return host and port of Redis; None for a socket file, sentinels, or a cluster."""
    address = redis_address.read(redis_url)
    several = address.path or address.sentinels or address.nodes
    return None if several else (address.host, address.port)


def server_attributes(server: tuple[str, int] | None) -> dict[str, AnyValue]:
    """Return where a message goes or comes from, for the span of its producer or consumer."""
    if server is None:
        return {}
    host, port = server
    # The conventions want the port only where it is not the usual one.
    return {"server.address": host} if port == REDIS_PORT else {"server.address": host, "server.port": port}


def _names(session_id: str | None, photo_id: str | None, file_name: str | None) -> dict[str, AnyValue]:
    """Return what people search for, as far as it is known."""
    names: dict[str, AnyValue] = {}
    if session_id:
        names["session.id"] = session_id
    if photo_id:
        names["photo.id"] = names["messaging.message.conversation_id"] = photo_id
    if file_name:
        names["photo.file_name"] = file_name
    return names


def _asks_the_parent(tracer: Tracer) -> bool:
    """Return whether the sampler promises that the children of an unsampled parent are unsampled."""
    # Imported here, because the SDK reads its variables when it is imported, the wrong ones too.
    from opentelemetry.sdk.trace.sampling import ParentBased

    return isinstance(tracer.sampler, ParentBased)


class _Current:
    """Holds the tracer of `@traced_span`; None while tracing is off. The TelemetryManager sets it."""

    tracer: Tracer | None = None
    asks_the_parent = False


def use_tracer(tracer: Tracer | None) -> None:
    """Make `@traced_span` record with this tracer; None: record nothing."""
    _Current.tracer = tracer
    _Current.asks_the_parent = tracer is not None and _asks_the_parent(tracer)


def _tracer_for_call() -> Tracer | None:
    """Return the tracer, unless the active span belongs to a trace that is not recorded."""
    tracer = _Current.tracer
    if tracer is None:
        return None
    active = trace.get_current_span()
    unsampled = not active.is_recording() and active.get_span_context().is_valid
    return None if unsampled and _Current.asks_the_parent else tracer


def traced_span(
    name: str, attributes: Mapping[str, AnyValue] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Record each call of a function, sync or async, as a span of this name under the active one.

    An exception is recorded with its message (scrubbed when exported), marks the span as failed and is raised
    again. `attributes` are the same for every call; ``function.name`` is added. With tracing off, or in an
    unsampled trace, the function is only called.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        fixed: dict[str, AnyValue] = {"function.name": function.__qualname__, **(attributes or {})}
        if inspect.iscoroutinefunction(function):
            called = cast("Callable[P, Awaitable[object]]", function)

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> object:
                tracer = _tracer_for_call()
                if tracer is None:
                    return await called(*args, **kwargs)
                with tracer.start_as_current_span(name, attributes=fixed):
                    return await called(*args, **kwargs)

            return cast("Callable[P, R]", awaited)

        @functools.wraps(function)
        def plain(*args: P.args, **kwargs: P.kwargs) -> R:
            tracer = _tracer_for_call()
            if tracer is None:
                return function(*args, **kwargs)
            with tracer.start_as_current_span(name, attributes=fixed):
                return function(*args, **kwargs)

        return plain

    return decorate


__all__ = ["OWN_ATTRIBUTES", "SCOPE", "DeliverySpan", "DeliverySpans", "traced_span", "use_tracer"]
