"""Requests that wait at the same time share calls of Redis, and each keeps its own answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from console.gateway import merging
from events import topology
from events.connection import call
from tests.console.gateway.conftest import Client, event
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    import pytest
    from redis.asyncio import Redis

    from shared.settings import Settings
    from tests.console.gateway.conftest import Answer

INTAKE = "erni:photo.submitted"
BULK = f"erni:{topology.bulk_of('photo.submitted')}"


async def together(client: Client, redis: Redis, requests: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """Let one request wait in Redis, then send all the others; the last answers are theirs."""
    await call(redis, "CLIENT PAUSE", 60_000, "WRITE")
    first = asyncio.ensure_future(client.publish(event("first")))
    await until(lambda: _blocked(redis, 1))
    others = [asyncio.ensure_future(request) for request in requests]
    # answered by the same process after it has read them all, because it needs Redis for none of it
    for _ in range(3):
        await client.ask("GET", "/v1/openapi.json")
    await call(redis, "CLIENT UNPAUSE")
    assert (await first).status == 202
    return list(await asyncio.gather(*others))


async def _blocked(redis: Redis, number: int) -> bool:
    found = await redis.info("clients")
    return bool(found["blocked_clients"] >= number)


async def _calls(redis: Redis) -> int:
    found = await redis.info("commandstats")
    return int(found.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_a_hundred_requests_at_once_are_a_few_calls(client: Client, redis: Redis) -> None:
    assert (await client.publish(event("scripts are known"))).status == 202
    await call(redis, "CONFIG RESETSTAT")
    answers = await together(client, redis, [client.publish(event(number)) for number in range(100)])
    assert {answer.status for answer in answers} == {202}
    # what a session has beyond its first photos waits in a stream of its own
    ids = [entry for stream in (INTAKE, BULK) for entry, _ in await call(redis, "XRANGE", stream, "-", "+")]
    assert len(ids) == 102
    assert {answer.document["entry_id"] for answer in answers} <= {entry.decode() for entry in ids}
    assert [answer.document["event_id"] for answer in answers] == [f"e-{number}" for number in range(100)]
    assert await _calls(redis) <= 20


async def test_each_request_keeps_its_own_answer(client: Client, redis: Redis) -> None:
    before = (await client.publish(event("before"))).document
    other = event("before", data={"source_url": "https://photos.example.org/other.jpg"})
    twice = event("twice", data={"source_url": "https://photos.example.org/contradiction.jpg"})
    answers = await together(
        client,
        redis,
        [
            client.publish(one)
            for one in (event(1), other, event("before"), event("twice"), event("twice"), twice)
        ],
    )
    fresh, reused, replayed, new, again, contradiction = answers
    assert (fresh.status, fresh.document["replayed"]) == (202, False)
    assert (reused.status, reused.problem) == (422, "idempotency-key-reused")
    assert "'e-before'" in reused.detail
    assert (replayed.status, replayed.document) == (202, {**before, "replayed": True})
    assert replayed.headers["Idempotent-Replayed"] == "true"
    # which of the three came first nobody knows, but two of them are one event
    outcomes = sorted(
        (answer.status, answer.body and answer.document.get("replayed")) for answer in (new, again)
    )
    if contradiction.status == 422:
        assert outcomes == [(202, False), (202, True)]
        assert len({answer.document["entry_id"] for answer in (new, again)}) == 1
    else:
        assert {answer.status for answer in (new, again)} == {422}
    assert await redis.xlen(INTAKE) == 4


async def test_when_only_some_find_room_they_are_published(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis
) -> None:
    async with served(msgspec.structs.replace(settings, max_backlog=4)) as client:
        assert (await client.publish(event("before"))).status == 202
        answers = await together(
            client, redis, [client.publish(event(one)) for one in (1, 2, 3, 4, "before")]
        )
    statuses = [answer.status for answer in answers]
    assert sorted(statuses[:4]) == [202, 202, 503, 503]
    assert {answer.problem for answer in answers if answer.status == 503} == {"no-room"}
    assert (statuses[4], answers[4].document["replayed"]) == (202, True)
    assert await redis.xlen(INTAKE) == 4


async def test_a_key_that_cannot_be_used_is_the_trouble_of_its_own_event_only(
    client: Client, redis: Redis
) -> None:
    await redis.rpush("erni:published:urn%3Acamera-app:e-poisoned", "no marker")
    answers = await together(client, redis, [client.publish(event(one)) for one in (1, "poisoned", 2)])
    assert [answer.status for answer in answers] == [202, 503, 202]
    await redis.delete("erni:published:urn%3Acamera-app:e-poisoned")


async def test_big_events_are_spread_over_several_calls(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "MAX_BYTES", 400)
    answers = await together(client, redis, [client.publish(event(number)) for number in range(20)])
    assert {answer.status for answer in answers} == {202}
    assert await _calls(redis) > 12


async def test_a_gateway_that_stops_leaves_nobody_waiting(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis
) -> None:
    async with served(settings) as client:
        await call(redis, "CLIENT PAUSE", 60_000, "WRITE")
        waiting = [asyncio.ensure_future(client.publish(event(number))) for number in range(3)]
        await until(lambda: _blocked(redis, 1))
    found = await asyncio.gather(*waiting, return_exceptions=True)
    await call(redis, "CLIENT UNPAUSE")
    assert all(isinstance(one, BaseException) or one.status >= 500 for one in found), found
