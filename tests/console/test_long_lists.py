"""Long lists cost little: few round trips, and no more work than the entries themselves."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from console.commands.dead import _document
from console.commands.session import _tell_all
from console.output import Output
from console.sessions import SessionView
from events.connection import call, connect
from events.keys import Keys
from shared.delivery.dead_letter import letter_fields
from shared.operations import photos
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.letter_pages import AT_ONCE
from shared.sessions.shared_store import _PAGE as _SESSIONS
from shared.sessions.shared_store import SharedSessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis

COUNT = 3000
DEAD = Keys().dead("photo_fetcher")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as made:
        yield made


async def bury(client: Redis, count: int, raw: int) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            fields = letter_fields(
                agent="photo_fetcher",
                stream="schema.extracted",
                entry_id=f"1764012345678-{number}",
                consumer="worker",
                reason="permanent",
                error_type="ValueError",
                message=f"cause {number % 20} of them all",
                deliveries=1,
                photo_id=f"photo-{number}",
                session_id="s",
                file_name=f"IMG_{number}.jpg",
                traceparent="",
                replays=0,
            )
            pipe.execute_command("XADD", DEAD, "*", "raw", b"x" * raw, *fields)
        await pipe.execute()


async def all_of(client: Redis) -> int:
    dead = DeadLetters(client)
    return len([letter async for letter in dead.find(DeadFilter(agent="photo_fetcher"))])


async def test_a_list_takes_one_round_trip_for_each_page(client: Redis) -> None:
    await bury(client, COUNT, raw=1000)
    before = (await client.info("stats"))["total_reads_processed"]
    assert await all_of(client) == COUNT
    # few at first, as they may be large
    assert (await client.info("stats"))["total_reads_processed"] - before <= COUNT / AT_ONCE + 12


async def test_a_list_costs_the_server_little_more_than_reading_the_stream(client: Redis) -> None:
    await bury(client, COUNT, raw=1000)

    async def spent(read: Callable[[], Awaitable[object]]) -> int:
        await client.config_resetstat()
        await read()
        stats = await client.info("commandstats")
        return sum(stats[name]["usec"] for name in ("cmdstat_xrange", "cmdstat_evalsha") if name in stats)

    bares, ours = [], []
    for _ in range(5):
        bares.append(await spent(lambda: call(client, "XRANGE", DEAD, "-", "+")))
        ours.append(await spent(lambda: all_of(client)))
    assert min(ours) < 2 * min(bares)


async def test_all_archived_letters_are_counted_without_reading_them(client: Redis) -> None:
    await bury(client, 600, raw=10)
    await client.rename(DEAD, Keys().archive("photo_fetcher"))
    dead = DeadLetters(client)
    await client.config_resetstat()
    assert await dead.count(DeadFilter(), archived=True) == 600
    assert await dead.count(DeadFilter(agent="photo_fetcher"), archived=True) == 600
    assert await dead.count(DeadFilter(agent="vision_analyzer"), archived=True) == 0
    stats = await client.info("commandstats")
    assert not {"cmdstat_xrange", "cmdstat_xrevrange"} & set(stats)
    assert await dead.count(DeadFilter(photo="photo-7"), archived=True) == 1
    assert await dead.count(DeadFilter(limit=7), archived=True) == 7


async def test_large_entries_are_read_few_at_a_time(client: Redis) -> None:
    await bury(client, 40, raw=250_000)
    dead = DeadLetters(client)
    await client.config_resetstat()
    before = (await client.info("memory"))["used_memory_peak"]
    assert len([letter async for letter in dead.find(DeadFilter(agent="photo_fetcher"))]) == 40
    assert (await client.info("commandstats"))["cmdstat_xrange"]["calls"] >= 10
    # all 40 at once would take 10 MB more
    assert (await client.info("memory"))["used_memory_peak"] - before < 6_000_000


async def test_a_list_of_sessions_takes_one_round_trip_for_each_page(client: Redis) -> None:
    sessions = SharedSessions(client, lanes=1, limit=COUNT, ttl=3600.0)
    async with client.pipeline(transaction=False) as pipe:
        for number in range(COUNT):
            name = f"bau-{number}"
            pipe.hset(
                Keys().session(name),
                mapping={
                    "session_id": name,
                    "created_at": 1764012345000,
                    "last_accessed": 1764012345000,
                    "access_count": 1,
                },
            )
            pipe.pexpire(Keys().session(name), 3_600_000)
            pipe.zadd(Keys().session_lru, {name: time.time() * 1000 + number})
        await pipe.execute()
    await client.config_resetstat()
    found = await sessions.newest(COUNT)
    assert [session.session_id for session in found[:2]] == [f"bau-{COUNT - 1}", f"bau-{COUNT - 2}"]
    assert len(found) == COUNT
    stats = await client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] <= COUNT / _SESSIONS + 1
    assert "cmdstat_hgetall" in stats


async def test_the_photos_of_a_session_take_few_round_trips_and_end_at_a_limit(client: Redis) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number in range(COUNT):
            pipe.hset(Keys().photo(f"p-{number}"), "file_name", f"{number}.jpg")
            pipe.expire(Keys().photo(f"p-{number}"), 60)
            pipe.zadd(Keys().session_photos("s"), {f"p-{number}": number})
        pipe.expire(Keys().session_photos("s"), 60)
        pipe.delete(Keys().photo("p-7"))
        await pipe.execute()
    before = (await client.info("stats"))["total_reads_processed"]
    found = await photos.of_session(client, "s")
    # a round trip for each photo would be thousands
    assert (await client.info("stats"))["total_reads_processed"] - before < COUNT / 20
    assert [one.photo_id for one in found] == [f"p-{number}" for number in range(COUNT)]
    assert [found[6].file_name, found[7].file_name, found[8].file_name] == ["6.jpg", None, "8.jpg"]
    assert await photos.of_session(client, "s", most=5) == found[:5]
    assert await photos.count_of_session(client, "s") == COUNT


@pytest.mark.parametrize("command", ["dead", "session"])
def test_a_command_that_lists_loads_no_http_client(command: str) -> None:
    """It takes a third of the time in which a list is there."""
    program = (
        f"import console.main, console.commands.{command}, console.explain, console.system\n"
        "import console.sessions\n"
        "import shared.operations.dead_letters, sys\n"
        "sys.exit('aiohttp' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_the_json_costs_little_more_than_reading_the_stream(client: Redis) -> None:
    await bury(client, COUNT, raw=1000)

    async def bare() -> float:
        began, start = time.process_time(), "-"
        while page := await call(client, "XRANGE", DEAD, start, "+", "COUNT", AT_ONCE):
            start = "(" + page[-1][0].decode()
        return time.process_time() - began

    async def document() -> float:
        began = time.process_time()
        size = sum(map(len, await _document(DeadLetters(client).find(DeadFilter()))))
        assert size > COUNT * 300
        return time.process_time() - began

    bares, ours = [], []
    for _ in range(5):
        bares.append(await bare())
        ours.append(await document())
    assert min(ours) < 6 * min(bares)


def test_a_row_of_the_sessions_costs_a_fraction_of_a_table_of_rich() -> None:
    from rich.console import Console
    from rich.table import Table

    views = [
        SessionView(
            session_id=f"bau-{number}",
            status="open",
            expected=10,
            received=10,
            validated=5,
            dead=number % 2,
            postponed=0,
            completion=0,
            created_at=1764012345.0,
            last_accessed=1764012345.0,
            access_count=1,
            site="",
            library="",
            in_flight=3,
            counters={},
        )
        for number in range(500)
    ]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        began = time.process_time()
        _tell_all(Output(as_json=False), views)
        ours = time.process_time() - began
    began = time.process_time()
    table = Table("session", "last used", "photos", "valid", "dead", "moving")
    for view in views:
        table.add_row(view.session_id, "x" * 19, "10", "5", "1", "3")
    Console(file=io.StringIO(), width=160).print(table)
    theirs = time.process_time() - began
    assert len(text.getvalue().splitlines()) == 501
    assert ours < theirs / 3
