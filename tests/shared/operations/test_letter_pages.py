"""The pages of a stream of dead letters: all of them, once, however large their entries are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events.connection import call, connect
from shared.delivery.dead_letter import FIELDS, Row, row_of
from shared.operations.letter_pages import AT_ONCE, LARGE, letter_pages, row_of_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

STREAM = "erni:dead:photo_fetcher"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as made:
        yield made


async def rows(redis: Redis, begin: str = "-", newest: str = "") -> list[Row]:
    return [row async for page in letter_pages(redis, STREAM, begin, newest) for row in page]


async def bury(redis: Redis, sizes: list[int]) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for number, size in enumerate(sizes, 1):
            words = ("raw", b"\xff" * size, "photo", f"p-{number}", "reason", "permanent")
            pipe.execute_command("XADD", STREAM, f"{number}-0", *words)
        await pipe.execute()


async def test_small_and_large_entries_in_turn_are_all_read_once(redis: Redis) -> None:
    small, large = [100] * (3 * AT_ONCE), [10 * LARGE] * 600
    await bury(redis, [*small, *large, *small, *large[:3]])
    found = await rows(redis)
    assert [row.photo for row in found] == [f"p-{number + 1}" for number in range(6 * AT_ONCE + 603)]
    assert {row.reason for row in found} == {"permanent"}


async def test_the_first_and_the_last_one_are_those_that_are_asked_for(redis: Redis) -> None:
    await bury(redis, [10] * 40)
    assert [row.id for row in await rows(redis, "(3-0", "7-0")] == ["4-0", "5-0", "6-0", "7-0"]
    assert [row.id for row in await rows(redis, "39-0")] == ["39-0", "40-0"]
    assert await rows(redis, "(40-0") == []
    assert await rows(redis, "8-0", "7-0") == []


async def test_the_newest_one_ends_the_reading_also_when_it_is_gone(redis: Redis) -> None:
    await bury(redis, [10 * LARGE] * 40)
    await redis.xdel(STREAM, "30-0")
    assert (await rows(redis, "-", "30-0"))[-1].id == "29-0"
    await redis.xtrim(STREAM, maxlen=0)
    assert await rows(redis, "-", "30-0") == []


async def test_reading_to_the_end_keeps_the_connection(redis: Redis) -> None:
    await bury(redis, [10] * 700)
    await rows(redis)
    before = (await redis.info("stats"))["total_connections_received"]
    assert len(await rows(redis, "-", "700-0")) == 700
    assert (await redis.info("stats"))["total_connections_received"] == before


@pytest.mark.parametrize(
    "flat",
    [
        [b"raw", b"\x94\xff", b"photo", b"p", b"message", "Fenster «Süd»".encode(), b"cut", b"7"],
        [b"photo", b"p", b"raw", b"\x94\xff", b"reason", b"permanent"],
        [b"raw", b"", b"photo", b"with a \0 in it", b"session", b"s"],
        [b"raw", b"", b"photo\0session", b"p", b"session", b"s"],
        [b"raw", b"", b"photo\0session", b"p\0s"],
        [b"raw", b"", b"photo", b"\xff\xfe", b"session", b"s"],
        [b"raw", b"", b"photo", b"first", b"photo", b"last"],
        [b"raw", b"", b"raw", b"", b"another", b"1"],
        [b"raw", b"only"],
        [b"raw", b"", b"\xff", b"1", b"photo", b"p"],
        [b"raw", b"", b"", b"", b"photo", b""],
    ],
)
def test_an_entry_is_read_as_field_by_field(flat: list[bytes]) -> None:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    slowly = row_of([b"5-1", *(fields.get(name.encode()) for name in FIELDS)])
    # the second time with the places of the first
    assert [row_of_entry((b"5-1", flat)) for _ in range(2)] == [slowly, slowly]


async def test_what_redis_returns_is_such_an_entry(redis: Redis) -> None:
    await bury(redis, [3])
    [(dead_id, flat)] = await call(redis, "XRANGE", STREAM, "-", "+")
    assert row_of_entry((dead_id, flat)) == Row("1-0", photo="p-1", reason="permanent")
