"""The sessions of one process: the same limit and lifetime, and no more than that is kept."""

from __future__ import annotations

import structlog

from events.identities import SessionId
from shared.sessions.process_store import MemorySessions
from shared.sessions.record import Session
from shared.sessions.store import SessionStore
from tests.shared.delivery.harness import settings_for

A, B, C = SessionId("a"), SessionId("b"), SessionId("c")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_least_recently_used_goes_first_and_what_was_to_be_merged_with_it() -> None:
    memory = MemorySessions(limit=2, ttl=60)
    memory.put(A)
    memory.put(B)
    memory.touch(A)
    memory.put(C)
    assert [session.session_id for session in memory.all()] == [C, A]
    assert dict(memory.unmerged) == {A: 1, C: 0}
    assert memory.evicted == 1


def test_the_time_to_live_slides() -> None:
    clock = Clock()
    memory = MemorySessions(limit=10, ttl=60, clock=clock)
    memory.put(A)
    memory.put(B)
    clock.now += 50
    assert memory.touch(A)
    clock.now += 50
    assert memory.peek(B) is None
    session = memory.peek(A)
    assert session is not None
    assert (session.access_count, session.last_accessed) == (1, 1050.0)
    assert (len(memory), memory.expired, dict(memory.unmerged)) == (1, 1, {A: 1})


def test_a_copy_of_an_old_session_does_not_hide_that_it_is_old() -> None:
    clock = Clock()
    memory = MemorySessions(limit=10, ttl=60, clock=clock)
    memory.put(A)
    memory.remember(Session(session_id=B, created_at=1.0, last_accessed=1.0))
    assert memory.peek(B) is None
    waiting = Session(session_id=C, created_at=1.0, last_accessed=1.0, counters={"received": 2, "dead": 1})
    memory.remember(waiting)
    assert memory.peek(C) == waiting


def test_deletions_to_be_merged_are_bounded_too() -> None:
    memory = MemorySessions(limit=3, ttl=60)
    for number in range(10):
        memory.delete(SessionId(f"s{number}"))
    assert list(memory.deleted) == ["s7", "s8", "s9"]


async def test_the_memory_backend_says_so_and_does_everything_without_redis() -> None:
    settings = settings_for("redis://127.0.0.1:1/0", session_backend="memory", session_max=2)
    with structlog.testing.capture_logs() as logs:
        store = SessionStore.from_settings(settings)
    assert [line["event"] for line in logs] == [
        "sessions are kept in this process alone: no shared progress, no session.completed"
    ]
    made = await store.set("s1", site="/sites/Bau")
    assert made is not None
    assert await store.touch("s1")
    assert await store.close("s1", expected=4) == 4
    assert await store.close("s1", expected=5) == 5
    found = await store.get("s1")
    assert found is not None
    assert (found.access_count, found.expected, found.site, found.counters) == (2, 5, "/sites/Bau", {})
    assert not await store.touch("nobody")
    await store.set("s2")
    await store.set("s3")
    assert [session.session_id for session in (await store.page())[1]] == ["s3", "s2"]
    assert await store.delete("s2")
    stats = await store.stats()
    assert (stats.sessions, stats.created, stats.evicted, stats.hits, stats.misses) == (1, 3, 1, 2, 1)
    assert not stats.fallback
    assert await store.sweep() == 0
    await store.aclose()
