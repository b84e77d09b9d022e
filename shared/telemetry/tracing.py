"""Spans: one per delivery (`DeliverySpans`), and one per call of a function marked with `@traced_span`.

The entry's sampled flag is looked at before anything else: a photo whose trace is not recorded costs a
look at one character, not a span that is thrown away.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, ParentBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shared.telemetry import trace_context
from shared.telemetry.handoff_span import FixedAttributes, HandoffSpan
from shared.telemetry.logs import log_context
from shared.telemetry.metrics import TRACE_CONTEXT_REJECTED
from shared.telemetry.redact import scrub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Self

    from opentelemetry.sdk.trace import Tracer
    from opentelemetry.util.types import AnyValue

    from shared.telemetry.logs import LogContext

P = ParamSpec("P")
R = TypeVar("R")

SCOPE: Final = "erni_foto_agency"
"""The instrumentation scope of our own spans."""

_EMPTY: Final = Context()
_REJECTED: Final = {field: TRACE_CONTEXT_REJECTED.labels(field) for field in ("traceparent", "tracestate")}


class DeliverySpan:
    """What one delivery is to the trace. This one records nothing: tracing is off, or the trace unsampled.

    `traceparent` and `tracestate` go on the outputs (empty: no field). Usable as often as wanted one after
    the other, by the task that started it: ``with span.activate(): …``.
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

    def end(self, outcome: str, error: BaseException | str | None = None) -> None:
        """End the span with the delivery's outcome, and what went wrong (scrubbed) if something did."""

    def activate(self) -> Self:
        """A context manager: inside, client spans nest under this one and log lines carry the ids."""
        return self

    def __enter__(self) -> Self:
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
        """The ids that every log line inside carries."""
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
    def log_span(self) -> trace.Span | None:
        """The span that log lines compare the active one with; None: nothing else can be active."""
        return None


class _RecordedDelivery(DeliverySpan):
    """A delivery whose trace is sampled: its span is real."""

    __slots__ = ("span",)

    def __init__(
        self, traceparent: str, tracestate: str, entry: tuple[str, str | None, str | None], span: HandoffSpan
    ) -> None:
        # A fresh context, so that nothing of the machinery's (suppressed instrumentation) reaches the agent.
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

    def end(self, outcome: str, error: BaseException | str | None = None) -> None:
        span = self.span
        if not span.is_recording():
            return
        span.set_own("outcome", outcome)
        if error is not None:
            text = error if isinstance(error, str) else str(error) or type(error).__name__
            if isinstance(error, BaseException):
                span.set_own("error.type", type(error).__name__)
                span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, scrub(text)[:1024]))
        elif outcome == "dead":
            span.set_status(StatusCode.ERROR)
        span.end()

    @property
    def log_span(self) -> trace.Span | None:
        return self.span


class DeliverySpans:
    """Makes the span of each delivery. Without a tracer it makes none, for next to nothing."""

    def __init__(self, tracer: Tracer | None = None, *, consumer: str = "") -> None:
        """`consumer`: this process's consumer name, an attribute of every span."""
        self._tracer = tracer
        self._consumer = consumer
        self._fixed: dict[tuple[str, str, str], FixedAttributes] = {}
        # Only a parent-based sampler promises that an unsampled parent's children are unsampled.
        self._flag_decides = tracer is not None and isinstance(tracer.sampler, ParentBased)

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
    ) -> DeliverySpan:
        """Begin the span of one delivery, child of and linked to the context among the entry's fields.

        `link_traceparent`: the failed span this delivery replays. A malformed context starts a new trace
        and is counted; it never fails a delivery.
        """
        incoming = trace_context.read(fields)
        if incoming.rejected:
            _REJECTED[incoming.rejected].inc()
        entry = (entry_id, session_id, photo_id)
        if self._tracer is None:
            return DeliverySpan(incoming.traceparent, incoming.tracestate, entry, None)
        if incoming.traceparent and self._flag_decides and not incoming.sampled:
            parent = trace_context.span_context_of(incoming.traceparent, incoming.tracestate)
            return _unrecorded(parent, incoming.traceparent, incoming.tracestate, entry)
        return self._sampled(
            self._tracer, agent, handoff_type, incoming, entry, stream, deliveries, link_traceparent
        )

    def _sampled(
        self,
        tracer: Tracer,
        agent: str,
        handoff_type: str,
        incoming: trace_context.IncomingContext,
        entry: tuple[str, str | None, str | None],
        stream: str,
        deliveries: int,
        link_traceparent: str | None,
    ) -> DeliverySpan:
        """A span for a sampled parent, or for a new trace if the sampler wants it."""
        name = "agent_handoff." + agent
        key = (agent, stream, handoff_type)
        fixed = self._fixed.get(key)
        if fixed is None:
            fixed = self._fixed[key] = FixedAttributes(self._same_for_all(*key))
        parent: SpanContext | None = None
        tracestate = incoming.tracestate
        links: tuple[Link, ...] = ()
        if incoming.traceparent:
            parent = trace_context.span_context_of(incoming.traceparent, tracestate)
            trace_id = parent.trace_id
            flags = 1 | parent.trace_flags & TraceFlags.RANDOM_TRACE_ID
            state = parent.trace_state
            links = (Link(parent),)
        else:
            trace_id = trace_context.new_trace_id()
            flags = 1 | TraceFlags.RANDOM_TRACE_ID
            state = trace_context.state_of("")
        extra: Mapping[str, AnyValue] = {}
        if parent is None or not self._flag_decides:
            around = None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), _EMPTY)
            decided = tracer.sampler.should_sample(
                around, trace_id, name, SpanKind.CONSUMER, fixed.values, links
            )
            if decided.trace_state is not None:
                state = decided.trace_state
                tracestate = state.to_header()
            if decided.decision is not Decision.RECORD_AND_SAMPLE:
                flags &= ~1
            # What it was shown comes back, with what the sampler adds of its own.
            shown = fixed.values
            extra = {k: v for k, v in (decided.attributes or {}).items() if shown.get(k) != v}
        context = SpanContext(
            trace_id,
            trace_context.new_span_id(),
            is_remote=False,
            trace_flags=TraceFlags(flags),
            trace_state=state,
        )
        traceparent = f"00-{trace_id:032x}-{context.span_id:016x}-{flags:02x}"
        if not flags & 1:
            return _unrecorded(context, traceparent, tracestate, entry)
        if link_traceparent and trace_context.is_traceparent(link_traceparent):
            links = (*links, Link(trace_context.span_context_of(link_traceparent), {"link": "replay_of"}))
        entry_id, session_id, photo_id = entry
        own: dict[str, AnyValue] = {
            "messaging.message.id": entry_id,
            "delivery.count": deliveries,
            **extra,
        }
        if session_id:
            own["session.id"] = session_id
        if photo_id:
            own["photo.id"] = own["messaging.message.conversation_id"] = photo_id
        span = HandoffSpan(
            name,
            context,
            parent,
            links,
            fixed,
            own,
            resource=tracer.resource,
            scope=tracer._instrumentation_scope,  # noqa: SLF001  # the only way to the scope the tracer was made with
            on_end=tracer.span_processor.on_end,
        )
        return _RecordedDelivery(traceparent, tracestate, entry, span)

    def _same_for_all(self, agent: str, stream: str, handoff_type: str) -> dict[str, AnyValue]:
        """What is the same for every delivery of an agent from a stream (messaging conventions v1.44)."""
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
        }


def _unrecorded(
    context: SpanContext, traceparent: str, tracestate: str, entry: tuple[str, str | None, str | None]
) -> DeliverySpan:
    """A delivery of an unsampled trace: its children see an unsampled parent, and the context goes on."""
    return DeliverySpan(
        traceparent, tracestate, entry, trace.set_span_in_context(NonRecordingSpan(context), _EMPTY)
    )


class _Current:
    """The tracer of `@traced_span`; None while tracing is off. Set by the TelemetryManager."""

    tracer: Tracer | None = None


def use_tracer(tracer: Tracer | None) -> None:
    """Make `@traced_span` record with this tracer; None: record nothing."""
    _Current.tracer = tracer


def _tracer_for_call() -> Tracer | None:
    """The tracer, unless the active span says that its trace is not recorded."""
    tracer = _Current.tracer
    if tracer is None:
        return None
    active = trace.get_current_span()
    unsampled = not active.is_recording() and active.get_span_context().is_valid
    return None if unsampled and isinstance(tracer.sampler, ParentBased) else tracer


def traced_span(
    name: str, attributes: Mapping[str, AnyValue] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Record each call of a function, sync or async, as a span of this name under the active one.

    An exception is recorded with its message (scrubbed when exported), marks the span as failed and goes on
    its way. `attributes` are the same for every call; ``function.name`` is added. With tracing off, or under
    an unsampled trace, the call is just made.
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


__all__ = ["SCOPE", "DeliverySpan", "DeliverySpans", "traced_span", "use_tracer"]
