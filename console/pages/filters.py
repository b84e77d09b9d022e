"""Reads a filter of dead letters out of an address, and writes it into one: it is kept after an action."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from console import durations
from console.pages import exports
from console.pages.guard import RefusedError
from console.pages.rendering import agent_name
from events import topology
from shared.operations import letter_names
from shared.operations.dead_letters import DeadFilter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from console.pages.texts import Texts
    from shared.delivery.dead_letter import DeadLetter
    from shared.operations.dead_letters import DeadLetters

_NAMES: Final = ("session", "photo")
"""Conditions that people type, of which they may know only a part."""
_TEXTS: Final = ("id", "reason", "error_type", "fingerprint", "session", "photo", "trace")


class WrongAgeError(RefusedError):
    """Raised for an age that is neither a duration nor a time; the rest of the filter is fine."""

    def __init__(self, text: str, rest: DeadFilter) -> None:
        """`rest`: the filter without its ages."""
        super().__init__("filter.wrong_age", given=text[:40])
        self.rest = rest


def filter_in(query: Mapping[str, str], zone: tzinfo) -> DeadFilter:
    """Return the filter of an address. Raises RefusedError for a value that means nothing.

    `zone`: of the site, in which people read the times of the pages and write those that name no zone.
    """
    agent = query.get("agent") or None
    if agent is not None and agent not in topology.CONSUMERS:
        raise RefusedError("error.address")
    texts: dict[str, str | None] = {name: query.get(name, "").strip() or None for name in _TEXTS}
    exports.entry_id(texts["id"] or "")
    plain = msgspec.convert({"agent": agent, **texts}, DeadFilter)
    older, newer = (_age(query.get(name, ""), zone, plain) for name in ("older_than", "newer_than"))
    return msgspec.structs.replace(plain, older_than=older, newer_than=newer)


def _age(text: str, zone: tzinfo, rest: DeadFilter) -> float | None:
    """Return seconds before now: of a duration, or of a moment. Raises WrongAgeError."""
    now = time.time()
    try:
        return now - durations.moment(text, now, zone) if text.strip() else None
    except (ValueError, OverflowError):
        raise WrongAgeError(text, rest) from None


async def resolved(
    query: Mapping[str, str], letters: DeadLetters, *, archived: bool
) -> dict[str, str] | None:
    """Return the query that means what a person typed into the form; None if the form was not sent.

    A whole name means only itself, so that "tour-1" does not mean "tour-12"; anything else is a part of one.
    """
    if not any(f"{name}_like" in query for name in _NAMES):
        return None
    plain = {name: text for name, text in query.items() if not name.endswith("_like") and text.strip()}
    for name in _NAMES:
        if text := query.get(f"{name}_like", "").strip():
            whole = msgspec.convert({name: text, "limit": 1}, DeadFilter)
            is_whole = await letters.count(whole, archived=archived)
            plain[name] = text if is_whole else letter_names.containing(text)
    return plain


def query_of(wanted: DeadFilter) -> dict[str, object]:
    """Return the query of an address that means a filter."""
    query: dict[str, object] = {
        name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None
    }
    for name in ("older_than", "newer_than"):
        if name in query:
            query[name] = f"{float(str(query[name])):.0f}s"
    query.pop("limit", None)
    return query


async def example(letters: DeadLetters, wanted: DeadFilter, *, archived: bool = False) -> DeadLetter | None:
    """Return a dead letter by which a condition can be named that is an id or a fingerprint."""
    if wanted.id is not None:
        return await letters.get(wanted.id, agent=wanted.agent, archived=archived)
    if wanted.fingerprint is None:
        return None
    alike = DeadFilter(agent=wanted.agent, fingerprint=wanted.fingerprint)
    groups = await letters.groups(alike, archived=archived)
    return next((letter for group in groups for letter in group.newest), None)


def cause_text(texts: Texts, letter: DeadLetter) -> str:
    """Return what happened, in words that need no knowledge of the system."""
    if letter.cause and texts.has(f"cause.{letter.cause}"):
        return texts(f"cause.{letter.cause}")
    return texts(f"reason.{letter.reason}.long")


def described(texts: Texts, wanted: DeadFilter, letter: DeadLetter | None = None) -> list[tuple[str, str]]:
    """Return the conditions of a filter in words: what, and which.

    `letter`: an `example`, in whose words the id of an entry and the fingerprint of a cause are said.
    """
    conditions = []
    for name, value in query_of(wanted).items():
        what, shown = texts(f"filter.{name}"), str(value)
        if name == "agent":
            shown = agent_name(texts, shown)
        elif name == "reason" and texts.has(f"reason.{shown}"):
            shown = texts(f"reason.{shown}")
        elif name in _NAMES and (part := letter_names.within(shown)) != shown:
            shown = texts("filter.contains", part=part)
        elif name == "fingerprint" and letter is not None:
            # what to do stands with the letters
            shown = cause_text(texts, letter).partition(". ")[0].rstrip(".")
        elif name == "id" and letter is not None:
            what, shown = texts("dead.photo"), letter.file_name or letter.photo_id or letter.id
        conditions.append((what, shown))
    return conditions
