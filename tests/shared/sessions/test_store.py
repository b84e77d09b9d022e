"""A session is made, found, noted, listed, and forgotten; whatever stands in its place is no session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from events.connection import connect
from events.identities import InvalidIdError
from events.publisher import InvalidEventError, Publisher
from events.types import Target
from tests.shared.sessions.places import Place, age, call, fields, hashes, members, store_at

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.sessions.store import SessionStore

HOUR = 3600.0
WEEK = 7 * 24 * HOUR


@pytest.fixture
def store(client: Redis, place: Place) -> SessionStore:
    return store_at(client, place)


async def test_what_one_client_sets_another_finds_and_touches(store: SessionStore, place: Place) -> None:
    made = await store.set("seewen-12-mai", site="/sites/Bau", library="Fotos")
    assert made is not None
    assert (made.access_count, made.status, made.expected) == (0, "open", 0)
    redis = connect(place.url)
    other = store_at(redis, place)
    assert await other.touch("seewen-12-mai")
    found = await other.get("seewen-12-mai")
    await redis.aclose()
    assert found is not None
    assert (found.access_count, found.site, found.library) == (2, "/sites/Bau", "Fotos")
    assert found.last_accessed >= found.created_at == made.created_at
    peeked = await store.peek("seewen-12-mai")
    assert peeked == found


async def test_the_first_expected_counts_until_somebody_closes_it(
    store: SessionStore, client: Redis, place: Place
) -> None:
    publisher = Publisher(client, lanes=place.lanes)
    assert await publisher.open_session("s1", target=Target(site="/sites/Bau")) == 0
    assert await store.close("s1", expected=84) == 84
    again = await store.set("s1", expected=7, library="Fotos")
    assert again is not None
    assert (again.expected, again.site, again.library) == (84, "/sites/Bau", "Fotos")
    assert await publisher.open_session("s1", expected=9) == 84
    assert await store.close("s1", expected=83) == 83
    assert await publisher.open_session("s1", expected=9) == 83
    for wrong in (0, -1):
        with pytest.raises(InvalidEventError):
            await store.close("s1", expected=wrong)


async def test_deleting_leaves_nothing(store: SessionStore, client: Redis, place: Place) -> None:
    await store.set("s1", expected=3)
    await call(client, "ZADD", place.lane("s1").session_photos("s1"), 1, "p1")
    assert await store.delete("s1")
    assert not await store.delete("s1")
    assert await store.get("s1") is None
    left = [key async for key in client.scan_iter()]
    assert left == [place.lane("s1").session_stats.encode()]


async def test_a_touch_is_one_round_trip(store: SessionStore, client: Redis, place: Place) -> None:
    await store.set("s1")
    await store.touch("s1")  # the server knows the script now
    async with connect(place.url) as other, other.monitor() as monitor:
        await store.touch("s1")
        await call(client, "ECHO", "end")
        seen = []
        async for line in monitor.listen():
            if line["command"].startswith("ECHO"):
                break
            if line["client_type"] != "lua":
                seen.append(line["command"].split()[0])
    assert seen == ["EVALSHA"]


async def test_every_session_is_on_one_page_and_those_in_flight_come_first(
    store: SessionStore, client: Redis, place: Place
) -> None:
    names = [f"s{number}" for number in range(20)]
    await asyncio.gather(*(store.set(name, expected=number % 2) for number, name in enumerate(names)))
    lane = place.all[0]
    rest = await call(client, "ZRANGE", lane.session_lru, 0, -1)
    for name in rest:  # many accesses in one millisecond
        await call(client, "ZADD", lane.session_lru, 1 << 45, name)
    cursor, seen, pages = "", list[str](), 0
    while pages == 0 or cursor:
        cursor, page = await store.page(cursor, 3)
        assert len(page) <= 3
        seen += [session.session_id for session in page]
        pages += 1
    assert sorted(seen) == sorted(names)
    if place.lanes == 1:
        assert {int(name[1:]) % 2 for name in seen[:10]} == {1}
    for wrong in ("x", "0:0:+inf", "9:0:1:0", "0:2:1:0", "0:0:1:-1", "0:0:nobody:0"):
        with pytest.raises(ValueError, match="no cursor"):
            await store.page(wrong)


async def test_the_numbers_are_those_of_all_clients(store: SessionStore, place: Place) -> None:
    redis = connect(place.url)
    other = store_at(redis, place)
    await store.set("s1", expected=1)
    await other.set("s2")
    await store.get("s2")
    await other.get("s1")
    await other.get("nobody")
    seen = await store.stats()
    assert seen == await other.stats()
    await redis.aclose()
    assert (seen.sessions, seen.open, seen.created) == (2, 1, 2)
    assert (seen.hits, seen.misses, seen.hit_rate) == (2, 1, 0.6667)
    assert (seen.errors, seen.evicted, seen.expired, seen.fallback) == (0, 0, 0, False)


async def test_more_tasks_than_connections_are_no_outage(store: SessionStore) -> None:
    await store.set("s1")
    assert all(await asyncio.gather(*(store.touch("s1") for _ in range(100))))
    found = await store.peek("s1")
    assert found is not None
    assert found.access_count == 100
    assert (await store.stats()).errors == 0


async def test_the_time_to_live_slides_with_every_access(
    store: SessionStore, client: Redis, place: Place
) -> None:
    await store.set("s1")
    for _ in range(3):
        await age(client, place, "s1", HOUR - 60)
        assert await store.get("s1")
    assert HOUR * 1000 < await client.pttl(place.lane("s1").session("s1")) < 2 * HOUR * 1000
    await age(client, place, "s1", HOUR + 1)
    assert await store.peek("s1") is None
    assert await hashes(client, place) == set()
    assert await members(client, place, "session_lru") == []
    assert (await store.stats()).expired == 1


@pytest.mark.parametrize("waits", ["photos in flight", "dead letters", "a postponed photo"])
async def test_who_waits_is_remembered_for_a_week(
    store: SessionStore, client: Redis, place: Place, waits: str
) -> None:
    await store.set("s1", expected=2 if waits == "photos in flight" else 0)
    counter = {"dead letters": "dead", "a postponed photo": "postponed"}.get(waits, "received")
    await client.hset(place.lane("s1").session("s1"), counter, "1")
    if waits == "dead letters":
        await client.hset(place.lane("s1").session("s1"), "received", "1")
    await store.touch("s1")
    await age(client, place, "s1", WEEK - 60)
    assert await store.sweep() == 0
    assert await store.get("s1")
    await age(client, place, "s1", WEEK + 1)
    assert await store.sweep() == 1
    assert await store.get("s1") is None
    assert await members(client, place, "session_open") == []


async def test_the_sweep_finds_what_is_due_behind_many_that_wait_with_dead_letters(
    store: SessionStore, client: Redis, place: Place
) -> None:
    names = place.one_lane(151)
    for name in names:
        await store.set(name)
        if name != names[-1]:
            await client.hset(place.lane(name).session(name), "dead", "1")
    for name in names:
        await age(client, place, name, 2 * HOUR)
    assert sum([await store.sweep() for _ in range(3)]) == 1
    assert len(await members(client, place, "session_lru")) == 150
    assert await store.peek(names[-1]) is None


async def test_a_member_whose_hash_is_gone_goes_with_an_access_or_the_sweep(
    store: SessionStore, client: Redis, place: Place
) -> None:
    for name in ("s1", "s2"):
        await store.set(name)
        await age(client, place, name, 2 * HOUR)
        await client.delete(place.lane(name).session(name))
    assert await store.get("s1") is None
    assert await members(client, place, "session_lru") == ["s2"]
    await store.sweep()
    assert await members(client, place, "session_lru") == []


async def test_the_least_recently_used_go_first_and_those_in_flight_never(
    client: Redis, place: Place
) -> None:
    names = place.one_lane(30)
    store = store_at(client, place, limit=8 * place.lanes)
    for name in names[:3]:
        await store.set(name, expected=1)
    for name in names[3:8]:
        await store.set(name)
        await age(client, place, name, 10 - names.index(name))
    await store.touch(names[3])
    for name in names[8:10]:
        await store.set(name)
    assert await hashes(client, place) == {*names[:4], *names[6:10]}
    for name in names[10:]:
        await store.set(name)
        assert len(await members(client, place, "session_lru")) == 5
    assert sorted(await members(client, place, "session_open")) == sorted(names[:3])
    stats = await store.stats()
    assert (stats.sessions, stats.evicted, stats.created) == (8, 22, 30)


async def test_concurrent_writers_exceed_the_limit_by_no_more_than_their_number(
    client: Redis, place: Place
) -> None:
    stores = [store_at(client, place, limit=4 * place.lanes) for _ in range(2)]
    highest = 0

    async def write(number: int) -> None:
        nonlocal highest
        for step in range(25):
            await stores[number % 2].set(f"s{number}-{step}")
            counts = [await client.zcard(lane.session_lru) for lane in place.all]
            highest = max(highest, *counts)

    await asyncio.gather(*(write(number) for number in range(6)))
    assert 4 <= highest <= 4 + 6
    assert [await client.zcard(lane.session_lru) for lane in place.all] == [4] * place.lanes


async def test_sessions_in_flight_may_be_more_than_the_limit_and_a_metric_says_so(
    client: Redis, place: Place
) -> None:
    from shared.telemetry.metrics import SESSIONS_OPEN, SESSIONS_OVER_LIMIT

    store = store_at(client, place, limit=2 * place.lanes)
    for number in range(12 * place.lanes):
        await store.set(f"s{number}", expected=1)
    await store.sweep()
    assert len(await members(client, place, "session_open")) == 12 * place.lanes
    assert SESSIONS_OPEN._value.get() == 12 * place.lanes
    assert SESSIONS_OVER_LIMIT._value.get() == 10 * place.lanes


BAD_IDS = [
    "",
    "a:b",
    "{1}",
    "a}b{",
    "line\nbreak",
    "ä",
    "a/b",
    "x" * 129,
    "x" * 10_000,
    "open",
    "lru",
    "stats",
    "-a",
]


@pytest.mark.parametrize("wrong", BAD_IDS)
async def test_an_id_that_cannot_be_one_is_refused_before_redis_hears_of_it(
    store: SessionStore, client: Redis, wrong: str
) -> None:
    for ask in (store.get, store.peek, store.touch, store.set, store.delete):
        with pytest.raises(InvalidIdError, match="session_id"):
            await ask(wrong)
    with pytest.raises(InvalidIdError):
        await store.close(wrong, expected=1)
    assert await client.dbsize() == 0


FOREIGN = [
    ("SET", "garbage"),
    ("RPUSH", "garbage"),
    ("HSET", "foo", "bar"),
    ("HSET", "session_id", "somebody-else", "created_at", "1", "last_accessed", "1", "access_count", "0"),
    ("HSET", "session_id", "s1", "created_at", "yesterday", "last_accessed", "1", "access_count", "0"),
    ("HSET", "session_id", "s1", "created_at", "1", "last_accessed", "1", "access_count", "9" * 19),
    ("HSET", "session_id", "s1", "created_at", "1", "last_accessed", "1", "access_count", "0", "dead", "x"),
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda words: words[0] + " " + words[-1][:9])
@pytest.mark.leaves_keys(r"erni:session:s1")
async def test_what_is_no_session_counts_as_absent(
    store: SessionStore, client: Redis, place: Place, foreign: tuple[str, ...]
) -> None:
    lane = place.lane("s1")
    for index in (lane.session_open, lane.session_lru):
        await call(client, foreign[0], lane.session("s1"), *foreign[1:])
        await call(client, "ZADD", index, "1", "s1")
        assert await store.peek("s1") is None
        assert await store.get("s1") is None
        assert not await store.touch("s1")
        assert await store.page() == ("", [])
        assert await Publisher(client, lanes=place.lanes).open_session("s1", expected=4) == 0
        assert not await store.delete("s1")
        assert await hashes(client, place) == set()
    await call(client, foreign[0], lane.session("s1"), *foreign[1:])
    made = await store.set("s1", expected=3)
    assert made is not None
    assert (made.expected, made.counters) == (3, {})
    assert await members(client, place, "session_open") == ["s1"]
    assert (await store.stats()).errors > 0
    assert not store.fallback


async def test_foreign_values_in_place_of_the_indexes_are_none(
    store: SessionStore, client: Redis, place: Place
) -> None:
    lane = place.lane("s1")
    for key in (lane.session_open, lane.session_lru, lane.session_stats):
        await client.set(key, "garbage", ex=60)
    assert await store.page() == ("", [])
    await store.sweep()
    assert (await store.stats()).sessions == 0
    for expected in (0, 1):
        assert await store.set("s1", expected=expected)
        assert await store.get("s1")
    assert await members(client, place, "session_open") == ["s1"]
    assert (await fields(client, place, "s1"))["access_count"] == "2"
    assert not store.fallback
