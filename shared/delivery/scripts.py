"""Calls the delivery engine's Lua scripts, each by a function of its name; `lua/*.lua` has the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from events import scripts
from events.connection import call, call_and_wait
from shared.delivery import packing
from shared.delivery.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys

_HERE: Final = "shared.delivery"
_SETTLE = scripts.load(_HERE, "settle", "session")
_BEAT = scripts.load(_HERE, "beat")
_TAKE_OVER = scripts.load(_HERE, "take_over")
_RECLAIM = scripts.load(_HERE, "reclaim")
_DUE = scripts.load(_HERE, "due", "session")

MARKER_SECONDS: Final = 600
"""How long a batch's replies are kept for the case that the answer was lost. A batch sent again later finds
its entries GONE, which is as true."""


class Settled(msgspec.Struct, frozen=True):
    """Hold what became of a batch, and what its side writes did."""

    replies: dict[int, str]
    """Place in the batch → FENCED, GONE, or the error; what is not named was settled."""
    side_writes_failed: int
    sessions_missing: int
    sessions_corrupt: int
    sessions_created: int
    sessions_open: int
    """With photos in flight; -1 if no session was touched, as is `sessions_rest`."""
    sessions_rest: int


class Beat(msgspec.Struct, frozen=True):
    """Hold what a heartbeat saw."""

    counter: int
    beats: dict[str, str]
    """consumer → its counter, as text."""
    owners: list[tuple[int, str, int]]
    """stream index, consumer (never ourselves), its pending entries."""
    due: int
    paused_since: float | None
    without_group: list[int]
    """Streams whose group is not there."""


class TakenOver(msgspec.Struct, frozen=True):
    """Hold what a take-over claimed. `alive`: the counter moved after all, so nothing was done."""

    alive: bool = False
    taken: list[Delivery] = []
    over_limit: list[Delivery] = []
    """Past the delivery limit: dead letters, to be written without a slot."""
    suspects: int = 0
    """Entries that stay with the dead consumer until a process has nothing else in flight."""
    left: int = 0
    lost: list[tuple[int, str]] = []
    """Entries whose body was gone: stream index, id."""


class Reclaimed(msgspec.Struct, frozen=True):
    """Hold how the entries in flight differ from those this process owns, for one stream."""

    lost: list[str]
    orphans: list[Delivery]
    gone: list[str]


class Due(msgspec.Struct, frozen=True):
    """Hold a member of the delayed set whose time has come."""

    member: bytes
    stream: str
    """Key of the stream it came from."""
    session_id: str | None


async def settle(redis: Redis, keys: Sequence[str], packed: bytes) -> Settled:
    """End a batch of deliveries. Raises NOGROUP (a ResponseError) if the group vanished."""
    return _settled(*await _SETTLE(redis, keys, [packed]))


async def settle_and_wait(
    redis: Redis, keys: Sequence[str], packed: bytes, *, replicas: int
) -> tuple[Settled, int]:
    """As `settle`; return also how many replicas have it, of the `replicas` that it waited for."""
    reply, have = await _SETTLE.and_wait(redis, keys, [packed], replicas=replicas)
    return _settled(*reply), have


def _settled(replies: Sequence[Any], beside: Sequence[int]) -> Settled:
    others = {place - 1: reply.decode() for place, reply in zip(replies[::2], replies[1::2], strict=True)}
    return Settled(others, *beside)


async def wait_again(redis: Redis, marker: str, *, replicas: int) -> int:
    """Wait for the replicas of a batch that was settled before; return how many have it.

    WAIT counts the writes of its own connection, so the batch's marker is written once more. Raises
    redis-py's ConnectionError if there is no marker: a fail-over took away what was settled.
    """
    written, have = await call_and_wait(redis, replicas, "PEXPIRE", marker, MARKER_SECONDS * 1000)
    if not written:
        raise RedisConnectionError("a fail-over took away a batch that was settled")
    return have


async def beat(
    redis: Redis, lane: Keys, agent: str, streams: Sequence[str], consumer: str, record: bytes, *, look: bool
) -> Beat:
    """Send one heartbeat, and look at the others if `look` says so."""
    keys = [lane.beats(agent), lane.processes(agent), lane.paused, lane.delayed(agent)]
    counter, beats, owners, due_count, paused, without = await _BEAT(
        redis, keys + [lane.stream(name) for name in streams], [consumer, record, agent, int(look)]
    )
    return Beat(
        counter=counter,
        beats={name.decode(): value.decode() for name, value in zip(beats[::2], beats[1::2], strict=True)},
        owners=[(index, name.decode(), pending) for index, name, pending in owners],
        due=due_count,
        paused_since=float(paused) if paused else None,
        without_group=list(without),
    )


async def look(
    redis: Redis, lane: Keys, agent: str, streams: Sequence[str], consumer: str
) -> tuple[dict[str, str], list[tuple[int, str, int]]]:
    """Look at the others by plain commands; returns `beats` and `owners` of a Beat.

    For thousands of consumers: Lua would need ten times as long to convert what XINFO answers. Raises NOGROUP
    (a ResponseError) if a group vanished.
    """
    beats: dict[bytes, bytes] = await call(redis, "HGETALL", lane.beats(agent))
    owners: list[tuple[int, str, int]] = []
    for index, name in enumerate(streams):
        found = await redis.xinfo_consumers(lane.stream(name), agent)
        owners += ((index, one["name"].decode(), one["pending"]) for one in found)
    others = [owner for owner in owners if owner[1] != consumer]
    return {name.decode(): value.decode() for name, value in beats.items()}, others


async def take_over(
    redis: Redis,
    lane: Keys,
    agent: str,
    streams: Sequence[str],
    *,
    taker: str,
    whose: str,
    seen: str,
    limit: int,
    suspect: bool,
    max_deliveries: int,
) -> TakenOver:
    """Claim from a dead consumer; `seen` is its counter as last seen, '' without record, '*' not to look."""
    keys = [lane.beats(agent), lane.processes(agent), *(lane.stream(name) for name in streams)]
    args: list[str | bytes | int | float] = [
        agent,
        taker,
        whose,
        seen,
        limit,
        "1" if suspect else "0",
        max_deliveries,
    ]
    reply = await _TAKE_OVER(redis, keys, args)
    if reply[0] == b"ALIVE":
        return TakenOver(alive=True)
    _, taken, over_limit, suspects, left, lost = reply
    return TakenOver(
        taken=[_claimed(entry) for entry in taken],
        over_limit=[_claimed(entry) for entry in over_limit],
        suspects=suspects,
        left=left,
        lost=[(index, entry_id.decode()) for index, entry_id in lost],
    )


def _claimed(entry: tuple[int, bytes, int, list[bytes]]) -> Delivery:
    stream, entry_id, deliveries, fields = entry
    return Delivery(stream, entry_id.decode(), deliveries, fields)


async def reclaim(
    redis: Redis,
    stream_key: str,
    agent: str,
    consumer: str,
    *,
    stream: int,
    limit: int,
    in_flight: Sequence[str | int],
) -> Reclaimed:
    """Compare the entries in flight (id, deliveries, id, deliveries, …) with those we own, for one stream."""
    lost, orphans, gone = await _RECLAIM(
        redis, [stream_key], [agent, consumer, limit, packing.pack(in_flight)]
    )
    return Reclaimed(
        lost=[entry_id.decode() for entry_id in lost],
        orphans=[Delivery(stream, i.decode(), n, fields) for i, n, fields in orphans],
        gone=[entry_id.decode() for entry_id in gone],
    )


async def due(
    redis: Redis,
    lane: Keys,
    agent: str,
    completed: str,
    members: Sequence[Due],
    *,
    ttl_ms: int,
    long_ttl_ms: int,
) -> int:
    """Move due members back to their streams; returns how many this call moved.

    Each goes to the stream it came from, even if this agent no longer reads it (since an upgrade another one
    does).
    """
    keys = [
        lane.delayed(agent),
        lane.session_open,
        lane.session_lru,
        lane.stream(completed),
        lane.session_stats,
    ]
    streams = list(dict.fromkeys(one.stream for one in members))
    keys += streams
    packed: list[tuple[bytes, int, str]] = []
    for one in members:
        if one.session_id:
            keys.append(lane.session(one.session_id))
            packed.append((one.member, len(keys), one.session_id))
        else:
            packed.append((one.member, 0, ""))
    argument = packing.pack([ttl_ms, long_ttl_ms, len(streams), packed])
    return int(await _DUE(redis, keys, [argument]))
