"""Large pictures whose uploader died, and the same large picture twice at a time, against the emulator."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from events.keys import Keys
from shared.retry.errors import PostponeError
from shared.sharepoint.client import GraphClient
from shared.sharepoint.filing import Filing
from shared.sharepoint.open_sessions import OpenSession, OpenSessions
from shared.sharepoint.uploads import NameTakenError, Uploader

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from events.types import PhotoAnalyzed
    from tests.shared.sharepoint.desk import Desk

STEP = 327_680
LATER = 61.0
"""Seconds after which a silent worker's session may be continued."""


def worker(desk: Desk, redis: Redis | None, *, ahead: float = 0.0) -> Filing:
    """A worker that uploads everything in chunks; its clock is `ahead` seconds ahead."""
    sessions = OpenSessions(redis, Keys(), clock=lambda: time.time() + ahead) if redis else None
    uploader = Uploader(desk.client, sessions=sessions, simple_limit=1_000, chunk=STEP, backoff=0)
    return Filing(desk.client, desk.store, desk.libraries, desk.settings, uploader=uploader)


async def killed_after_a_chunk(filing: Filing, photo: PhotoAnalyzed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker die between its first chunk and its second."""
    plain, sent = GraphClient.plain, 0

    async def dying(self: GraphClient, method: str, *arguments: Any, **named: Any) -> Any:
        nonlocal sent
        sent += method == "PUT"
        if sent > 1:
            raise asyncio.CancelledError
        return await plain(self, method, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(GraphClient, "plain", dying)
        with pytest.raises(asyncio.CancelledError):
            await filing.file(photo)


async def test_a_large_picture_whose_uploader_died_is_continued_where_it_was(
    desk: Desk, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * STEP + 1_000)
    photo = await desk.photo({"Ort": "Seewen"}, data)
    await killed_after_a_chunk(worker(desk, redis), photo, monkeypatch)
    filed = await worker(desk, redis, ahead=LATER).file(photo)
    assert [path.read_bytes() for path in desk.emulator.stored(filed.item.name)] == [data]
    assert [effect.effect for effect in desk.emulator.effects(filed.item.name)] == [
        "session_created",
        "upload",
        "session_finished",
        "fields",
    ]
    assert await redis.keys("erni:upload:*") == []


async def test_a_session_that_another_worker_sends_to_is_left_to_it(
    desk: Desk, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = await desk.photo({}, os.urandom(2 * STEP))
    await killed_after_a_chunk(worker(desk, redis), photo, monkeypatch)
    with pytest.raises(PostponeError, match="another worker is sending the same picture") as caught:
        await worker(desk, redis).file(photo)
    assert 0 < caught.value.seconds <= 60


async def test_the_same_large_picture_twice_at_a_time_in_one_worker_is_sent_once(
    desk: Desk, redis: Redis
) -> None:
    data = os.urandom(2 * STEP)
    filing = worker(desk, redis)
    photos = [await desk.photo({}, data, photo_id=f"p-{n}") for n in range(3)]
    results = await asyncio.gather(*(filing.file(photo) for photo in photos), return_exceptions=True)
    [filed] = [result for result in results if not isinstance(result, BaseException)]
    assert sum(isinstance(result, PostponeError) for result in results) == 2
    effects = [effect.effect for effect in desk.emulator.effects(filed.item.name)]
    assert effects.count("session_created") == effects.count("upload") == 1
    again = await filing.file(photos[1])
    assert again.item.item_id == filed.item.item_id


@pytest.mark.parametrize("known", [False, True])
async def test_a_name_that_an_unknown_session_keeps_is_postponed_until_that_ends(
    desk: Desk, redis: Redis, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """The session's address is lost: Redis was emptied, or the worker died before it could write."""
    photo = await desk.photo({"Ort": "Goldau"}, os.urandom(2 * STEP))
    await killed_after_a_chunk(worker(desk, redis), photo, monkeypatch)
    await redis.flushdb()
    filing = worker(desk, redis if known else None)
    for _ in range(2):
        with pytest.raises(PostponeError, match="keeps the name until its session ends") as caught:
            await filing.file(photo)
        assert caught.value.seconds == 300
    await desk.emulator.admin("POST", "/expire/sessions")
    assert (await filing.file(photo)).item.outcome == "created"


async def test_a_taken_name_without_a_file_is_an_upload_that_has_not_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SharePoint also says "The specified item name already exists" (onedrive-api-docs issue 747)."""

    async def taken(*_: object, **__: object) -> None:
        raise NameTakenError("The specified item name already exists.")

    monkeypatch.setattr(Uploader, "create", taken)
    with pytest.raises(PostponeError, match="an upload that has not ended keeps the name"):
        await worker(desk, None).file(await desk.photo({}))


async def test_after_an_outage_the_same_session_goes_on(desk: Desk, redis: Redis) -> None:
    data = os.urandom(2 * STEP)
    photo = await desk.photo({}, data)
    filing = worker(desk, redis)
    await desk.emulator.fault(kind="reset", method="PUT", match="/_storage/upload/")
    await desk.emulator.fault(kind="reset", method="GET", match="/_storage/upload/")
    with pytest.raises(aiohttp.ClientError):
        await filing.file(photo)
    await desk.emulator.admin("DELETE", "/fault")
    filed = await filing.file(photo)
    effects = [effect.effect for effect in desk.emulator.effects(filed.item.name)]
    assert effects.count("session_created") == 1


async def test_the_address_is_kept_no_longer_than_the_session(redis: Redis) -> None:
    sessions = OpenSessions(redis, Keys(), clock=lambda: 1_000.0)
    session = OpenSession(
        url="https://x.test/secret", owner="a", seen=1_000.0, expires="1970-01-01T00:17:10Z"
    )
    await sessions.keep("n", session)
    assert 29_000 < await redis.pttl("erni:upload:n") <= 30_000
    await sessions.keep("n", msgspec.structs.replace(session, expires="soon"))
    assert 899_000 < await redis.pttl("erni:upload:n") <= 900_000
    await redis.set("erni:upload:n", b"no json", px=1_000)
    assert await sessions.get("n") is None
