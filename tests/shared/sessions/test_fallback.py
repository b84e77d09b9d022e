"""Redis goes away and comes back: nobody notices, and what was written meanwhile is merged."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
import structlog
from redis.exceptions import AuthenticationError

from events.connection import connect
from shared.sessions.store import ANSWER_SECONDS, SessionStore
from shared.telemetry.metrics import SESSION_FALLBACK
from tests.shared.delivery.harness import settings_for
from tests.shared.sessions.places import Place, call, fields, store_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def redis(own_redis_server: Valkey) -> AsyncIterator[Redis]:
    client = connect(own_redis_server.url, timeout=ANSWER_SECONDS)
    yield client
    await client.aclose()


@pytest.fixture
def place(own_redis_server: Valkey) -> Place:
    return Place(url=own_redis_server.url, lanes=1)


@pytest.fixture
def store(redis: Redis, clock: Clock) -> SessionStore:
    return SessionStore(redis, clock=clock)


async def test_reads_and_writes_go_on_from_memory_and_come_back_merged(
    store: SessionStore, redis: Redis, place: Place, clock: Clock, own_redis_server: Valkey
) -> None:
    for name in ("known", "other", "deleted", "refreshed"):
        await store.set(name, site="/sites/Bau")
    await store.touch("known")
    with structlog.testing.capture_logs() as logs:
        own_redis_server.stop()
        known = await store.get("known")
        assert known is not None
        assert (known.access_count, known.site) == (2, "/sites/Bau")
        assert store.fallback
        assert SESSION_FALLBACK._value.get() == 1
        made = await store.set("made", expected=0, library="Fotos")
        assert made is not None
        assert await store.touch("made")
        assert await store.close("made", expected=3) == 3
        assert await store.delete("deleted")
        assert await store.delete("refreshed")
        assert await store.set("refreshed", library="Neu")
        assert await store.get("deleted") is None
        assert await store.get("never seen here".replace(" ", "-")) is None
        assert {session.session_id for session in (await store.page())[1]} >= {"known", "made"}
        assert await store.sweep() == 0
        assert (await store.stats()).fallback is True

        own_redis_server.start()
        async with connect(place.url) as client:
            # somebody else was there first
            other = store_at(client, place)
            for _ in range(3):
                await other.touch("known")
        assert store.fallback
        clock.now += 1.0
        back = await store.get("known")
    assert SESSION_FALLBACK._value.get() == 0
    assert back is not None
    # 1 before, 1 in memory, 3 of the other, 1 now
    assert back.access_count == 6
    assert (await fields(redis, place, "made")) | {"created_at": "", "last_accessed": ""} == {
        "session_id": "made",
        "created_at": "",
        "last_accessed": "",
        "access_count": "1",
        "status": "open",
        "completion": "0",
        "library": "Fotos",
        "expected": "3",
    }
    refreshed = await store.peek("refreshed")
    assert refreshed is not None
    assert (refreshed.site, refreshed.library) == ("", "Neu")
    assert await store.get("deleted") is None
    assert [line["event"] for line in logs] == [
        "sessions fall back to memory",
        "sessions are back in Redis",
    ]
    assert logs[1]["merged"] == 3
    assert (await store.stats()).fallback is False


async def test_many_tasks_that_find_redis_back_merge_once(
    store: SessionStore, redis: Redis, place: Place, clock: Clock, own_redis_server: Valkey
) -> None:
    await store.set("s1")
    own_redis_server.kill()
    assert all(await asyncio.gather(*(store.touch("s1") for _ in range(50))))
    own_redis_server.start()
    clock.now += 1.0
    assert all(await asyncio.gather(*(store.touch("s1") for _ in range(50))))
    clock.now += 1.0
    await store.sweep()
    assert not store.fallback
    assert (await fields(redis, place, "s1"))["access_count"] == "100"


async def test_the_later_access_wins(
    store: SessionStore, redis: Redis, place: Place, clock: Clock, own_redis_server: Valkey
) -> None:
    await store.set("s1", site="/before")
    own_redis_server.stop()
    await store.set("s1", site="/while-away")
    own_redis_server.start()
    async with connect(place.url) as client:
        later = await store_at(client, place).set("s1", site="/later")
    assert later is not None
    clock.now += 1.0
    merged = await store.peek("s1")
    assert merged is not None
    assert (merged.site, merged.last_accessed) == ("/later", later.last_accessed)


async def test_who_was_used_after_its_deletion_stays(
    store: SessionStore, place: Place, clock: Clock, own_redis_server: Valkey
) -> None:
    await store.set("s1")
    own_redis_server.stop()
    assert await store.delete("s1")
    own_redis_server.start()
    async with connect(place.url) as client:
        assert await store_at(client, place).touch("s1")
    clock.now += 1.0
    assert await store.touch("s1")


async def test_a_redis_that_does_not_answer_holds_nobody_up(own_redis_server: Valkey) -> None:
    store = SessionStore.from_settings(settings_for(own_redis_server.url))
    await store.set("s1")
    os.kill(own_redis_server.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert all(await asyncio.gather(*(store.touch("s1") for _ in range(40))))
        assert store.fallback
        assert time.monotonic() - started < 3 * ANSWER_SECONDS
    finally:
        os.kill(own_redis_server.pid, signal.SIGCONT)
        await store.aclose()


async def test_a_foreign_index_does_not_keep_it_from_coming_back(
    store: SessionStore, redis: Redis, clock: Clock, own_redis_server: Valkey
) -> None:
    own_redis_server.stop()
    assert await store.set("s1")
    own_redis_server.start()
    await redis.set("erni:session:lru", "garbage")
    clock.now += 1.0
    assert await store.touch("s1")
    assert not store.fallback
    assert await call(redis, "ZRANGE", "erni:session:lru", 0, -1) == [b"s1"]


async def test_a_wrong_password_needs_a_person(own_redis_server: Valkey) -> None:
    async with connect(own_redis_server.url) as admin:
        await call(admin, "CONFIG", "SET", "requirepass", "right")
        async with connect(own_redis_server.url, password="wrong") as client:
            with pytest.raises(AuthenticationError):
                await SessionStore(client).get("s1")
