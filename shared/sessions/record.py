"""Defines a session and reads it from its hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from events import topology
from events.identities import SessionId

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNTERS: Final = ("received", *topology.AGENTS, "validated", "dead", "postponed")
"""Progress counters. Only settle, due and replay scripts move them: they are exactly-once as the hand-off."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one session. Times are Unix seconds of the server's clock."""

    session_id: SessionId
    created_at: float
    last_accessed: float
    access_count: int = 0
    site: str = ""
    library: str = ""
    expected: int = 0
    """Photos in it, as its publisher said; 0 if nobody did."""
    status: str = "open"
    """open, or completed: every expected photo has ended"""
    completion: int = 0
    """How often it has completed."""
    counters: dict[str, int] = {}

    @property
    def ended(self) -> int:
        """Count the photos that are validated or dead."""
        return self.counters.get("validated", 0) + self.counters.get("dead", 0)

    @property
    def in_flight(self) -> int:
        """Count the photos known to be in flight: received and not ended, or postponed before received."""
        return max(0, self.counters.get("received", 0) - self.ended, self.counters.get("postponed", 0))

    @property
    def finished(self) -> bool:
        """Return whether no photo is awaited: such sessions may be evicted."""
        return self.in_flight == 0 and self.ended >= self.expected


def read_session(fields: Mapping[bytes, bytes], session_id: SessionId) -> Session | None:
    """Read a session from its hash; return None if it is foreign or corrupt: it counts as absent."""
    try:
        text = {name.decode(): value.decode() for name, value in fields.items()}
        if text["session_id"] != session_id:
            return None
        return Session(
            session_id=session_id,
            created_at=int(text["created_at"]) / 1000,
            last_accessed=int(text["last_accessed"]) / 1000,
            access_count=int(text["access_count"]),
            site=text.get("site", ""),
            library=text.get("library", ""),
            expected=int(text.get("expected", "0")),
            status=text.get("status", "open"),
            completion=int(text.get("completion", "0")),
            counters={name: int(text[name]) for name in COUNTERS if name in text},
        )
    except (KeyError, ValueError, OverflowError):
        return None
