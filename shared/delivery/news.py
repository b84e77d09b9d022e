"""What a lane's reader has to look after before it reads on: messages from the other parts of the lane."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec


class GroupLost(msgspec.Struct, frozen=True):
    """The consumer group is not there: a flush, a deletion, or a failover."""


class Stalled(msgspec.Struct, frozen=True):
    """This process itself stood still for half a lease: others may have taken over from it."""


class Neighbours(msgspec.Struct, frozen=True):
    """What the last heartbeat saw of the agent's other consumers."""

    dead: tuple[tuple[str, str], ...]
    """Consumers whose counters stood still for a lease, and these counters."""
    returned: int
    """Entries that wait with the consumer `returned`."""
    paused: bool
    """Whether operators paused the agent."""


Message: TypeAlias = GroupLost | Stalled | Neighbours
News: TypeAlias = deque[Message]
"""Heartbeat and settlers append, the reader alone takes. It turns at least every quarter of a lease."""
