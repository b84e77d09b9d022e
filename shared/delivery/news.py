"""Defines the messages to a lane's reader, which it handles before it reads on."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec


class GroupLost(msgspec.Struct, frozen=True):
    """Report that the consumer group is missing, after a flush, a deletion, or a failover."""


class Stalled(msgspec.Struct, frozen=True):
    """Report that this process stood still for half a lease: others may have taken over from it."""


class Neighbours(msgspec.Struct, frozen=True):
    """Report what the last heartbeat saw of the agent's other consumers."""

    dead: tuple[tuple[str, str], ...]
    """Consumers whose counters stood still for a lease, and these counters."""
    returned: int
    """Entries that wait with the consumer `returned`."""


class Paused(msgspec.Struct, frozen=True):
    """Report that operators paused or resumed the agent."""

    paused: bool


Message: TypeAlias = GroupLost | Stalled | Neighbours | Paused
News: TypeAlias = deque[Message]
"""Heartbeat and settlers append, the reader alone takes. It turns at least every quarter of a lease."""
