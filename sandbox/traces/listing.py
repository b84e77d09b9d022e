"""Draws the first page: a search form and the traces that it finds."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from sandbox.traces.page import actor_of, clock, colours_of, document, duration, first_value, text
from sandbox.traces.timescale import TimeScale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.traces.spans import Trace
    from sandbox.traces.store import Query


def list_page(
    traces: Sequence[Trace],
    query: Query,
    *,
    services: Sequence[str],
    tags_text: str = "",
    held: int = 0,
    instead: str = "",
) -> str:
    """Draw the search form and its result. `held`: traces in memory; `instead`: a sentence in its place."""
    options = "".join(
        f"<option{' selected' if name == query.service else ''}>{escape(name)}</option>" for name in services
    )
    form = (
        '<form method="get" action="/">'
        f'<label>Service<select name="service"><option value="">all</option>{options}</select></label>'
        f'<label>Operation<input name="operation" value="{escape(query.operation)}"></label>'
        f'<label>Tags<input class="wide" name="tags" value="{escape(tags_text)}"'
        ' placeholder="photo.id=… agent=… error.type=…"></label>'
        f'<label>Limit<input class="short" name="limit" inputmode="numeric" value="{query.limit}"></label>'
        "<button>Find traces</button></form>"
    )
    counted = f'<p class="crumb">{len(traces)} of {held} traces in memory</p>' if held and not instead else ""
    if not instead and not traces:
        instead = "No trace matches. All tags must be on one span." if held else "No trace has arrived yet."
    found = f'<p class="empty">{text(instead)}</p>' if instead else _table(traces)
    return document("Traces", f'<h1>Traces</h1>{form}{counted}<div class="board">{found}</div>')


def _table(traces: Sequence[Trace]) -> str:
    rows = "".join(_row(trace) for trace in traces)
    return (
        '<table class="list"><thead><tr><th>Photo or first span</th><th>Started</th><th>Took</th>'
        f"<th>Spans</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(trace: Trace) -> str:
    scale = TimeScale(trace)
    colours = colours_of(trace.spans)
    bars = "".join(
        f'<rect class="{colours[actor_of(span)]}" x="{scale.at(span.start):.2f}%" y="2" height="10" rx="1"'
        f' width="{max(scale.at(span.end) - scale.at(span.start), 0.4):.2f}%"/>'
        for span in trace.spans[:200]
        if span.kind != "client"
    )
    took = duration(trace.end - trace.start)
    failed = sum(span.failed for span in trace.spans)
    flag = f'<span class="flag">{failed} failed</span>' if failed else ""
    first = trace.spans[0].name
    named = first_value(trace, "photo.file_name") or first_value(trace, "photo.id") or first
    return (
        f'<tr><td><a href="/trace/{trace.trace_id}">{text(named)}</a>'
        f"<small>{text(first)}</small></td><td>{clock(trace.start)}</td>"
        f'<td><svg aria-hidden="true">{bars}</svg><small>{took}</small></td>'
        f"<td>{len(trace.spans)}</td><td>{flag}</td></tr>"
    )
