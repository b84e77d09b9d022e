"""Names every key in Redis, and spreads work over lanes.

One lane (the default) has keys like ``erni:photo.submitted``. With ``LANES=N`` every key carries its lane's
hash tag, ``erni:{1}:photo.submitted`` … ``erni:{N}:…``, so that all keys of a lane lie in one cluster slot
and the atomic scripts work there too.
"""

from __future__ import annotations

import zlib
from typing import Final

RETURNED: Final = "returned"
"""A consumer without a process: released entries wait there for the next taker."""


class Keys:
    """The key names of one lane."""

    __slots__ = ("lane", "paused", "prefix", "refused", "session_lru", "session_open", "session_stats")

    def __init__(self, lane: int | None = None) -> None:
        """`lane` counts from 1; None is the only lane of an installation without lanes."""
        self.lane = lane
        self.prefix = "erni:" if lane is None else f"erni:{{{lane}}}:"
        self.paused = self.prefix + "paused"
        """Hash: agent → since when (Unix seconds) its processes do not read."""
        self.refused = self.prefix + "refused"
        """Counter: publishes refused because the first stream was full."""
        self.session_open = self.prefix + "session:open"
        self.session_lru = self.prefix + "session:lru"
        self.session_stats = self.prefix + "session:stats"
        """Hash: how many sessions were created, evicted, expired, found, not found and corrupt."""

    def stream(self, name: str) -> str:
        """The stream of an event type."""
        return self.prefix + name

    def dead(self, agent: str) -> str:
        """The dead-letter stream of an agent."""
        return f"{self.prefix}dead:{agent}"

    def archive(self, agent: str) -> str:
        """The stream of an agent's discarded dead letters; an entry's id says when it was discarded."""
        return f"{self.prefix}archive:{agent}"

    def operation_progress(self, operation: str) -> str:
        """Hash: how far an operation on many dead letters has come in this lane; expires."""
        return f"{self.prefix}operation-progress:{operation}"

    def dead_counts(self, agent: str) -> str:
        """Hash: reason → how many dead letters of the agent have it."""
        return f"{self.prefix}dead-counts:{agent}"

    def dead_causes(self, agent: str) -> str:
        """Hash: the last id that was counted; each cause → how many dead letters have it, and the newest."""
        return f"{self.prefix}dead-causes:{agent}"

    def delayed(self, agent: str) -> str:
        """The sorted set of an agent's postponed entries, scored by when they are due (ms)."""
        return f"{self.prefix}delayed:{agent}"

    def beats(self, agent: str) -> str:
        """Hash: consumer → its heartbeat counter."""
        return f"{self.prefix}beats:{agent}"

    def processes(self, agent: str) -> str:
        """Hash: consumer → what its process reports about itself (JSON)."""
        return f"{self.prefix}processes:{agent}"

    def marker(self, consumer: str) -> str:
        """The last batch of settlements of a consumer and its replies; expires."""
        return f"{self.prefix}settled:{consumer}"

    def session(self, session_id: str) -> str:
        """Hash: a session and its counters."""
        return f"{self.prefix}session:{session_id}"

    def session_photos(self, session_id: str) -> str:
        """Sorted set: the photo ids of a session by when they were first settled (ms)."""
        return f"{self.prefix}session:{session_id}:photos"

    def session_source(self, session_id: str) -> str:
        """The source that published the session's first photo over HTTP; expires."""
        return f"{self.prefix}session:{session_id}:source"

    def session_first(self, session_id: str) -> str:
        """The session's first event, as its publish noted it: ``<entry id> <source>``; expires."""
        return f"{self.prefix}session:{session_id}:first"

    def photo(self, photo_id: str) -> str:
        """Hash: a photo's way so far; expires."""
        return f"{self.prefix}photo:{photo_id}"

    def adopting(self, agent: str) -> str:
        """Who set it looks for entries of the agent that belong to nobody; expires."""
        return f"{self.prefix}adopting:{agent}"

    def counting(self, agent: str) -> str:
        """Who set it counts the dead letters of the agent; expires."""
        return f"{self.prefix}counting:{agent}"

    def upload(self, name: str) -> str:
        """The address of an upload session that is open (a secret); expires with the session."""
        return f"{self.prefix}upload:{name}"

    def sent(self, source: str, session_id: str) -> str:
        """How many photos the source published into the session without a longer pause; expires.

        The source is percent-encoded, as in the markers.
        """
        return f"{self.prefix}sent:{source}:{session_id}"

    def published(self, event: str) -> str:
        """The marker of an event already published (`events.intake.marker`); expires with the window."""
        return f"{self.prefix}published:{event}"


def all_lanes(lanes: int) -> tuple[Keys, ...]:
    """Return the keys of every lane."""
    return (Keys(),) if lanes == 1 else tuple(Keys(lane) for lane in range(1, lanes + 1))


def lane_of(belongs_to: str, lanes: int) -> Keys:
    """Return the lane of a session id, or of a photo id without session: CRC-32 modulo the lanes."""
    if lanes == 1:
        return Keys()
    return Keys(zlib.crc32(belongs_to.encode()) % lanes + 1)
