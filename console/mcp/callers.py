"""Knows who calls the tools: the key of the gateway in ERNI_KEY decides, without one it is a viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from console.errors import CommandError
from shared.operations import access_keys
from shared.operations.access_keys import Role

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.operations.access_keys import Uses

ENVIRONMENT: Final = "ERNI_KEY"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, with the role that the key has over HTTP, too."""

    role: Role = "viewer"
    source: str = ""
    """The source of a publisher, which sees what it published and nothing else."""

    @property
    def sees_all(self) -> bool:
        """Return whether the caller sees what every source published."""
        return self.role != "publisher"

    def may_see(self, source: str | None) -> bool:
        """Return whether the caller sees what a source published; None: nobody knows which one."""
        return self.sees_all or source == self.source


async def caller_of(redis: Redis, key: str, uses: Uses) -> Caller:
    """Return who has a key; '' is a viewer. Raises CommandError for an unknown key, and what redis-py raises.

    Asked at every call: a key that was removed opens nothing any more. `uses` notes that it is used.
    """
    if not key:
        return Caller()
    record = await access_keys.find(redis, key)
    if record is None:
        raise CommandError(
            f"the key in {ENVIRONMENT} is not known: it is misspelt, or it was removed (erni key list shows"
            " all there are)"
        )
    await uses.note(record.name)
    return Caller(role=record.role, source=record.source)
