"""Counts the dead letters of an agent by their cause, and keeps the counts, so that a list need not read all.

The counts stand in a hash beside the letters: up to which id they were counted, and for each fingerprint how
many there are and which are the newest. Replay and discard take a letter out. Letters that came later are
counted from that id on. Whoever removes letters in another way (an older version of the code, redis-cli)
changes their number and not the counts: where the two differ, all are counted again.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from redis.exceptions import ResponseError

from shared.operations import scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys

PAGE: Final = 500
"""Dead letters that Redis groups at a time: it serves nobody else meanwhile, some ten milliseconds."""
EXAMPLES: Final = 3
"""Ids of the newest dead letters that are known of each cause."""
_PREFIX: Final = b"cause:"
_ID: Final = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)

Causes: TypeAlias = "dict[str, tuple[int, list[str]]]"
"""Fingerprint → how many there are, and the ids of the newest, oldest first."""


async def of_agent(redis: Redis, lane: Keys, agent: str) -> Causes:
    """Return the causes of an agent's dead letters; keep them where a page or more had to be counted.

    Raises what redis-py raises when Redis is away.
    """
    length, newest, kept = await scripts.causes(redis, lane, agent)
    if not length:
        return {}
    last, causes = _read(kept)
    counted = await grouped(redis, lane, agent, newest, after=last, into=causes)
    if not _sound(causes, length):
        causes = {}
        counted = await grouped(redis, lane, agent, newest, into=causes)
    if counted >= PAGE:
        # whoever may only read counts again the next time
        with contextlib.suppress(ResponseError):
            await scripts.causes_kept(redis, lane, agent, newest, causes)
    return causes


async def grouped(
    redis: Redis,
    lane: Keys,
    agent: str,
    newest: str,
    conditions: Sequence[str] = (),
    *,
    after: str = "",
    into: Causes,
) -> int:
    """Count the dead letters after one id ('': all) up to another, page by page; return how many.

    `conditions`: field, value, … as groups.lua has them.
    """
    total, start = 0, f"({after}" if after else "-"
    while start != "(":
        last, page = await scripts.groups(redis, lane.dead(agent), start, newest, PAGE, conditions)
        for fingerprint, count, ids in page:
            total += count
            before, known = into.get(fingerprint, (0, []))
            into[fingerprint] = (before + count, [*known, *ids][-EXAMPLES:])
        start = "(" + last
    return total


def _read(kept: Mapping[bytes, bytes]) -> tuple[str, Causes]:
    """Return the last id that was counted and the causes; ('', {}) if what stands there is not ours."""
    causes: Causes = {}
    try:
        last = kept[b"last"].decode()
        if not _ID.fullmatch(last):
            return "", {}
        for field, value in kept.items():
            if field.startswith(_PREFIX):
                count, *ids = value.decode().split()
                causes[field.removeprefix(_PREFIX).decode("utf-8", "replace")] = int(count), ids
    except (KeyError, ValueError):
        return "", {}
    return last, causes


def _sound(causes: Causes, length: int) -> bool:
    """Return whether the counts are those of so many dead letters, and enough ids are known of each."""
    return sum(count for count, _ in causes.values()) == length and all(
        len(ids) == min(count, EXAMPLES) for count, ids in causes.values()
    )
