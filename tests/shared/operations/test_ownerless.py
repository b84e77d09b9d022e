"""Entries whose consumer somebody deleted are found and taken in again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from events import keys, topology
from events.connection import call, connect
from shared.operations import ownerless, scripts
from shared.telemetry.metrics import AgentMetrics
from tests.shared.delivery.harness import running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey

STREAM = "erni:photo.submitted"
AGENT = "schema_extractor"


async def test_what_a_deleted_consumer_had_is_handed_off_after_all(redis: Redis, redis_url: str) -> None:
    await redis.xgroup_create(STREAM, AGENT, id="0", mkstream=True)
    for number in range(5):
        await redis.xadd(STREAM, {"data": f'{{"source_url": "https://bau.invalid/{number}"}}'})
    await redis.xreadgroup(AGENT, "gone", {STREAM: ">"}, count=3)
    # what a tidying job or a click in a user interface does
    assert await redis.xgroup_delconsumer(STREAM, AGENT, "gone") == 3
    looking = asyncio.create_task(
        ownerless.keep(redis, topology.stage_of(AGENT), AgentMetrics(AGENT), keys.all_lanes(1), every=0.2)
    )
    async with running(settings_for(redis_url)):

        async def all_through() -> bool:
            return bool(await redis.xlen("erni:schema.extracted") == 5)

        await until(all_through)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    assert await redis.xlen(STREAM) == 0


async def test_entries_in_flight_and_unread_ones_are_left_alone(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, AGENT, id="0", mkstream=True)
    for _ in range(4):
        await redis.xadd(STREAM, {"data": "{}"})
    await redis.xreadgroup(AGENT, "alive", {STREAM: ">"}, count=2)
    looking = asyncio.create_task(
        ownerless.keep(redis, topology.stage_of(AGENT), AgentMetrics(AGENT), keys.all_lanes(1), every=0.1)
    )
    await until(lambda: redis.exists("erni:adopting:schema_extractor"))
    await asyncio.sleep(0.3)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    pending = await redis.xpending_range(STREAM, AGENT, "-", "+", 10)
    assert [(entry["consumer"], entry["times_delivered"]) for entry in pending] == [(b"alive", 1)] * 2


async def test_pending_entries_without_a_body_do_not_hide_who_owns_the_rest(
    redis: Redis, redis_url: str
) -> None:
    ids = [(await call(redis, "XADD", STREAM, "*", "data", "{}")).decode() for _ in range(100)]
    await redis.xgroup_create(STREAM, AGENT, id="0")
    await redis.xreadgroup(AGENT, "alive", {STREAM: ">"}, count=100)
    await redis.xdel(STREAM, *ids[1:-1])
    client = connect(redis_url)
    assert await scripts.adopt(client, STREAM, AGENT, "-") == (0, "")
    await client.aclose()


async def test_a_server_that_started_again_is_looked_at_at_once(own_redis_server: Valkey) -> None:
    async with connect(own_redis_server.url) as client:
        looking = asyncio.create_task(
            ownerless.keep(client, topology.stage_of(AGENT), AgentMetrics(AGENT), keys.all_lanes(1))
        )
        await until(lambda: client.exists("erni:adopting:schema_extractor"))
        # what a log that was cut leaves: delivered, pending with nobody
        await client.xgroup_create(STREAM, AGENT, id="0", mkstream=True)
        await client.xadd(STREAM, {"data": "{}"})
        await client.xreadgroup(AGENT, "gone", {STREAM: ">"})
        await client.xgroup_delconsumer(STREAM, AGENT, "gone")
        own_redis_server.kill()
        own_redis_server.start()

        async with connect(own_redis_server.url) as fresh:

            async def adopted() -> bool:
                return bool((await call(fresh, "XPENDING", STREAM, AGENT))[0])

            await until(adopted)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
