"""Checks CloudEvents attributes by the letter of CloudEvents 1.0.2."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Final

from .limits import MAX_SOURCE

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

SPEC_VERSION: Final = "1.0"
MAX_EXTENSIONS: Final = 40
"""Extension attributes of one event: an entry has at most 64 fields, and ours need some of them."""

_NAME: Final = re.compile(rb"[a-z0-9]+")
_TIMESTAMP: Final = re.compile(
    rb"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    rb"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)\Z"
)
_STRUCTURED: Final = re.compile(rb'\s*\{.*"specversion"\s*:', re.DOTALL)
_URI_REFERENCE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")


def carried(pairs: Mapping[bytes, bytes], known: Container[bytes]) -> tuple[bytes, ...]:
    """Return the unknown attributes that travel on, name and value in turn.

    Another name than a-z 0-9 (§ Naming Conventions) would make our own event one that libraries refuse.
    """
    return tuple(
        part
        for name, value in pairs.items()
        if name not in known and _NAME.fullmatch(name)
        for part in (name, value)
    )


def refuse_extras(extras: Mapping[str, str], *, known: frozenset[bytes]) -> None:
    """Raise ValueError if attributes cannot travel along. `known`: the names that have their own meaning."""
    if len(extras) > MAX_EXTENSIONS:
        raise ValueError(f"the event has {len(extras)} extension attributes; {MAX_EXTENSIONS} are allowed")
    for name in extras:
        if not _NAME.fullmatch(name.encode()):
            raise ValueError(f"the attribute {name[:40]!r} cannot be used: a name has only a-z and 0-9")
        if name.startswith("erni") or (name.encode() in known and name != "dataschema"):
            raise ValueError(f"the attribute {name[:40]!r} is written by this system: leave it out")


def is_timestamp(text: str) -> bool:
    """Return whether a text is an RFC 3339 timestamp, as the attribute `time` has to be."""
    return text.isascii() and _is_timestamp(text.encode())


def submission_error(pairs: Mapping[bytes, bytes]) -> str | None:
    """Return what is wrong with the `specversion` or the `time` of a submission; None if nothing is."""
    if pairs.get(b"ernionce", b"").startswith(b"sha256:"):
        # our own publisher wrote it
        return None
    version = pairs.get(b"specversion")
    if version is not None and version != b"1.0":
        shown = version[:40].decode("utf-8", "replace")
        return f"specversion {shown!r} is not supported: write a CloudEvents {SPEC_VERSION} event"
    time = pairs.get(b"time")
    if time is not None and not _is_timestamp(time):
        shown = time[:40].decode("utf-8", "replace")
        return f"time {shown!r} is no RFC 3339 timestamp: write 2026-05-12T10:30:00Z, or leave it out"
    return None


def _is_timestamp(value: bytes) -> bool:
    found = _TIMESTAMP.match(value)
    # the 31st of a month that has 30 days; only these days need a calendar
    return bool(found) and (value[8:10] <= b"28" or _in_calendar(value[:10]))


def _in_calendar(day: bytes) -> bool:
    try:
        date.fromisoformat(day.decode())
    except ValueError:
        return False
    return True


def structured_hint(pairs: Mapping[bytes, bytes]) -> str:
    """Return a hint if a field holds a whole CloudEvent in structured mode; '' if none does."""
    for name, value in pairs.items():
        if _STRUCTURED.match(value[:65_536]):
            field = name[:40].decode("utf-8", "replace")
            return (
                f"the field `{field}` holds a whole CloudEvent (structured mode):"
                " write its attributes as fields of the entry, and only its `data` into the field `data`"
            )
    return ""


def source(text: str) -> str:
    """Check the source of an event, a URI reference (RFC 3986), and return it. Raises ValueError."""
    if len(text) > MAX_SOURCE or not _URI_REFERENCE.fullmatch(text):
        raise ValueError(
            f"source {text[:80]!r} is no URI reference of 1 to {MAX_SOURCE} characters: write urn:camera-app,"
            " or an address without spaces"
        )
    return text
