"""Reads ``Retry-After``, as every service of the web writes it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


LONGEST: Final = 24 * 3600.0
"""Seconds. A photo waits a day at most, so a longer wait is cut to this."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the seconds from now in ``Retry-After``, which is a number or an HTTP date (RFC 9110, 10.2.3).

    Returns at most `LONGEST`; None if the header is missing or unreadable.
    """
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        return bounded(float(text))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return bounded((when - datetime.now(UTC)).total_seconds())


def bounded(seconds: float) -> float:
    """Bound a wait that somebody asked for to 0 to `LONGEST`. Raises ValueError for NaN."""
    if math.isnan(seconds):
        raise ValueError("not a number")
    return min(max(seconds, 0.0), LONGEST)
