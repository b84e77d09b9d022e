"""Reads W3C Trace Context from a stream entry, strictly and cheaply.

https://www.w3.org/TR/trace-context-2/ (the lengths and patterns below are from there).
"""

from __future__ import annotations

import random
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
_LONGEST_TRACESTATE: Final = 512
"""Characters a vendor should propagate; what is longer is no context but cargo."""
_MOST_MEMBERS: Final = 32
_MEMBER = re.compile(
    r"[ \t]*(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~][ \t]*"
)


class IncomingContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an entry says about its trace."""

    traceparent: str = ""
    """Empty: the entry names no trace (or a broken one)."""
    tracestate: str = ""
    rejected: str = ""
    """``traceparent`` or ``tracestate``: the field because of which the context was thrown away."""

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded, by the flag that its beginning decided."""
        return bool(int(self.traceparent[53:55], 16) & 1)


NOTHING: Final = IncomingContext()
_BAD_PARENT: Final = IncomingContext(rejected="traceparent")
_BAD_STATE: Final = IncomingContext(rejected="tracestate")


def _text(value: object) -> str:
    """A field as text, whichever way the reply was decoded. What is not ASCII is as good as malformed."""
    if isinstance(value, bytes):
        return value[:1024].decode("ascii", "replace")
    return value if isinstance(value, str) else ""


def read(fields: Mapping[str, str] | Mapping[bytes, bytes]) -> IncomingContext:
    """The trace context among an entry's fields; a malformed or absurdly long one is rejected whole."""
    either = cast("Mapping[object, object]", fields)
    traceparent = _text(either.get("traceparent") or either.get(b"traceparent"))
    if not traceparent:
        return NOTHING
    if not is_traceparent(traceparent):
        return _BAD_PARENT
    tracestate = _text(either.get("tracestate") or either.get(b"tracestate"))
    if tracestate and not _is_tracestate(tracestate):
        return _BAD_STATE
    return IncomingContext(traceparent=traceparent, tracestate=tracestate)


def is_traceparent(text: str) -> bool:
    """Whether a text is a W3C traceparent (of any version)."""
    return len(text) <= 256 and _TRACEPARENT.fullmatch(text) is not None


@lru_cache(maxsize=256)
def _is_tracestate(text: str) -> bool:
    """One upstream sends the same state with every photo, hence the cache."""
    if len(text) > _LONGEST_TRACESTATE:
        return False
    members = [member for member in text.split(",") if member.strip(" \t")]
    keys = {member.split("=", 1)[0].strip(" \t") for member in members}
    return (
        len(members) <= _MOST_MEMBERS
        and len(keys) == len(members)
        and all(_MEMBER.fullmatch(member) for member in members)
    )


@lru_cache(maxsize=256)
def state_of(tracestate: str) -> TraceState:
    """The parsed form, which the SDK wants. `tracestate` was checked by `read`."""
    return TraceState.from_header([tracestate]) if tracestate else TraceState()


def span_context_of(traceparent: str, tracestate: str = "") -> SpanContext:
    """The remote span a (valid) traceparent names."""
    return SpanContext(
        int(traceparent[3:35], 16),
        int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:55], 16)),
        trace_state=state_of(tracestate),
    )


def new_span_id() -> int:
    """A random span id; zero is invalid."""
    return random.getrandbits(64) or 1


def new_trace_id() -> int:
    """A random trace id; zero is invalid."""
    return random.getrandbits(128) or 1
