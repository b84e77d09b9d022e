"""Dead letters are counted by cause once; a list reads the counts and what came since."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from events import topology
from events.connection import call, connect
from events.keys import Keys
from shared.delivery.dead_letter import letter_fields
from shared.operations import causes, gauges
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.telemetry.metrics import AgentMetrics
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

AGENT = "photo_fetcher"
LANE = Keys()
DEAD = LANE.dead(AGENT)
KEPT = LANE.dead_causes(AGENT)
MANY = 2 * causes.PAGE


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as made:
        yield made


async def die(client: Redis, count: int, *, cause: str = "", text: bytes = b"") -> list[str]:
    """Bury so many of three causes, or of one; `text` becomes a message as it is."""
    async with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            fields = letter_fields(
                agent=AGENT,
                stream="schema.extracted",
                entry_id=f"1764012345678-{number}",
                consumer="worker",
                reason="permanent",
                error_type="ValueError",
                message=cause or f"cause {'abc'[number % 3]} of them",
                deliveries=1,
                photo_id=f"p-{number}",
                session_id="s",
                file_name=f"{number}.jpg",
                traceparent="",
                replays=0,
            )
            if text:
                fields[fields.index("message") + 1] = text
            pipe.execute_command("XADD", DEAD, "*", "raw", b"x" * 200, *fields)
        return [dead_id.decode() for dead_id in await pipe.execute()]


async def listed(client: Redis) -> list[tuple[str, int, list[str]]]:
    groups = await DeadLetters(client).groups(DeadFilter())
    return sorted((one.fingerprint, one.count, [letter.id for letter in one.newest]) for one in groups)


async def counted(client: Redis) -> list[tuple[str, int, list[str]]]:
    """The same, each letter read."""
    found: dict[str, list[str]] = {}
    async for letter in DeadLetters(client).find(DeadFilter()):
        found.setdefault(letter.fingerprint, []).append(letter.id)
    return sorted((fingerprint, len(ids), ids[-3:]) for fingerprint, ids in found.items())


async def reads_of_a_list(client: Redis) -> int:
    """Count the pages that Redis groups for one list."""
    await client.config_resetstat()
    await listed(client)
    stats = await client.info("commandstats")
    # each of the three causes has three dead letters that are shown
    return int(stats["cmdstat_xrange"]["calls"]) - 9


async def test_a_second_list_groups_only_what_came_since(client: Redis) -> None:
    await die(client, MANY)
    assert await listed(client) == await counted(client)
    assert await reads_of_a_list(client) <= 1
    await die(client, 30)
    assert await reads_of_a_list(client) <= 2
    assert await listed(client) == await counted(client)


async def test_replay_and_discard_take_out_of_the_counts_what_is_gone(client: Redis) -> None:
    ids = await die(client, MANY)
    await listed(client)
    dead = DeadLetters(client)
    # old ones, the newest ones, and all of a cause
    last = await die(client, 3, cause="one more")
    for number, dead_id in enumerate([*ids[:5], *ids[-2:], *last]):
        letter = await dead.get(dead_id, agent=AGENT)
        assert letter
        if number % 2:
            assert await dead.discard(letter)
        else:
            assert (await dead.replay(letter)).outcome != "gone"
    assert await listed(client) == await counted(client)


async def test_old_ones_that_go_need_no_second_count(client: Redis) -> None:
    await die(client, MANY)
    await listed(client)
    dead = DeadLetters(client)
    async for letter in dead.find(DeadFilter(limit=60)):
        await dead.discard(letter)
    assert await reads_of_a_list(client) <= 1
    assert await listed(client) == await counted(client)


async def test_what_was_removed_by_hand_is_counted_again(client: Redis) -> None:
    ids = await die(client, MANY)
    await listed(client)
    await call(client, "XDEL", DEAD, *ids[:7])
    assert await listed(client) == await counted(client)
    # and that count is kept
    assert await reads_of_a_list(client) <= 1
    await call(client, "DEL", DEAD)
    assert await listed(client) == []


@pytest.mark.parametrize(
    "foreign",
    [
        ("SET", KEPT, "nonsense"),
        ("HSET", KEPT, "last", "nonsense"),
        ("HSET", KEPT, "last", "9999999999999-0"),
        ("HSET", KEPT, "last", b"\xff"),
        ("HSET", KEPT, "cause:abc", "many"),
        ("HSET", KEPT, "cause:abc", ""),
        ("HSET", KEPT, "cause:abc", "5 1-1 2-2 3-3"),
        ("HDEL", KEPT, "last"),
    ],
    ids=str,
)
async def test_a_foreign_value_in_the_place_of_the_counts_changes_no_list(
    client: Redis, foreign: tuple[str | bytes, ...]
) -> None:
    ids = await die(client, MANY)
    await listed(client)
    if foreign[0] == "SET":
        await client.delete(KEPT)
    await call(client, *foreign)
    assert await listed(client) == await counted(client)
    letter = await DeadLetters(client).get(ids[0], agent=AGENT)
    assert letter
    assert await DeadLetters(client).discard(letter)
    assert await listed(client) == await counted(client)


async def test_a_few_are_counted_each_time_and_nothing_is_written(client: Redis) -> None:
    await die(client, 30)
    await listed(client)
    assert not await client.exists(KEPT)


async def test_an_agent_counts_many_before_anybody_lists_them(client: Redis) -> None:
    await die(client, MANY)
    [stage] = [stage for stage in topology.PIPELINE if stage.agent == AGENT]
    keeping = asyncio.create_task(gauges.keep(client, stage, AgentMetrics(AGENT), [LANE]))
    try:
        await until(lambda: client.exists(KEPT))
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
    assert await reads_of_a_list(client) <= 1


async def test_bytes_that_are_no_text_are_listed_as_they_are_shown_alone(client: Redis) -> None:
    await die(client, 2)
    [odd] = await die(client, 1, text=b"no \xff text")
    dead = DeadLetters(client)
    found = {letter.id: letter async for letter in dead.find(DeadFilter())}
    assert found[odd] == await dead.get(odd, agent=AGENT)
    assert found[odd].message == "no \N{REPLACEMENT CHARACTER} text"
    assert len(found) == 3
