"""Writes a session's report as one HTML page, from its photos' reports and its dead letters."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from events.identities import PhotoId, SessionId, StoreUrl
from events.types import PhotoInShort, Record
from shared.photos.decoders import Decoders
from shared.reports import german, headline
from shared.reports.cards import card, link
from shared.reports.page import Bar, CostView, DeadView, Page, render
from shared.reports.photo_report import photos_of_session, session_prefix
from shared.reports.thumbnail import thumbnail
from shared.reports.totals import agent_times, is_local, is_undescribed, model_costs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo

    from events.identities import Sha256
    from shared.photo_store import BlobStore
    from shared.reports.facts import DeadPhoto, SessionFacts
    from shared.reports.photo_report import PhotoReport

_READS_AT_ONCE = 32
_ORDER = {"check": 0, "diff": 1, "ok": 2}


class WrittenReport(Record, frozen=True, kw_only=True):
    """Describe a session's report after it was written."""

    report_ref: StoreUrl
    size: int
    """Bytes of the page."""
    validated: int
    dead: int
    needs_person: list[PhotoInShort]
    dead_photos: list[PhotoInShort]


def report_key(session_id: SessionId) -> str:
    """Return the key of a session's page. A later completion overwrites the page."""
    return f"{session_prefix(session_id)}report.html"


async def write_session_report(
    store: BlobStore, facts: SessionFacts, dead: Sequence[DeadPhoto], *, jaeger_url: str = ""
) -> WrittenReport:
    """Gather what is in the store about a session and write its page, complete or not.

    Makes the missing thumbnails. A thread builds the page.
    """
    reports = await photos_of_session(store, facts.session_id)
    thumbnails = await _thumbnails(store, reports)
    html = await asyncio.to_thread(_build, facts, reports, thumbnails, dead, jaeger_url, time.time())
    reference = await store.replace(report_key(facts.session_id), html)
    return WrittenReport(
        report_ref=reference,
        size=len(html),
        validated=len(reports),
        dead=len(dead),
        needs_person=[
            PhotoInShort(
                photo_id=report.photo_id,
                file_name=report.file_name or report.item.name,
                reason="; ".join(f"{need.column}: {need.reason}" for need in report.needs_person),
            )
            for report in reports
            if report.verdict == "needs_person"
        ],
        dead_photos=[
            PhotoInShort(
                photo_id=PhotoId(letter.photo_id) if letter.photo_id else None,
                file_name=letter.file_name,
                reason=letter.message,
            )
            for letter in dead
        ],
    )


async def _thumbnails(store: BlobStore, reports: Sequence[PhotoReport]) -> dict[Sha256, bytes]:
    """Return the small pictures of a session's photos, by content."""
    room = asyncio.Semaphore(_READS_AT_ONCE)
    previews = {report.sha256: report.preview_ref for report in reports}

    async def read(sha256: Sha256, preview_ref: StoreUrl) -> bytes | None:
        async with room:
            return await thumbnail(store, decoders, sha256, preview_ref)

    # one photo after the other: a decoder starts only if a thumbnail is missing
    async with Decoders() as decoders:
        found = await asyncio.gather(*(read(sha256, ref) for sha256, ref in previews.items()))
    return {sha256: small for sha256, small in zip(previews, found, strict=True) if small is not None}


def _build(
    facts: SessionFacts,
    reports: Sequence[PhotoReport],
    thumbnails: Mapping[Sha256, bytes],
    dead: Sequence[DeadPhoto],
    jaeger_url: str,
    now: float,
) -> bytes:
    """Return the page's bytes."""
    where = german.zone(reports[0].time_zone if reports else "Europe/Zurich")
    libraries = {report.library: link(report.library_url) for report in reports}
    cards = [
        card(report, place, thumbnails.get(report.sha256), where, jaeger_url, mixed=len(libraries) > 1)
        for place, report in enumerate(reports, 1)
    ]
    cards.sort(key=lambda one: _ORDER[one.state])
    needs = [one for one in cards if one.state == "check"]
    pending = headline.on_their_way(facts, len(reports), len(dead))
    columns = Counter(name for one in cards for name in headline.asked(one))
    return render(
        Page(
            session_id=facts.session_id,
            libraries=sorted(libraries.items()),
            span=headline.span(facts, where),
            complete=facts.completion > 0,
            state=headline.state(facts, len(reports), len(dead), pending),
            notes=headline.disagreements(facts, len(reports), len(dead)) + headline.postponed(facts, where),
            figures=headline.figures(facts, reports, cards, len(dead), pending),
            slices=headline.slices(cards, len(dead), pending),
            needs=needs,
            to_check=headline.to_check(needs),
            columns=columns.most_common(),
            dead=[_dead(letter, where) for letter in dead],
            bars=_bars(reports),
            costs=_costs(reports),
            cards=cards,
            states=headline.states(cards),
            made=german.moment(now, where),
            local_model=any(is_local(report) for report in reports),
            undescribed=_undescribed(reports),
        )
    )


def _dead(letter: DeadPhoto, where: tzinfo) -> DeadView:
    """Describe one dead letter in words. Its message is for the operator and stays as it was written."""
    cause = german.CAUSES.get(letter.cause) or german.DEATHS.get(letter.reason)
    return DeadView(
        title=letter.file_name or letter.photo_id or f"Eintrag {letter.entry_id}",
        photo_id=(letter.photo_id or "") if letter.file_name else "",
        step=german.AGENTS.get(letter.agent, letter.agent),
        reason=cause or letter.reason,
        message=letter.message,
        when=german.moment(letter.failed_at, where) if letter.failed_at else "",
        final=letter.cause in german.FINAL or letter.reason == "undecodable",
    )


def _bars(reports: Sequence[PhotoReport]) -> list[Bar]:
    """Return the chart's lines."""
    times = agent_times(reports)
    longest = max((line.p95 for line in times), default=0.0) or 1.0
    return [
        Bar(
            label=german.AGENTS.get(line.agent, line.agent),
            agent=line.agent,
            median=german.duration(line.median),
            p95=german.duration(line.p95),
            total=german.duration(line.total),
            note=f"mehrere Anläufe: {german.number(line.retried)}" if line.retried else "",
            median_length=round(1000 * line.median / longest, 1),
            p95_length=round(1000 * line.p95 / longest, 1),
        )
        for line in times
    ]


def _undescribed(reports: Sequence[PhotoReport]) -> str:
    """Return a sentence about the photos for which a vision service's answer was of no use."""
    count = sum(is_undescribed(report) for report in reports)
    if not count:
        return ""
    photos = "1 Foto" if count == 1 else f"{german.number(count)} Fotos"
    return (
        f"Ohne verwertbare Antwort der Bildanalyse: {photos}. Die Antwort war nicht lesbar, oder das Modell"
        " war sich bei keiner Spalte sicher; die Angaben dieser Fotos stammen nicht aus dem Bild. Tokens und"
        " Kosten fielen trotzdem an."
    )


def _costs(reports: Sequence[PhotoReport]) -> list[CostView]:
    """Return the cost table's lines."""
    return [
        CostView(
            model=line.model,
            photos=german.number(line.photos),
            cached=german.number(line.cached),
            tokens=german.number(line.prompt_tokens + line.completion_tokens),
            cost=headline.NOTHING if line.cost is None else german.money(line.cost, line.currency),
        )
        for line in model_costs(reports)
    ]
