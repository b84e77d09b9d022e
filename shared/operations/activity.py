"""Keeps the audit trail: who did what to the pipeline, by console, HTTP or command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from events.connection import call
from shared.operations import scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

ACTIVITY: Final = "erni:activity"
"""Stream: one entry for each thing that somebody did, oldest first."""
KEPT: Final = 100_000
"""Entries that are kept, about; the oldest ones go."""


class Person(msgspec.Struct, frozen=True):
    """Who does something: the name of a key, or a user at a machine; and the role."""

    name: str
    role: str


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did."""

    id: str
    """Entry id."""
    at: float
    """Unix time in seconds."""
    who: Person
    action: str
    """Such as ``replay``, ``pause`` or ``key add``."""
    what: str = ""
    """What it was done to: an agent, a session, the name of a key."""
    operation: str = ""
    """The id of the operation that it started, stopped or resumed, if it is one."""


async def note(redis: Redis, who: Person, action: str, what: str = "", *, operation: str = "") -> str:
    """Add an entry and return its id. Raises what redis-py raises when Redis is away."""
    fields = [
        "who",
        who.name,
        "role",
        who.role,
        "action",
        action,
        "what",
        what[:1000],
        "operation",
        operation,
    ]
    entry_id = await scripts.write(redis, "XADD", ACTIVITY, "MAXLEN", "~", KEPT, "*", *fields)
    return str(entry_id.decode())


async def noted(redis: Redis, who: Person | None, action: str, what: str) -> None:
    """Add an entry if somebody is named. Raises what redis-py raises."""
    if who is not None:
        await note(redis, who, action, what)


async def newest(redis: Redis, *, most: int, before: str = "") -> list[Activity]:
    """Return the newest entries, the newest first; `before`: only those older than that id."""
    found = await call(redis, "XREVRANGE", ACTIVITY, f"({before}" if before else "+", "-", "COUNT", most)
    return [_read(entry_id, flat) for entry_id, flat in found]


async def latest_id(redis: Redis) -> str:
    """Return the id of the newest entry, '' if there is none."""
    found = await call(redis, "XREVRANGE", ACTIVITY, "+", "-", "COUNT", 1)
    return str(found[0][0].decode()) if found else ""


def _read(entry_id: bytes, flat: list[bytes]) -> Activity:
    fields = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    place = entry_id.decode()
    return Activity(
        id=place,
        at=int(place.partition("-")[0]) / 1000,
        who=Person(fields.get("who", ""), fields.get("role", "")),
        action=fields.get("action", ""),
        what=fields.get("what", ""),
        operation=fields.get("operation", ""),
    )
