"""Writes numbers and times as readers of both languages do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from shared.reports import german

if TYPE_CHECKING:
    from datetime import tzinfo

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
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
    """Write a moment with its zone: only the time for today, else with the date."""
    when, now = datetime.fromtimestamp(unix, where), datetime.fromtimestamp(time.time(), where)
    if when.date() == now.date():
        return f"{when:%H:%M:%S} {zone_name(when, language)}"
    day = f"{when:%d.%m.%Y}" if language == "de" else f"{when.day} {_MONTHS[when.month - 1]} {when.year}"
    return f"{day} {when:%H:%M} {zone_name(when, language)}"


def zone_name(when: datetime, language: str) -> str:
    """Return the short name of a moment's zone as readers of the language know it: CET, in German MEZ."""
    name = when.strftime("%Z")
    return german.ZONES.get(name, name) if language == "de" else name


def exact(unix: float, where: tzinfo) -> str:
    """Write a moment whole, for a tool tip: with its offset from UTC, and the name of the zone."""
    return f"{datetime.fromtimestamp(unix, where).isoformat(sep=' ', timespec='seconds')} ({where})"


def iso(unix: float, where: tzinfo) -> str:
    """Write a moment for the attribute ``datetime`` (HTML, "global date and time")."""
    return datetime.fromtimestamp(unix, where).isoformat(timespec="seconds")
