"""The question's lock is let go even when the client swallows the cancellation of its renewal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.asyncio.lock import Lock

from shared.photo_store import BlobStore
from shared.vision.cache import AnswerCache
from shared.vision.contract import Answer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from redis.asyncio import Redis


async def test_an_answer_is_given_though_the_renewal_swallows_its_cancellation(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewing = asyncio.Event()

    async def reacquire(_: Lock) -> bool:
        first = not renewing.is_set()
        renewing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # as `asyncio.wait_for` may when the connection is there in the same moment (Python 3.11)
            if not first:
                raise
        return True

    monkeypatch.setattr(Lock, "reacquire", reacquire)

    async def ask() -> Answer:
        await renewing.wait()
        return Answer(fields={})

    cache = AnswerCache(BlobStore(str(tmp_path)), redis, lease=0.3)
    async with asyncio.timeout(5):
        answer, kept = await cache.answer("k", ask)
    assert answer == Answer(fields={})
    assert not kept
