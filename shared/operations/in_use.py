"""Finds what somebody may still need: contents in the photo store and sessions that entries refer to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from events import keys, topology
from events.connection import call
from shared.delivery import packing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from redis.asyncio import Redis

_ORIGINAL: Final = re.compile(rb"store:[\\/]*originals[\\/]+([0-9a-f]{64})")
_PAGE: Final = 100


def contents_in(fields: Iterable[bytes]) -> set[str]:
    """Return the SHA-256 of every content whose original the fields of an entry name."""
    return {sha.decode() for field in fields for sha in _ORIGINAL.findall(field)}


async def on_their_way(redis: Redis, lanes: int) -> tuple[set[str], set[str]]:
    """Return contents and sessions of the entries that wait, are in flight, or are postponed now.

    Sessions with photos on their way are included, because those photos may lie in any stream.
    """
    contents, sessions = set[str](), set[str]()
    # twice: an entry that is postponed, comes back or is replayed may move once, to where we looked before
    for _ in range(2):
        for lane in keys.all_lanes(lanes):
            for stage in topology.PIPELINE:
                for name in stage.streams:
                    async for flat in _entries(redis, lane.stream(name)):
                        contents |= contents_in(flat)
                        sessions |= named(flat, b"sessionid")
                async for member, _ in redis.zscan_iter(lane.delayed(stage.agent), count=_PAGE):
                    contents |= contents_in([member])
            start = 0
            while page := await call(redis, "ZRANGE", lane.session_open, start, start + 10 * _PAGE - 1):
                sessions |= {raw.decode("utf-8", "replace") for raw in page}
                start += len(page)
    return contents, sessions


async def in_use(redis: Redis, lanes: int) -> tuple[set[str], set[str]]:
    """Return contents and sessions that entries on their way or dead letters, discarded ones too, need."""
    contents, sessions = set[str](), set[str]()
    # before and after: what is replayed or dies meanwhile is found in one of the three
    for look in (_dead, on_their_way, _dead):
        found = await look(redis, lanes)
        contents |= found[0]
        sessions |= found[1]
    return contents, sessions


async def _dead(redis: Redis, lanes: int) -> tuple[set[str], set[str]]:
    contents, sessions = set[str](), set[str]()
    for lane in keys.all_lanes(lanes):
        for agent in topology.AGENTS:
            # what is discarded moves to the archive, what is restored moves back: this order misses neither
            for stream in (lane.dead(agent), lane.archive(agent), lane.dead(agent)):
                async for flat in _entries(redis, stream):
                    raw = next((value for name, value in _pairs(flat) if name == b"raw"), b"")
                    contents |= contents_in(packing.unpack_fields(raw))
                    sessions |= named(flat, b"session")
    return contents, sessions


async def _entries(redis: Redis, stream: str) -> AsyncIterator[list[bytes]]:
    """Yield the flat fields of every entry of a stream."""
    start = "-"
    while page := await call(redis, "XRANGE", stream, start, "+", "COUNT", _PAGE):
        for _, flat in page:
            yield flat
        start = "(" + page[-1][0].decode()


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=False))


def named(flat: list[bytes], field: bytes) -> set[str]:
    """Return the values of a field in a flat list of names and values."""
    return {value.decode("utf-8", "replace") for name, value in _pairs(flat) if name == field}
