"""The operators' Lua scripts, each behind one function of its name; the tables are in `lua/*.lua`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import scripts, topology
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
_DISCARD = scripts.load(_HERE, "discard", "cause", "progress")
_REPLAY = scripts.load(_HERE, "replay", "cause", "progress", "session")
_RESTORE = scripts.load(_HERE, "restore", "progress")
_PASSED = scripts.load(_HERE, "passed", "progress")
_DELETE = scripts.load(_HERE, "delete", "progress")
_ADOPT = scripts.load(_HERE, "adopt")
_REPLACED = scripts.load(_HERE, "replaced")
_WRITE = scripts.load(_HERE, "write")
_DECODER: Final = msgspec.msgpack.Decoder(list[Row])
_LOOKED_AT: Final = 1000
"""Entries that one call of `adopt` looks at: the server answers others between two calls."""

EDITED: Final = "EDITED"
"""What `restore` returns for the original of an event that was edited and replayed: it stays where it is."""
REPLAY_PAIRS: Final = 3500
"""Pairs one XADD takes from a script: Lua's unpack ends near 4,000 (measured on Redis 7.0 and Valkey 8.1)."""


async def write(redis: Redis, command: str, key: str, *words: str | bytes | float) -> Any:
    """Run one command that writes to one key, also when the memory is full; return its reply as it came.

    It is for what people do: they free the memory. Raises what redis-py raises.
    """
    return await _WRITE(redis, [key], [command, *words])


async def replaced(redis: Redis, key: str, field: str, before: bytes, value: bytes) -> bool:
    """Replace a field of a hash; returns False if it no longer has the value `before`."""
    return bool(await _REPLACED(redis, [key], [field, before, value]))


async def letters(redis: Redis, stream: str, start: str, most: int) -> list[Row]:
    """A page of a stream of dead letters, without the entries they hold; `start` as for XRANGE."""
    return _rows(await _LETTERS(redis, [stream], [start, most, *FIELDS]))


async def letters_at(redis: Redis, stream: str, ids: Sequence[str]) -> list[Row]:
    """The dead letters of these ids that are still there, in one round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        # so that no server answers NOSCRIPT in the middle
        pipe.script_load(_LETTERS.text.decode())
        for dead_id in ids:
            pipe.evalsha(_LETTERS.digest, 1, stream, dead_id, 1, *FIELDS)
        replies: list[bytes] = (await pipe.execute())[1:]
    # in the place of one that is gone the script finds the one behind it
    return [
        row for dead_id, reply in zip(ids, replies, strict=True) for row in _rows(reply) if row.id == dead_id
    ]


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


class Mark(msgspec.Struct, frozen=True):
    """Where a script notes that it acted on a dead letter, for an operation on many of them."""

    progress: str
    """The key of the operation's progress in the lane of the dead letter."""
    cursor: str
    """The field of the last dead letter of the agent that the operation has seen."""
    before: str = ""
    """What that field holds if nobody else has gone on with the operation since the caller's last step."""


class OvertakenError(Exception):
    """Raised when another process has gone on with an operation; nothing was done."""


async def replay(
    redis: Redis,
    lane: Keys,
    agent: str,
    stream: str,
    dead_id: str,
    session: str | None,
    *,
    ttl_ms: int,
    long_ttl_ms: int,
    mark: Mark | None = None,
    edited: Sequence[bytes] = (),
    who: str = "",
) -> tuple[str, str]:
    """Move one dead letter back: ('OK', new id), ('GONE', ''), ('TOO_MANY', pairs) or ('UNREADABLE', '').

    Raises OvertakenError if another process has gone on with the operation of the mark.

    `edited`: fields that take the place of the original ones; the dead letter then moves into the archive,
    by `who`.
    """
    names = [
        lane.dead(agent),
        lane.stream(stream),
        lane.session_open,
        lane.session_lru,
        lane.stream(topology.COMPLETED),
        lane.session_stats,
        lane.dead_counts(agent),
        lane.dead_causes(agent),
        lane.archive(agent),
        *([lane.session(session)] if session else []),
        *([mark.progress] if mark else []),
    ]
    packed = packing.pack(list(edited)) if edited else b""
    cursor, before = _cursor(mark)
    reply = await _REPLAY(
        redis, names, [dead_id, session or "", ttl_ms, long_ttl_ms, REPLAY_PAIRS, cursor, packed, who, before]
    )
    if reply[0] == b"OVERTAKEN":
        raise OvertakenError
    return reply[0].decode(), reply[1].decode() if len(reply) > 1 else ""


async def discard(
    redis: Redis, lane: Keys, agent: str, dead_id: str, *, who: str = "", mark: Mark | None = None
) -> bool:
    """Move one dead letter into the archive; without `who`, delete it. Returns False if it was gone.

    Raises OvertakenError if another process has gone on with the operation of the mark.
    """
    names = [lane.dead(agent), lane.dead_counts(agent), lane.dead_causes(agent), lane.archive(agent)]
    if mark:
        names.append(mark.progress)
    done: int = await _DISCARD(redis, names, [dead_id, who, *_cursor(mark)])
    if done < 0:
        raise OvertakenError
    return bool(done)


async def restore(redis: Redis, lane: Keys, agent: str, archived_id: str, *, mark: Mark | None = None) -> str:
    """Move one dead letter out of the archive; returns its new id, '' if it was gone already, or EDITED.

    Raises OvertakenError if another process has gone on with the operation of the mark.
    """
    names = [lane.archive(agent), lane.dead(agent), lane.dead_counts(agent)]
    if mark:
        names.append(mark.progress)
    new_id: bytes = await _RESTORE(redis, names, [archived_id, *_cursor(mark)])
    if new_id == b"OVERTAKEN":
        raise OvertakenError
    return new_id.decode()


async def delete(redis: Redis, lane: Keys, agent: str, archived_id: str, *, mark: Mark | None = None) -> bool:
    """Delete one dead letter in the archive for good. Returns False if it was gone.

    Raises OvertakenError if another process has gone on with the operation of the mark.
    """
    names = [lane.archive(agent), *([mark.progress] if mark else [])]
    done: int = await _DELETE(redis, names, [archived_id, *_cursor(mark)])
    if done < 0:
        raise OvertakenError
    return bool(done)


async def passed(redis: Redis, mark: Mark, what: str, dead_id: str, *, why: str = "", most: int) -> None:
    """Count a dead letter that an operation did not act on: gone, or refused and `why`.

    `most`: sentences that are kept. Raises OvertakenError.
    """
    if not await _PASSED(redis, [mark.progress], [what, mark.cursor, mark.before, dead_id, most, why]):
        raise OvertakenError


def _cursor(mark: Mark | None) -> tuple[str, str]:
    return (mark.cursor, mark.before) if mark else ("", "")


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
