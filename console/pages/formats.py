"""Writes numbers and times as readers of both languages do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from datetime import tzinfo

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def number(value: float, language: str) -> str:
    """Write a number in groups of three: ``12,345``; in German with apostrophes, as the Swiss do."""
    text = f"{value:,.0f}"
    return text.replace(",", "\N{RIGHT SINGLE QUOTATION MARK}") if language == "de" else text


def rate(per_second: float, language: str) -> str:
    """Write a rate a minute, with a decimal below ten."""
    value = per_second * _MINUTE
    return number(value, language) if value >= 10 or value == 0 else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Write a duration: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 3 h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        rest = whole % _MINUTE
        return f"{whole // _MINUTE} min" + (f" {rest} s" if rest and whole < 10 * _MINUTE else "")
    if whole < _DAY:
        rest = whole % _HOUR // _MINUTE
        return f"{whole // _HOUR} h" + (f" {rest} min" if rest else "")
    rest = whole % _DAY // _HOUR
    return f"{whole // _DAY} d" + (f" {rest} h" if rest else "")


def age(seconds: float) -> str:
    """Write how long ago something was: as a duration, without tenths."""
    return duration(seconds) if seconds >= 9.95 else f"{max(seconds, 0):.0f} s"


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name; UTC if the machine has no such zone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def clock(unix: float, language: str, where: tzinfo) -> str:
    """Write a moment: only the time for today, else with the date."""
    when, now = datetime.fromtimestamp(unix, where), datetime.fromtimestamp(time.time(), where)
    if when.date() == now.date():
        return when.strftime("%H:%M:%S")
    if language == "de":
        return when.strftime("%d.%m.%Y %H:%M")
    return when.strftime("%d %b %Y %H:%M")


def exact(unix: float, where: tzinfo) -> str:
    """Write a moment whole, with its zone, for a tool tip."""
    return datetime.fromtimestamp(unix, where).strftime("%Y-%m-%d %H:%M:%S %Z")
