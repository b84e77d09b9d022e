"""GET /v1/stream while photos of other sessions end all the time: heartbeats come, and streams end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from console.gateway import stream_api
from tests.console.gateway.test_stream import SOON, ended, following, key_header
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from redis.asyncio import Redis

    from tests.console.gateway.conftest import Client


@asynccontextmanager
async def busy(redis: Redis) -> AsyncIterator[None]:
    """Let photos of other sessions end inside, one after the other."""

    async def work() -> None:
        while True:
            await ended(redis, "elsewhere", session="s2")

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_stream_has_heartbeats_although_other_photos_end_all_the_time(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_api, "HEARTBEAT_SECONDS", 0.5)
    async with busy(redis), following(client, "session=s1") as stream, asyncio.timeout(SOON):
        while not (await stream.answer.content.readline()).startswith(b":"):
            pass
        assert (await stream.answer.content.readline()).startswith(b"id: ")


async def test_a_removed_key_s_stream_ends_although_other_photos_end_all_the_time(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_api, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr("console.gateway.access.REMEMBERED_SECONDS", 0.0)
    async with busy(redis), following(client, "session=s1") as stream:
        await redis.delete("erni:keys")
        assert await stream.next() is None


async def test_a_client_that_left_leaves_its_place_although_other_photos_end_all_the_time(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_api, "MAX_STREAMS_OF_A_KEY", 1)
    monkeypatch.setattr(stream_api, "HEARTBEAT_SECONDS", 1000.0)

    async def has_room() -> bool:
        async with client.http.get(
            f"{client.url}/v1/stream?session=s1", headers=key_header(client)
        ) as answer:
            return answer.status == 200

    async with busy(redis):
        async with following(client, "session=s1"):
            assert not await has_room()
        await until(has_room)
