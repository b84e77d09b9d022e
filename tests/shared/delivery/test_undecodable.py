"""What is no event is one dead letter, byte for byte, to look at, to replay and to discard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from events.connection import connect
from shared.operations.dead_letters import DeadFilter, DeadLetters
from tests.shared.delivery.harness import entries, running, settings_for, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis

    from shared.delivery.dead_letter import DeadLetter

INTAKE = "erni:photo.submitted"
DEAD = "erni:dead:schema_extractor"
DATA = b'{"source_url": "https://example.org/a.jpg"}'
MANY = [part for n in range(10_000) for part in (b"f%d" % n, b"%d" % n)]
BINARY = [b"data", bytes(range(256)), b"\xff\x1b[2J", b"\x00"]


@pytest.fixture
async def letters(redis_url: str) -> AsyncIterator[DeadLetters]:
    async with connect(redis_url) as client:
        yield DeadLetters(client)


async def add(redis: Redis, fields: list[bytes], stream: str = INTAKE) -> bytes:
    call: Callable[..., Awaitable[bytes]] = redis.execute_command
    return await call("XADD", stream, "*", *fields)


async def all_of(letters: DeadLetters) -> list[DeadLetter]:
    return [letter async for letter in letters.find(DeadFilter())]


async def test_of_one_that_is_too_large_only_the_beginnings_are_kept(
    redis: Redis, redis_url: str, letters: DeadLetters
) -> None:
    """A copy of it, made inside a script, would need its size three times more at once."""
    await add(redis, [b"data", b'{"source_url": "https://example.org/' + b"x" * 9_000_000])
    async with running(settings_for(redis_url)):
        [fields] = await until(lambda: entries(redis, DEAD))
        [letter] = await all_of(letters)
        assert "9000040 bytes; 1048576 are allowed" in letter.message
        assert sum(map(len, fields)) < 5_000
        assert letter.cut == 9_000_040
        [[_, kept]] = [[*await letters.original(letter)]]
        assert kept.startswith(b'{"source_url": "https://example.org/xxx')
        replayed = await letters.replay(letter)
        assert replayed.outcome == "refused"
        assert "its entry had 9000040 bytes" in replayed.message
        assert await letters.discard(letter)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (BINARY, "no photo.submitted event"),
        (MANY, "10000 fields; 64 are allowed"),
        ([b"data", DATA, b"data", DATA], "twice"),
        ([b"data", DATA, b"type", b"photo.eaten"], "'photo.eaten' does not belong"),
        ([b"data", DATA, b"sessionid", b"\x80"], "not UTF-8"),
        ([b"photo", DATA], "no field `data`"),
        ([b"data", b"{", b"ernireplay", b"mine"], "truncated"),
        ([b"data", b"{", b"ernidelayed", b"1:2"], "truncated"),
    ],
)
async def test_it_is_kept_as_it_came(
    redis: Redis, redis_url: str, letters: DeadLetters, fields: list[bytes], says: str
) -> None:
    async with running(settings_for(redis_url)):
        entry_id = await add(redis, fields)
        await until(lambda: redis.xlen(DEAD))
        [letter] = await all_of(letters)
        assert (letter.reason, letter.error_type) == ("undecodable", "UndecodableError")
        assert letter.entry_id == entry_id.decode()
        assert says in letter.message
        assert await letters.original(letter) == fields
        # and the loop goes on
        await add(redis, [b"data", DATA])
        await until(lambda: redis.xlen("erni:schema.extracted"))


async def test_replayed_it_is_the_same_letter_again_with_its_bytes(
    redis: Redis, redis_url: str, letters: DeadLetters
) -> None:
    async with running(settings_for(redis_url)):
        await add(redis, BINARY)
        for replays in range(3):
            [letter] = await until(lambda: all_of(letters))
            assert letter.replays == replays
            assert await letters.original(letter) == BINARY
            if replays < 2:
                assert (await letters.replay(letter)).outcome == "replayed"
                assert (await letters.replay(letter)).outcome == "gone"
        assert await letters.discard(letter)
        assert not await letters.discard(letter)
    assert await all_of(letters) == []


async def test_ten_thousand_fields_cannot_be_replayed_and_stay(
    redis: Redis, redis_url: str, letters: DeadLetters
) -> None:
    async with running(settings_for(redis_url)):
        await add(redis, MANY)
        [letter] = await until(lambda: all_of(letters))
        result = await letters.replay(letter)
    assert result.outcome == "refused"
    assert result.message.startswith("its entry has 10000 fields, more than 3500 cannot be written back")
    assert await letters.original(letter) == MANY
    assert await letters.discard(letter)


@pytest.mark.parametrize("raw", [None, b"\xc1", b"\x93\x01", b"\x81\xa1a\x01", b"\x90", b"\x05"])
async def test_a_letter_that_somebody_else_wrote_is_refused_with_a_sentence(
    redis: Redis, letters: DeadLetters, raw: bytes | None
) -> None:
    fields = [b"replays", "²".encode(), b"deliveries", b"9" * 5000, b"message", b"\xff", b"attempts", b"{"]
    await add(redis, fields if raw is None else [*fields, b"raw", raw], DEAD)
    [letter] = await all_of(letters)
    assert (letter.replays, letter.deliveries, letter.attempts) == (0, 0, [])
    assert await letters.original(letter) == []
    result = await letters.replay(letter)
    assert result.outcome == "refused"
    assert "discard it" in result.message
    assert await letters.discard(letter)


@pytest.mark.parametrize(
    "extra",
    [
        [b"ernireplay", b"9" * 5000],
        [b"ernireplay", b"9" * 5000 + b" x"],
        [b"ernidelayed", b"9" * 5000 + b":1:1"],
        [b"ernisteps", b'[{"agent": "\xff"}]'],
        [b"traceparent", b"\xff" * 70],
        [b"raw", b"\x93\x01"],
    ],
)
async def test_fields_that_look_like_ours_harm_nothing(
    redis: Redis, redis_url: str, extra: list[bytes]
) -> None:
    async with running(settings_for(redis_url)):
        await add(redis, [b"data", DATA, *extra])
        [out] = await until(lambda: entries(redis, "erni:schema.extracted"))
    assert b"ernireplay" not in out
    assert b"ernidelayed" not in out


async def test_an_unknown_field_whose_name_is_no_text_costs_no_photo(redis: Redis, redis_url: str) -> None:
    """The event's decoder skips it, and so must whoever looks for typing errors."""
    async with running(settings_for(redis_url)):
        await add(redis, [b"data", b'{"source_url": "https://example.org/a.jpg", "k\xff": 1}'])
        await until(lambda: redis.xlen("erni:schema.extracted"))


async def test_an_event_of_a_newer_publisher_goes_through_and_keeps_its_unknown_attributes(
    redis: Redis, redis_url: str
) -> None:
    newer = b'{"source_url": "file:/a", "colour": {"deep": [1]}, "hints": {"weather": "Regen"}}'
    async with running(settings_for(redis_url)):
        await add(redis, [b"data", newer, b"partitionkey", b"7", b"comexample", b"\xff"])
        [out] = await until(lambda: entries(redis, "erni:schema.extracted"))
    pairs: dict[bytes, Any] = dict(zip(out[::2], out[1::2], strict=True))
    assert (pairs[b"partitionkey"], pairs[b"comexample"]) == (b"7", b"\xff")
    assert await redis.xlen(DEAD) == 0


async def test_letters_are_listed_page_by_page_without_their_entries(
    redis: Redis, letters: DeadLetters
) -> None:
    pipeline = redis.pipeline(transaction=False)
    for number in range(450):
        pipeline.execute_command(
            "XADD", DEAD, f"{number + 1}-0", "raw", b"x" * 20_000, "photo", f"p-{number}"
        )
    await pipeline.execute()
    await redis.config_resetstat()
    found = await all_of(letters)
    assert [letter.photo_id for letter in found] == [f"p-{number}" for number in range(450)]
    assert int((await redis.info("stats"))["total_net_output_bytes"]) < 200_000
