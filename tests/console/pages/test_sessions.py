"""What the pages of sessions say about the end of their photos, and about those that need a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from events.identities import SessionId
from shared.sessions.store import SessionStore
from tests.console.pipeline import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

SESSION = SessionId("seewen-12-nov")


async def session(redis: Redis, client: Any, *, photos: int, dead: int) -> None:
    """A session that has ended, with so many dead photos."""
    store = SessionStore(redis)
    await store.set(SESSION, library="Referenzfotos", site="/sites/Bau", expected=photos)
    await store.aclose()
    counters = {"received": photos, "validated": photos - dead, "dead": dead}
    client.hset(KEYS.session(SESSION), mapping=counters | {"completion": 1, "status": "completed"})


@pytest.mark.parametrize("dead", [0, 1, 20])
async def test_a_session_is_complete_only_if_no_photo_failed(
    enter: Callable[..., Any], redis: Redis, client: Any, dead: int
) -> None:
    await session(redis, client, photos=20, dead=dead)
    viewer = await enter("viewer")
    for path in (f"/sessions/{SESSION}", "/sessions"):
        page = await viewer.get(path)
        assert ("t-done" in page.html) == (dead == 0), path
        assert ("complete " in page.text) == (dead == 0), path
        assert (f"ended, {dead} failed" in page.text) == (dead > 0), path
    assert ("20 of 20 · " in page.text) == (dead > 0)
