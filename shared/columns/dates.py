"""Converts dates and times to what columns take, counted in the site's time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from shared.columns.schema import Column

NOON = time(12)


def moment(text: str, zone: str) -> datetime | None:
    """Read an RFC 3339 date or date and time as a point in time; None if it is neither.

    Without an offset it is local time in `zone` (IANA name). A bare date means its noon there, which is
    that day in every other zone people photograph in.
    """
    try:
        parsed = datetime.fromisoformat(text.strip())
        if len(text.strip()) <= len("2024-05-12"):
            parsed = datetime.combine(date.fromisoformat(text.strip()), NOON)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=ZoneInfo(zone))


def as_value(column: Column, when: datetime, zone: str) -> str:
    """Convert `when`: the day in the site's zone for ``date``, UTC for ``date_time``, else text."""
    local = when.astimezone(ZoneInfo(zone))
    match column.kind:
        case "date":
            return local.date().isoformat()
        case "date_time":
            return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case _:
            return local.strftime("%d.%m.%Y")
