"""What the pages of traces share: the frame with its style and policy, and how values are written.

Everything that comes out of a span is text from outside: it is escaped and isolated. Positions are SVG
attributes, so that the pages work under a policy that allows no script and no style but their own.
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
"""The Content-Security-Policy the pages are made for."""
_COLOURS: Final = 8


def document(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )


def text(value: object) -> str:
    """Text from outside: escaped, and kept from turning the direction of what is around it."""
    return f"<bdi>{escape(str(value))}</bdi>"


def duration(nanoseconds: int) -> str:
    """A length of time as people say it."""
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
    """A point in time, in UTC, as every time in logs and records is."""
    return f"{datetime.fromtimestamp(time / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def actor_of(span: Span) -> str:
    """Who did it: the agent, or the service for everybody else."""
    agent = span.resource.attributes.get("agent") or span.attributes.get("agent")
    return str(agent or span.resource.service)


def colours_of(spans: Iterable[Span]) -> dict[str, str]:
    """A colour class for each actor, in the order in which they come into the trace."""
    actors = dict.fromkeys(actor_of(span) for span in spans)
    return {actor: f"c{number % _COLOURS}" for number, actor in enumerate(actors)}


def first_value(trace: Trace, name: str) -> str:
    """The first value any span of the trace gives under a name; empty if none does."""
    return next((as_text(span.attributes[name]) for span in trace.spans if name in span.attributes), "")
