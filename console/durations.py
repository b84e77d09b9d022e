"""Durations and moments as people type and read them: ``10m``, ``2h``, times UTC unless they carry a zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_LONGEST = 365_000 * 86_400.0
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_DURATION = re.compile(f"(?:{_PART.pattern})+")
_RULE = "give a number with a unit, such as 30s, 10m, 2h, 1d or 1h30m"


def seconds(text: str) -> float:
    """A duration in seconds. Raises ValueError with what is allowed."""
    text = text.strip()
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no duration: {_RULE}")
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if total > _LONGEST:
        raise ValueError(f"{text[:40]!r} is too long: at most 365000d")
    return total


def span(text: str) -> float:
    """A duration above nothing, in seconds. Raises ValueError with what is allowed."""
    if not (length := seconds(text)):
        raise ValueError(f"{text[:40]!r} is no time at all: {_RULE}")
    return length


def moment(text: str, now: float, zone: tzinfo = UTC) -> float:
    """A point in time as Unix seconds: a duration means so long before `now`. Raises ValueError.

    `zone`: of a time that names none.
    """
    if _DURATION.fullmatch(text.strip()):
        return now - seconds(text)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is neither a duration (30s, 10m, 2h, 1d) nor a time (2026-05-12T10:30, UTC"
            " unless it says otherwise)"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()


def per_second(text: str) -> float:
    """A rate such as ``5/s``, ``100/m`` or ``5``, in events per second. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(s|m|h))?", text.strip())
    if not found or not float(found[1]):
        raise ValueError(f"{text[:40]!r} is no rate: give a number above 0 per unit, such as 5/s or 100/m")
    return float(found[1]) / _UNITS[found[2] or "s"]


def short(duration: float | None) -> str:
    """A duration in seconds in at most five characters: ``40ms``, ``1.2s``, ``12s``, ``3m20``, ``2h05``."""
    if duration is None:
        return "-"
    if duration < 0.9995:
        return f"{max(duration, 0) * 1000:.0f}ms"
    if duration < 9.95:
        return f"{duration:.1f}s"
    whole = round(duration)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86_400}d"


def clock(unix: float | None) -> str:
    """A point in time for people, UTC: ``2026-05-12 10:30:05Z``."""
    if not unix:
        return "-"
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
