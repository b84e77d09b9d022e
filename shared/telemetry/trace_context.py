"""Reads W3C Trace Context from a stream entry, strictly and cheaply.

https://www.w3.org/TR/trace-context-2/ (the lengths and patterns below are from there).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

import msgspec
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

if TYPE_CHECKING:
    from collections.abc import Mapping

# Version 00 is 55 characters. A later version may append fields after a dash; a tracer reads what it knows.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:(?<!^00.{53})-[!-~]{0,200})?"
)
_MEMBERS_LIMIT: Final = 32
_TRACESTATE_LIMIT: Final = 8192
"""Characters. The standard's 512 are the least that must be passed on; OpenTelemetry reads this many."""
_MEMBER = re.compile(
    r"[ \t]*(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~][ \t]*"
)


class IncomingContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Holds what an entry says about its trace."""

    traceparent: str = ""
    """Empty: the entry names no trace, or a malformed one."""
    tracestate: str = ""
    rejected: str = ""
    """``traceparent`` or ``tracestate``: the field that was malformed and is ignored."""

    @property
    def sampled(self) -> bool:
        """Return whether the trace is recorded, by the flag that was set where it began."""
        return bool(int(self.traceparent[53:55], 16) & 1)


NOTHING: Final = IncomingContext()
_BAD_PARENT: Final = IncomingContext(rejected="traceparent")


def _text(value: object) -> str:
    """Return a field as text, from bytes or text. Text that is not ASCII is malformed anyway."""
    if isinstance(value, bytes):
        return value[: _TRACESTATE_LIMIT + 1].decode("ascii", "replace")
    return value if isinstance(value, str) else ""


def read(fields: Mapping[str, str] | Mapping[bytes, bytes]) -> IncomingContext:
    """Return the trace context among an entry's fields.

    A malformed traceparent costs the whole context, a malformed tracestate only itself (Trace Context 3.3.1).
    """
    either = cast("Mapping[object, object]", fields)
    traceparent = _text(either.get("traceparent") or either.get(b"traceparent"))
    if not traceparent:
        return NOTHING
    if not is_traceparent(traceparent):
        return _BAD_PARENT
    tracestate = _text(either.get("tracestate") or either.get(b"tracestate"))
    if tracestate and not _is_tracestate(tracestate):
        return IncomingContext(traceparent=traceparent, rejected="tracestate")
    return IncomingContext(traceparent=traceparent, tracestate=tracestate)


def is_traceparent(text: str) -> bool:
    """Return whether a text is a W3C traceparent (of any version)."""
    return len(text) <= 256 and _TRACEPARENT.fullmatch(text) is not None


@lru_cache(maxsize=256)
def _is_tracestate(text: str) -> bool:
    """Return whether a text is a tracestate; cached, as an upstream often sends the same with every photo."""
    if len(text) > _TRACESTATE_LIMIT:
        return False
    members = [member for member in text.split(",") if member.strip(" \t")]
    keys = {member.split("=", 1)[0].strip(" \t") for member in members}
    return (
        len(members) <= _MEMBERS_LIMIT
        and len(keys) == len(members)
        and all(_MEMBER.fullmatch(member) for member in members)
    )


@lru_cache(maxsize=256)
def _state_of(tracestate: str) -> TraceState:
    return TraceState.from_header([tracestate]) if tracestate else TraceState()


def span_context_of(traceparent: str, tracestate: str = "") -> SpanContext:
    """Return the remote span that these fields name, which `read` has checked.

    It is what OpenTelemetry's propagator makes of them, for a third of the time.
    """
    return SpanContext(
        int(traceparent[3:35], 16),
        int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:55], 16)),
        trace_state=_state_of(tracestate),
    )


def traceparent_of(span: SpanContext) -> str:
    """Return the traceparent of a span, as it is written into an entry."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
