"""Keeps the budget of resource units per minute, and the headers in which SharePoint reports it.

Source: "Avoid getting throttled or blocked in SharePoint Online": 1 unit for a single item, delta with a
token and a download, 2 for listing and writing, 5 for permissions; ``RateLimit-*`` headers once 80 % are
used; throttled calls count too.
"""

from __future__ import annotations

import math
import time
from typing import Final

from sandbox.sharepoint.errors import GraphError

_WINDOW: Final = 60.0
_TELL_FROM: Final = 0.8


class Budget:
    """Resource units of the running minute; `limit` 0 means no limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        """Units since the start, whatever the limit is."""
        self._started = time.monotonic()
        self._used = 0

    def spend(self, units: int) -> None:
        """Take units for a request. Raises GraphError 429 once the minute's are used up."""
        self.spent += units
        if not self.limit:
            return
        now = time.monotonic()
        if now - self._started >= _WINDOW:
            self._started, self._used = now, 0
        self._used += units
        if self._used > self.limit:
            raise throttled(self._reset())

    def headers(self) -> dict[str, str]:
        """``RateLimit-*`` once four fifths are used."""
        if not self.limit or self._used < _TELL_FROM * self.limit:
            return {}
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(self.limit - self._used, 0)),
            "RateLimit-Reset": str(self._reset()),
        }

    def _reset(self) -> int:
        return max(math.ceil(self._started + _WINDOW - time.monotonic()), 1)


def cost(method: str, action: str, *, has_token: bool) -> int:
    """The units of a request. `action`: what is wanted of the target; `has_token`: of a delta."""
    if action in ("permissions", "permissions/"):
        return 5
    if method != "GET" or action in ("children", "items", "lists", "drives", "columns", "versions"):
        return 2
    return 1 if action != "delta" or has_token else 2


def throttled(seconds: float) -> GraphError:
    """429 with ``Retry-After``."""
    return GraphError(
        429,
        "activityLimitReached",
        "The request has been throttled",
        "throttledRequest",
        headers={"Retry-After": f"{seconds:g}"},
    )
