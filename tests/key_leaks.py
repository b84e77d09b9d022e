"""What a test may leave behind in Redis: keys with a time to live, and those declared permanent here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from events import topology

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

_NAMES: Final = (
    *(re.escape(stream) for stream in topology.STREAMS),  # an emptied stream stays, for its consumer group
    r"(archive|beats|dead|dead-counts|dead-causes|delayed|processes):[a-z_]+",
    r"session:(open|lru|stats)",
    r"activity",
    r"keys(:used)?",
    r"operations",
    r"\{webhooks\}(:wh_[0-9a-f]+)?",
    r"paused",
    r"refused",
    r"system",
)
PERMANENT: Final = re.compile(r"erni:(\{[0-9]+\}:)?(" + "|".join(_NAMES) + ")")
"""Every key that may stay for ever, with or without the tag of its lane."""


def leaked_keys(client: redis.Redis, allowed: Iterable[str] = ()) -> list[str]:
    """Keys without a time to live that nobody declared; `allowed` are further full-match patterns."""
    patterns = (PERMANENT, *(re.compile(pattern) for pattern in allowed))
    names = [key.decode(errors="replace") for key in client.scan_iter(count=1000)]
    unknown = sorted(name for name in names if not any(pattern.fullmatch(name) for pattern in patterns))
    return [name for name in unknown if client.ttl(name) == -1]


def open_connections(client: redis.Redis) -> list[str]:
    """The connections beside this one, each with its name and last command."""
    own = client.client_id()
    return [
        f"{other['addr']} name={other['name'] or '-'} last command={other['cmd']}"
        for other in client.client_list()
        if int(other["id"]) != own
    ]
