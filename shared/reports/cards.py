"""Turns a photo's report into the words and marks that a session's page shows."""

from __future__ import annotations

import math
from base64 import b64encode
from collections import defaultdict
from datetime import UTC
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

from events.types import Record
from shared.columns.schema import Column
from shared.columns.topics import topic_of
from shared.columns.words import unsure_word
from shared.reports import german
from shared.reports.totals import is_undescribed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from shared.reports.photo_report import FieldReport, PhotoReport

State: TypeAlias = Literal["check", "diff", "ok"]

_CAUSES = {
    "edited": "In SharePoint geändert und nicht überschrieben.",
    "altered": "SharePoint hat einen anderen Wert gespeichert.",
    "repaired": "Wich zuerst ab und wurde einmal korrigiert.",
}


_UNDECIDED = (
    "Steht auf «{word}»: Die Bildanalyse hat nichts Sicheres gesehen. Wer den Bau kennt, wählt den Wert."
)


class Reason(Record, frozen=True, kw_only=True):
    """Explain why a person has to look, and at which columns."""

    columns: list[str]
    text: str


class FieldView(Record, frozen=True, kw_only=True):
    """Hold one line of a card."""

    name: str
    values: list[str]
    caution: str
    """What the value is not, beside it; nothing for most columns."""
    required: bool
    source: str
    """The key the style goes by: exif, hint, vision, default, person or nothing."""
    source_word: str
    bars: int
    """Filled bars of five; 0 shows no mark."""
    percent: str
    sure: Literal["high", "middle", "low"]
    state: Literal["", "check", "diff", "open", "repaired"]
    """``open``: what is stored says that nobody knows yet, such as «Prüfen»."""
    sent: list[str] | None
    """What we had sent, where that is not what is stored."""
    note: str


class Card(Record, frozen=True, kw_only=True):
    """Hold one photo of the page."""

    anchor: str
    title: str
    state: State
    thumbnail: str
    """Base64 of a JPEG, or nothing."""
    fields: list[FieldView]
    reasons: list[Reason]
    """Alike ones together."""
    notices: list[Reason]
    """Those that belong to no line of the card."""
    open: list[tuple[str, str]]
    """Columns whose stored value says that nobody knows yet, and that value's word."""
    differences: int
    item_url: str
    trace_url: str
    facts: list[tuple[str, str]]


def card(
    report: PhotoReport, place: int, thumbnail: bytes | None, where: tzinfo, jaeger_url: str, *, mixed: bool
) -> Card:
    """Make a photo's card. `place` numbers the cards; `mixed`: the session fills more than one library."""
    by_text: dict[str, list[str]] = defaultdict(list)
    by_column: dict[str, list[str]] = defaultdict(list)
    for need in report.needs_person:
        by_text[need.reason].append(need.column)
        by_column[need.column].append(need.reason)
    fields = [_field(field, by_column.get(field.display_name, []), where) for field in report.fields]
    shown = {field.name for field in fields}
    differences = sum(not field.same for field in report.fields) + (report.file_same is False)
    left_open = undecided(report)
    for column, word in left_open:
        by_text[_UNDECIDED.format(word=word)].append(column)
    needed = report.verdict == "needs_person" or bool(left_open)
    state: State = "check" if needed else "diff" if differences else "ok"
    return Card(
        anchor=f"p{place}",
        title=report.file_name or report.item.name,
        state=state,
        thumbnail=b64encode(thumbnail).decode() if thumbnail else "",
        fields=fields,
        reasons=[Reason(columns=columns, text=text) for text, columns in by_text.items()],
        notices=[
            Reason(columns=[column], text=" ".join(texts))
            for column, texts in by_column.items()
            if column not in shown
        ],
        open=left_open,
        differences=differences,
        item_url=link(report.item.web_url),
        trace_url=link(f"{jaeger_url.rstrip('/')}/trace/{report.trace_id}") if report.trace_id else "",
        facts=_facts(report, where, mixed=mixed),
    )


def undecided(report: PhotoReport) -> list[tuple[str, str]]:
    """Return the columns whose stored value says that nobody knows yet, and that value's word.

    A column about which a person is asked anyway does not count a second time.
    """
    asked = {need.column for need in report.needs_person}
    return [
        (field.display_name, word)
        for field in report.fields
        if (word := _open(field)) and field.display_name not in asked
    ]


def link(url: str) -> str:
    """Return an address that may stand in a link: http(s) alone, so never a script; '' otherwise."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.netloc else ""


def _open(field: FieldReport) -> str | None:
    """Return the stored choice, if it is the one for "nobody knows yet"."""
    if field.kind not in ("choice", "multi_choice"):
        return None
    return unsure_word(german.value(field.stored, field.kind, UTC))


def _field(field: FieldReport, reasons: Sequence[str], where: tzinfo) -> FieldView:
    """Make one line. The stored value counts if anything was stored or sent."""
    stored = german.value(field.stored, field.kind, where)
    found = german.value(field.value, field.kind, where)
    differs = not field.same
    # A person's value has neither our source nor our confidence.
    persons = field.cause == "edited" or (field.source is None and bool(stored))
    values = stored if differs or stored else found
    confidence = None if persons else field.confidence
    source = "person" if persons else field.source or ""
    notes = list(reasons)
    # An altered value already is a reason.
    if field.cause and not (reasons and field.cause == "altered"):
        notes.append(_CAUSES[field.cause])
    return FieldView(
        name=field.display_name,
        values=values,
        caution=_caution(field) if values and not persons and not _open(field) else "",
        required=field.required,
        source=source,
        source_word="SharePoint" if persons else german.SOURCES.get(source, ""),
        bars=0 if confidence is None else min(max(math.ceil(confidence * 5), 1), 5),
        percent="" if confidence is None else f"{round(confidence * 100)} %",
        sure="high" if (confidence or 0) >= 0.8 else "middle" if (confidence or 0) >= 0.5 else "low",
        state="check"
        if reasons
        else "diff"
        if differs
        else "open"
        if _open(field)
        else "repaired"
        if field.cause
        else "",
        sent=german.value(field.sent, field.kind, where) if differs else None,
        note=" ".join(notes),
    )


def _caution(field: FieldReport) -> str:
    """Return the caution beside a value. Only a person can decide whether people can be recognised."""
    column = Column(name=field.column, display_name=field.display_name, kind=field.kind)
    return "Hinweis, keine Prüfung" if topic_of(column) == "people" else ""


def _facts(report: PhotoReport, where: tzinfo, *, mixed: bool) -> list[tuple[str, str]]:
    """Return the small print of a card."""
    item, analysis = report.item, report.analysis
    tokens = analysis.prompt_tokens + analysis.completion_tokens
    how = [analysis.model]
    if is_undescribed(report):
        how.append("ohne verwertbare Antwort")
    if analysis.cached:
        how.append("aus dem Zwischenspeicher")
    elif tokens:
        how.append(f"{german.number(tokens)} Tokens")
    if report.cost:
        how.append(german.money(report.cost, report.currency))
    same = {True: "identisch mit dem Original", False: "weicht ab", None: "Prüfsumme fehlt"}[report.file_same]
    pixels = f"{report.width} \N{MULTIPLICATION SIGN} {report.height}"
    facts = [
        ("Bibliothek", report.library if mixed else ""),
        ("Abgelegt als", f"{item.name} ({german.OUTCOMES.get(item.outcome, item.outcome)})"),
        ("Datei", f"{german.size(report.size)}, {pixels}, {same}"),
        ("Kamera", report.camera or ""),
        ("Aufgenommen", german.iso(report.taken_at or "", where, with_time=True)),
        ("Analyse", ", ".join(how)),
        ("Geprüft", german.moment(report.checked_at, where)),
        ("Schritte", " · ".join(_step(step.agent, step.seconds, step.attempts) for step in report.steps)),
        ("Quelle", report.source),
        ("Foto-Kennung", report.photo_id),
    ]
    return [(label, text) for label, text in facts if text]


def _step(agent: str, seconds: float, attempts: int) -> str:
    """Describe one agent's time in words."""
    tries = f" ({attempts} Versuche)" if attempts > 1 else ""
    return f"{german.AGENTS.get(agent, agent)} {german.duration(seconds)}{tries}"
