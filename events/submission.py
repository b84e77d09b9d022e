"""The rules for a submission: values that are wrong for every publisher are refused before a send."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from .types import Hints, PhotoSubmitted, Target

SCHEMES: Final = ("http", "https", "file", "store", "sharepoint")
"""Where a photo's bytes may be."""
LONGEST: Final = {
    "target.site": 1024,
    "target.library": 255,
    "hints.project": 255,
    "hints.place": 255,
    "hints.photographer": 255,
    "hints.text": 10_000,
}
"""The longest text of each field, in characters. SharePoint takes 255 in a line of text."""

_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KNOWN: Final = {
    "": frozenset(PhotoSubmitted.__struct_fields__),
    "hints": frozenset(Hints.__struct_fields__),
    "target": frozenset(Target.__struct_fields__),
}
_ADDRESSES: Final = "http:, https:, file:, store: or sharepoint:"
_PLAIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d{1,4})?(?:[/?#].*)?", re.ASCII | re.DOTALL)
"""An address that needs no closer look, as most of them: taking one apart costs more than all other rules."""
# RFC 3339, but for the seconds and the zone, which people leave out
_MOMENT: Final = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(?P<zone>[Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
)
_ZONE: Final = re.compile(r"[Zz]|[+-]([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_YEARS: Final = range(1900, 8901)
"""The years that SharePoint takes in a date column."""


def unknown_fields(data: bytes) -> list[str]:
    """Return the names in a submission's JSON that no field has, such as ``hints.projekt``; at most ten.

    An agent ignores them, because an event of a newer release may have more. Mostly they are typing errors.
    """
    found: list[str] = []
    try:
        fields = _RAW.decode(data)
        found += fields.keys() - _KNOWN[""]
        for part in ("hints", "target"):
            inner = fields.get(part)
            if inner is not None and bytes(inner) != b"null":
                found += (f"{part}.{name}" for name in _RAW.decode(inner).keys() - _KNOWN[part])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # the event's own decoder skips what it does not know, whatever is in it
        return []
    return sorted(name[:40] for name in found)[:10]


def refuse(event: PhotoSubmitted) -> None:
    """Raise ValueError with a sentence if something in the event is wrong, whoever publishes it."""
    source_url(event.source_url)
    if event.expected == 0:
        raise ValueError("expected=0: give the number of photos in the session, or leave it out")
    for part in ("target", "hints"):
        values = getattr(event, part)
        for name in values.__struct_fields__ if values else ():
            value = getattr(values, name)
            # an empty text counts as a missing one
            if value and name != "taken_at":
                text(value, f"{part}.{name}")
    if event.hints and event.hints.taken_at:
        taken_at(event.hints.taken_at)


def source_url(address: str) -> str:
    """Check the address of a photo's bytes and return it. Raises ValueError; its text quotes no secret."""
    scheme, colon, rest = address.partition(":")
    if not address.strip():
        raise ValueError(f"source_url is empty: give an address that begins with {_ADDRESSES}")
    if not colon or scheme.lower() not in SCHEMES:
        what = f"has the scheme {scheme[:20]!r}" if colon else "has no scheme"
        raise ValueError(f"source_url {what}: give an address that begins with {_ADDRESSES}")
    if _PLAIN.fullmatch(address):
        return address
    if scheme.lower() in ("http", "https"):
        # the text of urllib's error may quote the address, and with it a password
        try:
            parts = urlsplit(address)
            host = parts.hostname
        except ValueError:
            host = None
        if not host or host.split() != [host]:
            raise ValueError("source_url names no host: give one, such as https://example.org/a.jpg")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("source_url has a port that is no number from 0 to 65535") from None
    elif not rest.strip("/ "):
        raise ValueError(f"source_url ends after {scheme[:20]}: and names no photo")
    return address


def taken_at(when: str) -> str:
    """Check a date, or a date and time, as RFC 3339 writes them, and return it. Raises ValueError."""
    try:
        found = _MOMENT.fullmatch(when)
        if not found:
            why = "is neither a date nor a time"
        elif found["zone"] and not _ZONE.fullmatch(found["zone"]):
            why = f"has the time zone {found['zone']}, which there is not"
        elif not _kept(datetime.fromisoformat(when.upper())):
            why = "is before 1900 or after 8900, which SharePoint does not take"
        else:
            return when
    except ValueError as error:
        why = f"is in no calendar ({error})"
    raise ValueError(
        f"taken_at {when[:40]!r} {why}: write 2026-05-12, 2026-05-12T10:30, or 2026-05-12T10:30:00+02:00"
    )


def _kept(moment: datetime) -> bool:
    """Return whether SharePoint, which keeps times as UTC, can store it."""
    return moment.year in _YEARS and (moment.tzinfo is None or moment.astimezone(UTC).year in _YEARS)


def text(value: str, name: str) -> str:
    """Check that a text is neither blank nor too long, and return it. Raises ValueError."""
    if not value.strip():
        raise ValueError(f"{name} is blank: write a text, or leave it out")
    limit = LONGEST[name]
    if len(value) > limit:
        raise ValueError(f"{name} has {len(value)} characters; {limit} are allowed")
    return value
