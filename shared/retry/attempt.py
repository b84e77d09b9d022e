"""Defines a failed attempt, apart from the policy: readers of dead letters need no HTTP client."""

from __future__ import annotations

import msgspec


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one failed attempt."""

    at: float
    """Unix time in seconds when it failed."""
    error_type: str
    message: str
    wait: float | None = None
    """Seconds until the next one; None if it was the last."""
