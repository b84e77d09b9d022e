"""Makes the top of a session's page: how many photos, in which state, how long and how much."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from shared.reports import german
from shared.reports.page import Figure, Slice
from shared.reports.totals import is_local, model_costs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from shared.reports.cards import Card
    from shared.reports.facts import SessionFacts
    from shared.reports.photo_report import PhotoReport

NOTHING: Final = "\N{EN DASH}"
"""Stands where a number is not known."""


def on_their_way(facts: SessionFacts, validated: int, dead: int) -> int:
    """Count the photos still on their way, if it is known how many there are."""
    return 0 if facts.completion else max(facts.photos - validated - dead, 0)


def span(facts: SessionFacts, where: tzinfo) -> str:
    """Return from when to when."""
    if facts.created_at is None:
        return ""
    start, end = german.moment(facts.created_at, where), facts.completed_at
    if end is None:
        return f"seit {start}"
    ended = german.moment(end, where)
    if ended[:10] != start[:10]:
        return f"{start} bis {ended}"
    # the zone once, unless the clocks were changed in between
    zone = ended.rpartition(" ")[2]
    return f"{start.removesuffix(f' {zone}')} bis {german.clock(end, where)}"


def state(facts: SessionFacts, validated: int, dead: int, pending: int) -> str:
    """Return a sentence about whether all photos are through."""
    done = f"{german.number(validated)} geprüft, {german.number(dead)} gescheitert"
    if facts.completion:
        again = f" Das ist der {facts.completion}. Abschluss dieser Sitzung." if facts.completion > 1 else ""
        return f"Alle Fotos dieser Sitzung sind durch: {done}.{again}"
    if facts.expected:
        of = f"{german.number(pending)} von {german.number(facts.photos)} Fotos"
        return f"Noch unterwegs: {of}; {done}."
    told = f"noch unterwegs: {german.number(pending)}; " if pending else ""
    return f"Wie viele Fotos die Sitzung hat, ist nicht angegeben; {told}{done}."


def postponed(facts: SessionFacts, where: tzinfo) -> list[str]:
    """Return a sentence for each photo that was postponed: why, after how many attempts, until when."""
    return [
        f"{photo.name} ist zurückgestellt und kommt wieder am {german.moment(photo.until, where)}"
        f" ({german.AGENTS.get(photo.agent, photo.agent)}, {german.number(photo.attempts)}"
        f" {'Anlauf' if photo.attempts == 1 else 'Anläufe'}): {photo.reason}"
        for photo in facts.postponed
    ]


def disagreements(facts: SessionFacts, validated: int, dead: int) -> list[str]:
    """Return a sentence for each counter that disagrees with the reports."""
    found = []
    for word, counter, listed in (("geprüft", "validated", validated), ("gescheitert", "dead", dead)):
        counted = facts.counters.get(counter, listed)
        if facts.completion and counted != listed:
            found.append(
                f"Gezählt wurden {german.number(counted)} Einträge als {word}, hier stehen"
                f" {german.number(listed)} Fotos: Dasselbe Foto kann mehrmals eingereicht, ein Bericht"
                " gelöscht oder ein Eintrag seit dem Abschluss wiederholt worden sein."
            )
    return found


def figures(
    facts: SessionFacts, reports: Sequence[PhotoReport], cards: Sequence[Card], dead: int, pending: int
) -> list[Figure]:
    """Return the headline's numbers."""
    counts = Counter(one.state for one in cards)
    differing = sum(1 for one in cards if one.differences)
    found = [
        Figure(label="Fotos", value=german.number(len(cards) + dead + pending)),
        Figure(label="In Ordnung", value=german.number(counts["ok"] + counts["diff"]), tone="ok"),
        Figure(
            label="Bitte prüfen",
            value=german.number(counts["check"]),
            note=_to_do(sum(map(len, map(needed, cards))), sum(len(one.open) for one in cards)),
            tone="check",
        ),
        Figure(label="Gescheitert", value=german.number(dead), tone="dead"),
    ]
    if pending:
        found.append(Figure(label="Unterwegs", value=german.number(pending), tone="wait"))
    found.append(
        Figure(
            label="Abweichungen",
            value=german.number(differing),
            note="gesendet ≠ gespeichert" if differing else "",
            tone="diff",
        )
    )
    if facts.created_at is not None and facts.completed_at is not None:
        seconds = max(facts.completed_at - facts.created_at, 0.0)
        each = german.duration(seconds / max(len(cards) + dead, 1))
        found.append(Figure(label="Dauer", value=german.duration(seconds), note=f"{each} je Foto"))
    found.append(_cost_figure(reports))
    return found


def asked(one: Card) -> set[str]:
    """Return the columns of a card that need a person."""
    return {name for reason in one.reasons for name in reason.columns} if one.state == "check" else set()


def needed(one: Card) -> set[str]:
    """Return the columns for which a photo has the verdict that it needs a person."""
    return asked(one) - {name for name, _ in one.open}


def to_check(cards: Sequence[Card]) -> str:
    """Return how many photos need a person, and how many only have columns that are still open."""
    people = [columns for one in cards if (columns := needed(one))]
    left_open = [one.open for one in cards if one.open]
    found = []
    if people:
        verb = "braucht" if len(people) == 1 else "brauchen"
        found.append(f"Einen Menschen {verb} {_photos(len(people))} ({_fields(sum(map(len, people)))}).")
    if left_open:
        count = sum(map(len, left_open))
        words = sorted({f"«{word}»" for these in left_open for _, word in these})
        verb = "steht" if count == 1 else "stehen"
        found.append(
            f"Noch auf {' oder '.join(words)} {verb} {_fields(count)} von {_photos(len(left_open))}."
        )
    return " ".join(found)


def _to_do(people: int, left_open: int) -> str:
    """Return how many fields need a person, and how many are open."""
    still = f"{german.number(left_open)} noch offen" if left_open else ""
    return ", ".join(filter(None, (_fields(people), still)))


def _photos(count: int) -> str:
    return "1 Foto" if count == 1 else f"{german.number(count)} Fotos"


def _fields(count: int) -> str:
    return "" if not count else "1 Feld" if count == 1 else f"{german.number(count)} Felder"


def _cost_figure(reports: Sequence[PhotoReport]) -> Figure:
    """Return what the vision calls cost, as far as prices are known."""
    by_currency: dict[str, list[float]] = {}
    for report in reports:
        if report.cost is not None:
            by_currency.setdefault(report.currency, []).append(report.cost)
    tokens = sum(line.prompt_tokens + line.completion_tokens for line in model_costs(reports))
    note = f"{german.number(tokens)} Tokens" if tokens else ""
    spent = [german.money(math.fsum(costs), currency) for currency, costs in by_currency.items()]
    if spent:
        return Figure(label="Kosten", value=" + ".join(spent), note=note)
    return Figure(label="Kosten", value=NOTHING, note=note or _priceless(reports))


def _priceless(reports: Sequence[PhotoReport]) -> str:
    """Return why nothing is known of the cost."""
    if reports and all(is_local(report) for report in reports):
        return "lokale Analyse"
    return "Preis nicht bekannt" if reports else ""


def slices(cards: Sequence[Card], dead: int, pending: int) -> list[Slice]:
    """Return the parts of the headline's bar."""
    counts = Counter(one.state for one in cards)
    parts = [
        ("ok", counts["ok"] + counts["diff"], "in Ordnung"),
        ("check", counts["check"], "bitte prüfen"),
        ("dead", dead, "gescheitert"),
        ("wait", pending, "unterwegs"),
    ]
    total = sum(count for _, count, _ in parts)
    found, start = [], 0.0
    for tone, count, word in parts:
        if count:
            length = 1000 * count / total
            found.append(
                Slice(
                    tone=tone,
                    start=round(start, 2),
                    length=round(length, 2),
                    label=f"{german.number(count)} {word}",
                )
            )
            start += length
    return found


def states(cards: Sequence[Card]) -> list[tuple[str, str, int]]:
    """Return the filter's buttons."""
    counts = Counter(one.state for one in cards)
    return [
        ("all", "Alle", len(cards)),
        ("check", "Bitte prüfen", counts["check"]),
        ("diff", "Abweichungen", sum(1 for one in cards if one.differences)),
        ("ok", "In Ordnung", counts["ok"] + counts["diff"]),
    ]
