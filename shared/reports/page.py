"""Renders a session's page: one HTML file that loads nothing, for a browser, a phone and paper.

Everything that came from outside is text (autoescape). The page admits only its own style and script, by
their hashes, so markup that slipped in could neither run nor load anything.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from events.types import Record
from shared.reports import german
from shared.reports.cards import Card

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent

LIST_AT_ONCE = 25
"""Rows of the needs-a-person and dead lists that stand open; the others unfold."""


class Figure(Record, frozen=True, kw_only=True):
    """Hold one number of the headline."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    """ok, check, diff, dead, wait or nothing."""


class Slice(Record, frozen=True, kw_only=True):
    """Hold a part of the headline's bar, in thousandths of its length."""

    tone: str
    start: float
    length: float
    label: str


class Bar(Record, frozen=True, kw_only=True):
    """Hold one agent's line in the chart; lengths are thousandths of the longest."""

    label: str
    agent: str
    median: str
    p95: str
    total: str
    note: str
    median_length: float
    p95_length: float


class DeadView(Record, frozen=True, kw_only=True):
    """Hold a photo that did not get through."""

    title: str
    photo_id: str
    step: str
    reason: str
    message: str
    when: str
    final: bool
    """Whether the same file can never get through, so that a replay is useless."""


class CostView(Record, frozen=True, kw_only=True):
    """Hold one model's line."""

    model: str
    photos: str
    cached: str
    tokens: str
    cost: str


class Page(Record, frozen=True, kw_only=True):
    """Hold everything on the page, in words."""

    session_id: str
    libraries: list[tuple[str, str]]
    """Name and address."""
    span: str
    """From when to when, and in which zone."""
    complete: bool
    state: str
    """In a sentence: all done, or what is missing."""
    notes: list[str]
    figures: list[Figure]
    slices: list[Slice]
    needs: list[Card]
    to_check: str
    """How many photos need a person and how many are only open, in a sentence."""
    columns: list[tuple[str, int]]
    """Which columns need a person, in how many photos."""
    dead: list[DeadView]
    bars: list[Bar]
    costs: list[CostView]
    cards: list[Card]
    states: list[tuple[str, str, int]]
    """The filter's buttons: state, word, how many."""
    made: str
    local_model: bool
    """Photos were described by the local analyzer, which knows nothing of building."""
    undescribed: str = ""
    """How many photos a vision service described in no usable way, in a sentence; '' for none."""


def render(page: Page) -> bytes:
    """Render the page as UTF-8. It is CPU-bound, about a millisecond per photo: call it in a thread."""
    parts = _template().generate(page=page, list_at_once=LIST_AT_ONCE)
    # Piece by piece: the page is large, and need not be in memory as text and as bytes. A file name may hold
    # what UTF-8 cannot (a lone surrogate of an undecodable name).
    return b"".join(part.encode("utf-8", "replace") for part in parts)


@cache
def _template() -> Template:
    """Return the compiled template, with style, script and the policy that admits exactly them."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_HERE / "session.css").read_text("utf-8")
    script = (_HERE / "session.js").read_text("utf-8")
    environment.filters["number"] = german.number
    environment.filters["raw_base64"] = Markup
    environment.globals.update(
        style=Markup(style),  # noqa: S704  # our own file, whose hash the policy names
        script=Markup(script),  # noqa: S704  # likewise
        policy=(
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none';"
            f" style-src '{_hash(style)}'; script-src '{_hash(script)}'"
        ),
    )
    return environment.get_template("session.html")


def _hash(text: str) -> str:
    """Return a CSP source expression for one inline element (CSP level 3, hash-source)."""
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()
