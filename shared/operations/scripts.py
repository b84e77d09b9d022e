"""The operators' Lua scripts, each behind one function of its name; the tables are in `lua/*.lua`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from events import scripts
from shared.delivery import packing
from shared.delivery.dead_letter import FIELDS, Row, row_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys

_HERE: Final = "shared.operations"
_REASONS = scripts.load(_HERE, "reasons")
_GROUPS = scripts.load(_HERE, "groups")
_LETTERS = scripts.load(_HERE, "letters")
_COUNTED = scripts.load(_HERE, "counted")
_RECOUNTED = scripts.load(_HERE, "recounted")
_CAUSES = scripts.load(_HERE, "causes")
_CAUSES_KEPT = scripts.load(_HERE, "causes_kept")
_DISCARD = scripts.load(_HERE, "discard", "cause")
_REPLAY = scripts.load(_HERE, "replay", "cause", "session")
_ADOPT = scripts.load(_HERE, "adopt")
_DECODER: Final = msgspec.msgpack.Decoder(list[Row])
_LOOKED_AT: Final = 1000
"""Entries that one call of `adopt` looks at: the server answers others between two calls."""

REPLAY_PAIRS: Final = 3500
"""Pairs one XADD takes from a script: Lua's unpack ends near 4,000 (measured on Redis 7.0 and Valkey 8.1)."""


async def letters(redis: Redis, lane: Keys, agent: str, start: str, most: int) -> list[Row]:
    """A page of an agent's dead letters, without the entries they hold; `start` as for XRANGE."""
    return _rows(await _LETTERS(redis, [lane.dead(agent)], [start, most, *FIELDS]))


async def letters_at(redis: Redis, lane: Keys, agent: str, ids: Sequence[str]) -> list[Row]:
    """The dead letters of these ids that are still there, in one round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        # so that no server answers NOSCRIPT in the middle
        pipe.script_load(_LETTERS.text.decode())
        for dead_id in ids:
            pipe.evalsha(_LETTERS.digest, 1, lane.dead(agent), dead_id, 1, *FIELDS)
        replies: list[bytes] = (await pipe.execute())[1:]
    found = [row for reply in replies for row in _rows(reply)]
    return [row for row in found if row.id in ids]


def _rows(packed: bytes) -> list[Row]:
    try:
        return _DECODER.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # bytes that are no text, which only the slow way reads
        return [row_of(values) for values in packing.unpack(packed)]


async def groups(
    redis: Redis, dead_key: str, start: str, last: str, most: int, conditions: Sequence[str]
) -> tuple[str, list[tuple[str, int, list[str]]]]:
    """Group a page by fingerprint: the last id seen ('' after the last page); fingerprint, count, newest ids.

    `conditions`: field, value, … as groups.lua has them.
    """
    seen, flat = await _GROUPS(redis, [dead_key], [start, last, most, *conditions])
    return seen.decode(), [
        (fingerprint.decode("utf-8", "replace"), count, ids.decode().split())
        for fingerprint, count, ids in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    ]


async def replay(
    redis: Redis,
    lane: Keys,
    agent: str,
    stream: str,
    completed: str,
    dead_id: str,
    session: str | None,
    *,
    ttl_ms: int,
    long_ttl_ms: int,
) -> tuple[str, str]:
    """Move one dead letter back: ('OK', new id), ('GONE', ''), ('TOO_MANY', pairs) or ('UNREADABLE', '')."""
    keys = [
        lane.dead(agent),
        lane.stream(stream),
        lane.session_open,
        lane.session_lru,
        lane.stream(completed),
        lane.session_stats,
        lane.dead_counts(agent),
        lane.dead_causes(agent),
    ]
    if session:
        keys.append(lane.session(session))
    reply = await _REPLAY(redis, keys, [dead_id, session or "", ttl_ms, long_ttl_ms, REPLAY_PAIRS])
    return reply[0].decode(), reply[1].decode() if len(reply) > 1 else ""


async def discard(redis: Redis, lane: Keys, agent: str, dead_id: str) -> bool:
    """Delete one dead letter; returns False if it was gone already."""
    names = [lane.dead(agent), lane.dead_counts(agent), lane.dead_causes(agent)]
    return bool(await _DISCARD(redis, names, [dead_id]))


async def causes(redis: Redis, lane: Keys, agent: str) -> tuple[int, str, dict[bytes, bytes]]:
    """Return how many dead letters an agent has, the id of the newest ('' if none), and the causes kept."""
    length, newest, flat = await _CAUSES(redis, [lane.dead(agent), lane.dead_causes(agent)], [])
    return length, newest.decode(), dict(zip(flat[::2], flat[1::2], strict=True))


async def causes_kept(
    redis: Redis, lane: Keys, agent: str, last: str, found: Mapping[str, tuple[int, Sequence[str]]]
) -> bool:
    """Keep the causes of all dead letters up to the id `last`; returns False if some of them went."""
    flat = [word for name, (count, ids) in found.items() for word in (name, " ".join((str(count), *ids)))]
    return bool(await _CAUSES_KEPT(redis, [lane.dead(agent), lane.dead_causes(agent)], [last, *flat]))


async def counted(redis: Redis, lane: Keys, agent: str) -> tuple[int, dict[bytes, int]]:
    """Return how many dead letters an agent has, and the counts by reason that are kept beside them."""
    length, flat = await _COUNTED(redis, [lane.dead(agent), lane.dead_counts(agent)], [])
    counts = {
        # a foreign value counts as a wrong count, so that all are counted again
        name: int(count) if count.lstrip(b"-").isdigit() else -1
        for name, count in zip(flat[::2], flat[1::2], strict=True)
    }
    return length, counts


async def reasons(
    redis: Redis, lane: Keys, agent: str, start: str, most: int
) -> tuple[str, dict[bytes, int]]:
    """Count a page of dead letters by reason: the last id seen ('' after the last page) and the counts."""
    last, flat = await _REASONS(redis, [lane.dead(agent)], [start, most])
    return last.decode(), dict(zip(flat[::2], flat[1::2], strict=True))


async def recounted(redis: Redis, lane: Keys, agent: str, last: str, counts: Mapping[bytes, int]) -> bool:
    """Keep these counts of all dead letters up to the id `last`; returns False if others came or went."""
    flat = [word for pair in counts.items() for word in pair]
    return bool(await _RECOUNTED(redis, [lane.dead(agent), lane.dead_counts(agent)], [last, *flat]))


async def adopt(
    redis: Redis, stream_key: str, agent: str, start: str, *, count_only: bool = False
) -> tuple[int, str]:
    """Give a page of ownerless entries to `returned`; returns how many, and where the next page starts."""
    change = 0 if count_only else 1
    adopted, following = await _ADOPT(redis, [stream_key], [agent, start, _LOOKED_AT, change])
    return adopted, following.decode()
