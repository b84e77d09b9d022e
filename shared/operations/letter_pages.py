"""Reads the dead letters of a stream page by page, in the cheaper of two ways.

Each dead letter holds the entry that failed, which a list does not need. Small entries travel with it: that
costs the server a quarter of what it costs to take them out in a script (`benchmarks.lists`). Large entries
stay where they are.
"""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from events.connection import call
from shared.delivery.dead_letter import FIELDS, Row, row_of
from shared.operations import scripts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from redis.asyncio import Redis

LARGE: Final = 4096
"""Bytes of an entry, on average of a page, from which on the entries of the next page do not travel."""
AT_FIRST: Final = 2
AT_ONCE: Final = 64
"""Dead letters of a page with their entries: few at first. An entry may have 1 MiB, and large ones may follow
small ones: a page takes 64 MiB of the server at most."""
WITHOUT: Final = 500
"""Dead letters of a page without their entries."""

_Entry: TypeAlias = "tuple[bytes, list[bytes]]"
_Read: TypeAlias = "Callable[[Sequence[str | None]], tuple[str | None, ...]]"


class _Page(NamedTuple):
    last: str
    """'': there are no more."""
    rows: Iterator[Row]
    following: int
    """How many to read with their entries after it; 0: read them without."""


async def letter_pages(
    redis: Redis, stream: str, begin: str, newest: str = ""
) -> AsyncGenerator[Iterator[Row], None]:
    """Yield the dead letters of a stream, oldest first, one page for each round trip; `begin` as for XRANGE.

    `newest`: the id up to which they are yielded; '': all. Redis looks for the next page while this one is
    read. Raises what redis-py raises.
    """
    last = sort_key(newest) if newest else None
    asked = asyncio.create_task(_with_entries(redis, stream, begin, AT_FIRST))
    try:
        while (page := await asked).last:
            if last is not None and sort_key(page.last) >= last:
                yield (row for row in page.rows if sort_key(row.id) <= last)
                return
            start = "(" + page.last
            asked = asyncio.create_task(
                _with_entries(redis, stream, start, page.following)
                if page.following
                else _without_entries(redis, stream, start)
            )
            # the task sends its question now
            await asyncio.sleep(0)
            yield page.rows
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


def sort_key(dead_id: str) -> tuple[int, int]:
    """Return an entry id as the two numbers it sorts by."""
    millis, _, sequence = dead_id.partition("-")
    return int(millis), int(sequence)


async def _with_entries(redis: Redis, stream: str, start: str, many: int) -> _Page:
    found: list[_Entry] = await call(redis, "XRANGE", stream, start, "+", "COUNT", many)
    if not found:
        return _Page("", iter(()), 0)
    # the entry is the first field of what an agent wrote
    size = sum(len(flat[1]) for _, flat in found)
    following = 0 if size > LARGE * len(found) else min(2 * many, AT_ONCE)
    return _Page(found[-1][0].decode(), map(row_of_entry, found), following)


async def _without_entries(redis: Redis, stream: str, start: str) -> _Page:
    rows = await scripts.letters(redis, stream, start, WITHOUT)
    # the next ones may be small again
    return _Page(rows[-1].id if rows else "", iter(rows), AT_FIRST)


_READERS: Final[dict[bytes, tuple[int, _Read]]] = {}
"""By the names of an entry's fields: how many they are, and what picks the values of `FIELDS`."""
_MOST_READERS: Final = 100


def row_of_entry(entry: _Entry) -> Row:
    """Return the row of a dead letter as XRANGE returns it; what others wrote is read as far as possible.

    All values are decoded at once, and their places are known for names seen before: it takes a third of the
    time of reading field by field.
    """
    dead_id, flat = entry
    if flat[0] == b"raw":
        names = b"\0".join(flat[2::2])
        known = _READERS.get(names) or _reader(names)
        try:
            values: list[str | None] = [*b"\0".join(flat[3::2]).decode().split("\0"), None]
        except UnicodeDecodeError:
            values = []
        # another number of them: there is a NUL in a value or a name
        if len(values) == known[0] + 1 == len(flat) // 2:
            return Row(dead_id.decode(), *known[1](values))
    fields = dict(zip(flat[::2], flat[1::2], strict=False))
    return row_of([dead_id, *(fields.get(name.encode()) for name in FIELDS)])


def _reader(names: bytes) -> tuple[int, _Read]:
    places = {name: place for place, name in enumerate(names.split(b"\0"))}
    count = names.count(b"\0") + 1
    # behind the values stands the one of a field that is not there
    made = count, itemgetter(*(places.get(name.encode(), count) for name in FIELDS))
    if len(_READERS) < _MOST_READERS:
        _READERS[names] = made
    return made
