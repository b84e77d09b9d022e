"""Draws one trace as a waterfall: a row per span with its bar in time; a click shows everything else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from sandbox.traces.page import actor_of, clock, colours_of, document, duration, first_value, text
from sandbox.traces.spans import Span
from sandbox.traces.store import as_text, tags_of
from sandbox.traces.timescale import TimeScale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.traces.spans import Event, Trace, Value

_ROWS_LIMIT: Final = 1000
_MARKS_LIMIT: Final = 50
_PATH_LIMIT: Final = 44
"""Characters of a request's path in the left half of a row."""
_DEEPEST: Final = 12
_STEP: Final = 10
"""Pixels of indentation per level."""
_NOISE: Final = frozenset({"telemetry.sdk.language", "telemetry.sdk.name", "telemetry.sdk.version"})
_SHOWN_ELSEWHERE: Final = frozenset({"error", "otel.status_description"})
_KEY: Final = (
    "Dotted: the entry waited in its stream. Pale: the wait before a retry. Narrow: a request to another"
    " service. Red: it failed. Click a row to open it."
)


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    span: Span
    depth: int
    waited_from: int
    """When the parent ended, if this span began later; between them the entry waited in its stream."""


def trace_page(trace: Trace) -> str:
    """Draw the page of one trace."""
    rows = _rows(trace)
    colours = colours_of(row.span for row in rows)
    scale = TimeScale(trace)
    labels, lines = _axis(scale)
    title = _title(trace) or rows[0].span.name
    drawn = "".join(_row(row, scale, colours[actor_of(row.span)], lines) for row in rows[:_ROWS_LIMIT])
    rest = len(rows) - _ROWS_LIMIT
    if rest > 0:
        drawn += f'<p class="empty">{rest} more spans are not drawn; the JSON has them all.</p>'
    body = (
        '<p class="crumb"><a href="/">Traces</a></p>'
        f'<h1>{text(title)}</h1><dl class="facts">{_facts(trace)}</dl>'
        f'<ul class="legend">{_legend(trace, colours)}</ul>'
        '<div class="board"><div class="row axis"><div class="name">Span</div>'
        f'<div class="plot"><svg class="bar" aria-hidden="true">{labels}</svg></div></div>{drawn}</div>'
        f'<p class="key">{_KEY} <a href="/api/traces/{trace.trace_id}">JSON</a></p>'
    )
    return document(f"{title} · trace", body)


def _title(trace: Trace) -> str:
    """Return the photo's file name and id, as far as spans have them."""
    photo, name = first_value(trace, "photo.id"), first_value(trace, "photo.file_name")
    return " · ".join(part for part in (name, f"Photo {photo}" if photo else "") if part)


def _facts(trace: Trace) -> str:
    """Draw the figures above the picture; those that are zero or empty are left out."""
    failed = sum(span.failed for span in trace.spans)
    retries = sum(event.name == "retry" for span in trace.spans for event in span.events)
    processes = {
        span.resource.attributes.get("service.instance.id", span.resource.service) for span in trace.spans
    }
    facts = (
        ("took", duration(trace.end - trace.start), "big"),
        ("spans", str(len(trace.spans)), "big"),
        ("processes", str(len(processes)), "big"),
        ("failed", str(failed or ""), "big bad"),
        ("retries", str(retries or ""), "big"),
        ("started", clock(trace.start), ""),
        ("session", first_value(trace, "session.id"), ""),
        ("trace id", trace.trace_id, ""),
    )
    return "".join(
        f'<div><dt>{label}</dt><dd class="{kind}">{text(value)}</dd></div>'
        for label, value, kind in facts
        if value
    )


def _legend(trace: Trace, colours: Mapping[str, str]) -> str:
    """Draw who took part, and how long their outermost spans took together."""
    parts = []
    for actor, colour in colours.items():
        own = [span for span in trace.spans if actor_of(span) == actor]
        ids = {span.span_id for span in own}
        busy = sum(span.end - span.start for span in own if span.parent_id not in ids)
        swatch = f'<svg aria-hidden="true"><rect class="{colour}" width="10" height="10" rx="2"/></svg>'
        parts.append(f"<li>{swatch}{text(actor)} <span>{duration(busy)}</span></li>")
    return "".join(parts)


def _rows(trace: Trace) -> list[_Row]:
    """Return the spans as a tree from top to bottom. A span whose parent has not arrived is a root."""
    by_id = {span.span_id: span for span in trace.spans}
    children: dict[str, list[Span]] = {}
    roots: list[Span] = []
    for span in trace.spans:
        inside = span.parent_id in by_id and span.parent_id != span.span_id
        (children.setdefault(span.parent_id, []) if inside else roots).append(span)
    rows: list[_Row] = []
    seen: set[str] = set()
    # Spans that name each other as parents have no root; they come last.
    waiting = [(span, 0) for span in (*reversed(trace.spans), *reversed(roots))]
    while waiting:
        span, depth = waiting.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        parent = by_id.get(span.parent_id)
        waited_from = parent.end if parent is not None and parent.end < span.start else 0
        rows.append(_Row(span=span, depth=depth, waited_from=waited_from))
        waiting += [(child, depth + 1) for child in reversed(children.get(span.span_id, ()))]
    return rows


def _axis(scale: TimeScale) -> tuple[str, str]:
    """Draw the tick labels, and the lines under every row."""
    labels, lines = [], []
    for tick in scale.ticks():
        where = scale.at(tick.time)
        label = f"+{_tick(tick.since_cut)}" if tick.since_cut else _tick(tick.time - scale.start)
        labels.append(f'<text class="ticktext" x="{where:.2f}%" dx="4" y="20">{label}</text>')
        lines.append(f'<line class="tick" x1="{where:.2f}%" x2="{where:.2f}%" y1="0" y2="32"/>')
    for cut in scale.cuts:
        band = f'<rect class="cut" x="{cut.left:.2f}%" width="{cut.width:.2f}%" y="0" height="32"/>'
        hint = f"<title>{duration(cut.length)} in which nothing happened are left out</title>"
        middle = f'text-anchor="middle" x="{cut.left + cut.width / 2:.2f}%" y="20"'
        labels.append(f'<g>{hint}{band}<text class="ticktext" {middle}>//</text></g>')
        lines.append(band)
    return "".join(labels), "".join(lines)


def _tick(offset: int) -> str:
    """Return a round time without the zeros of `duration`."""
    if offset >= 60_000_000_000:
        return duration(offset)
    for size, unit in ((1_000_000_000, "s"), (1_000_000, "ms"), (1000, "µs")):
        if offset >= size:
            return f"{offset / size:g} {unit}"
    return "0"


def _row(row: _Row, scale: TimeScale, colour: str, lines: str) -> str:
    return (
        f'<details><summary class="row">{_name(row, colour)}'
        f'<div class="plot">{_bar(row, scale, colour, lines)}</div></summary>{_details(row.span)}</details>'
    )


def _name(row: _Row, colour: str) -> str:
    """Draw the left half of a row."""
    span = row.span
    indent = min(row.depth, _DEEPEST) * _STEP
    retries = sum(event.name == "retry" for event in span.events)
    deliveries = span.attributes.get("delivery.count")
    flags = ["failed"] if span.failed else []
    if retries:
        flags.append(f"{retries} {'retry' if retries == 1 else 'retries'}")
    if isinstance(deliveries, int) and deliveries > 1:
        flags.append(f"delivery {deliveries}")
    if any(link.attributes.get("link") == "replay_of" for link in span.links):
        flags.append("replay")
    group, dot, last = span.name.rpartition(".")
    # All hand-offs have the same prefix; the part that differs is emphasised.
    name = f"<i>{escape(group + dot)}</i>{escape(last)}" if group else escape(span.name)
    flag = f'<span class="flag">{", ".join(flags)}</span>' if flags else ""
    return (
        f'<div class="name"><svg class="depth" width="{indent + 6}" aria-hidden="true">'
        f'<rect class="{colour}" x="{indent}" y="7" width="4" height="18" rx="2"/></svg>'
        f'<b><bdi>{name}</bdi></b>{flag}<span class="sub">{text(_subtitle(span))}</span></div>'
    )


def _subtitle(span: Span) -> str:
    """Return what distinguishes two spans of one name: where a request went, or which process it was."""
    if span.kind == "client":
        address = urlsplit(str(span.attributes.get("url.full") or span.attributes.get("http.url") or ""))
        status = span.attributes.get("http.response.status_code") or span.attributes.get("http.status_code")
        return (
            f"{status or ''} {_middle_cut(address.path) or span.attributes.get('db.system.name', '')}".strip()
        )
    return str(span.resource.attributes.get("service.instance.id", ""))


def _middle_cut(path: str) -> str:
    """Shorten a path in its middle: the paths of a service begin alike and differ at their end."""
    if len(path) <= _PATH_LIMIT:
        return path
    begin = _PATH_LIMIT // 4
    return f"{path[:begin]}…{path[begin + 1 - _PATH_LIMIT :]}"


def _bar(row: _Row, scale: TimeScale, colour: str, lines: str) -> str:
    """Draw the right half of a row."""
    span = row.span
    left, right = scale.at(span.start), scale.at(span.end)
    width = max(right - left, 0.15)
    parts = [lines]
    if row.waited_from:
        waited = duration(span.start - row.waited_from)
        parts.append(
            f'<line class="gap" x1="{scale.at(row.waited_from):.2f}%" x2="{left:.2f}%" y1="16" y2="16">'
            f"<title>waited {waited} in the stream</title></line>"
        )
    height = 8 if span.kind == "client" else 14
    kind = f"{colour}{' client' if span.kind == 'client' else ''}{' err' if span.failed else ''}"
    parts.append(
        f'<rect class="{kind}" x="{left:.2f}%" y="{16 - height // 2}" width="{width:.2f}%"'
        f' height="{height}" rx="2"/>'
    )
    parts += [_mark(event, scale) for event in span.events[:_MARKS_LIMIT]]
    took = duration(span.end - span.start)
    parts.append(f'<text class="took" x="{left + width:.2f}%" dx="9" y="20">{took}</text>')
    return f'<svg class="bar" role="img" aria-label="{escape(span.name)}: {took}">{"".join(parts)}</svg>'


def _mark(event: Event, scale: TimeScale) -> str:
    """Draw an event on its bar; for a retry also the wait that followed."""
    at = scale.at(event.time)
    drawn = ""
    wait = event.attributes.get("wait_seconds")
    if event.name == "retry" and isinstance(wait, int | float) and 0 < wait < 3600:
        until = scale.at(event.time + int(wait * 1e9))
        drawn = (
            f'<rect class="pause" x="{at:.2f}%" y="10" width="{until - at:.2f}%" height="12">'
            f"<title>waited {wait:g} s before the next attempt</title></rect>"
        )
    values = (f"{key}={as_text(value)}" for key, value in list(event.attributes.items())[:4])
    hint = escape(" ".join((event.name, *values))[:300])
    kind = "mark" if event.name in ("retry", "exception") else "note"
    return f'{drawn}<circle class="{kind}" cx="{at:.2f}%" cy="16" r="4"><title>{hint}</title></circle>'


def _details(span: Span) -> str:
    """Draw what opens under a row: attributes, events, links, process."""
    tags = {key: value for key, value in tags_of(span).items() if key not in _SHOWN_ELSEWHERE}
    process = {key: value for key, value in span.resource.attributes.items() if key not in _NOISE}
    right = []
    if span.events:
        right.append("<h3>Events</h3>")
        right += [
            f'<div class="event"><span class="when">+{duration(event.time - span.start)}</span>'
            f"<strong>{text(event.name)}</strong>{_table(event.attributes)}</div>"
            for event in span.events
        ]
    others = [link for link in span.links if (link.trace_id, link.span_id) != (span.trace_id, span.parent_id)]
    if others:
        right.append("<h3>Links</h3>")
        right += [
            f'<div class="event"><a class="id" href="/trace/{link.trace_id}">{link.trace_id}</a>'
            f' <span class="id">span {link.span_id}</span>{_table(link.attributes)}</div>'
            for link in others
        ]
    right.append("<h3>Process</h3>" + _table({"service.name": span.resource.service, **process}))
    right.append("<h3>Span</h3>" + _table({"span id": span.span_id, "started": clock(span.start)}))
    error = f'<div class="error">{text(span.message or "ended with an error")}</div>' if span.failed else ""
    return (
        f'<div class="more">{error}<div><h3>Attributes</h3>{_table(tags)}</div>'
        f"<div>{''.join(right)}</div></div>"
    )


def _table(values: Mapping[str, Value]) -> str:
    rows = (f"<tr><th>{text(key)}</th><td>{text(as_text(value))}</td></tr>" for key, value in values.items())
    return f"<table>{''.join(rows)}</table>"
