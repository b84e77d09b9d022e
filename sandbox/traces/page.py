"""Holds what the trace pages share: the frame with its style and policy, and how values are written.

Everything in a span is text from outside, so it is escaped and isolated. Positions are SVG attributes, so
that the pages work under a policy that allows no script and only their own style.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Final

from sandbox.traces.store import as_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.traces.spans import Span, Trace

_STYLE: Final = resources.files(__package__).joinpath("page.css").read_text("utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
"""The Content-Security-Policy of the pages."""
_COLOURS: Final = 8


def document(title: str, body: str) -> str:
    """Return a whole page around `body`, which is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )


def text(value: object) -> str:
    """Return text from outside as HTML: escaped, and unable to change the direction of the text around it."""
    return f"<bdi>{escape(str(value))}</bdi>"


def duration(nanoseconds: int) -> str:
    """Return a length of time as people say it."""
    micros = nanoseconds / 1000
    if micros < 1:
        return "0"
    if micros < 1000:
        return f"{micros:.0f} µs"
    if micros < 1_000_000:
        return f"{micros / 1000:.{1 if micros < 10_000 else 0}f} ms"
    seconds = micros / 1e6
    if seconds < 60:
        return f"{seconds:.{2 if seconds < 10 else 1}f} s"
    for size, unit, smaller_size, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size / smaller_size:.0f} {smaller}"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def clock(time: int) -> str:
    """Return a point in time in UTC, as in logs and records."""
    return f"{datetime.fromtimestamp(time / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def actor_of(span: Span) -> str:
    """Return who made the span: the agent, or else the service."""
    agent = span.resource.attributes.get("agent") or span.attributes.get("agent")
    return str(agent or span.resource.service)


def colours_of(spans: Iterable[Span]) -> dict[str, str]:
    """Return a colour class for each actor, in the order in which they enter the trace."""
    actors = dict.fromkeys(actor_of(span) for span in spans)
    return {actor: f"c{number % _COLOURS}" for number, actor in enumerate(actors)}


def first_value(trace: Trace, name: str) -> str:
    """Return the first value that a span of the trace has under a name; empty if none has."""
    return next((as_text(span.attributes[name]) for span in trace.spans if name in span.attributes), "")
