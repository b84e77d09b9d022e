"""A new primary lacks the last entries of the old one, so it may give their ids to other entries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from events.connection import connect
from events.types import PhotoSubmitted
from sandbox.redis_server import Valkey
from tests.sentinel.test_failover import address_of, stand_in
from tests.shared.delivery.harness import entries, extracted, running, settings_for, until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from events.types import SchemaExtracted
    from shared.delivery.process import AgentProcess

pytestmark = pytest.mark.slow
AGENT: Final = "schema_extractor"
SUBMITTED: Final = "erni:photo.submitted"
EXTRACTED: Final = "erni:schema.extracted"
ID: Final = "1700000000000-0"


async def add(redis: Redis, name: str) -> None:
    """Write a photo with the id of which there are two."""
    await redis.xadd(
        SUBMITTED, {"data": msgspec.json.encode(PhotoSubmitted(source_url=f"store:{name}"))}, id=ID
    )


async def handed_on(redis: Redis) -> list[str]:
    found = await entries(redis, EXTRACTED)
    events = [msgspec.json.decode(fields[1::2][fields[::2].index(b"data")]) for fields in found]
    return [str(event["source_url"]) for event in events]


class Held:
    """Handlers that end when the test says so."""

    def __init__(self) -> None:
        self.begun = {name: asyncio.Event() for name in ("store:old", "store:new")}
        self.may_end = {name: asyncio.Event() for name in self.begun}
        self.cancelled: list[str] = []

    async def __call__(self, photo: PhotoSubmitted) -> SchemaExtracted:
        self.begun[photo.source_url].set()
        try:
            await self.may_end[photo.source_url].wait()
        except asyncio.CancelledError:
            self.cancelled.append(photo.source_url)
            raise
        return extracted(photo)


async def test_a_lost_entry_is_not_settled_in_the_place_of_another_with_its_id(tmp_path: Path) -> None:
    held = Held()
    with Valkey(tmp_path / "old") as old, Valkey(tmp_path / "new") as new:
        servers = [old]
        async with stand_in(servers) as port, connect(old.url) as at_old, connect(new.url) as at_new:
            await at_new.xgroup_create(SUBMITTED, AGENT, id="0", mkstream=True)
            async with running(settings_for(address_of(port), lease_seconds=15.0), held) as (process, _):
                fenced = process.metrics.fenced._value.get()
                await add(at_old, "old")
                await held.begun["store:old"].wait()
                await add(at_new, "new")
                servers.append(new)
                await asyncio.wait_for(held.begun["store:new"].wait(), 20)
                held.may_end["store:old"].set()
                await only_the_new_one_ends(process, at_new, held, fenced=fenced)
    assert held.cancelled == ["store:old"]


async def test_a_lost_entry_that_waits_for_its_settlement_is_not_settled_either(tmp_path: Path) -> None:
    held = Held()
    with Valkey(tmp_path / "server") as server:
        async with connect(server.url) as redis, running(settings_for(server.url), held) as (process, _):
            fenced = process.metrics.fenced._value.get()
            # what ends now cannot be settled, and is tried again after a second
            await redis.set(EXTRACTED, "no stream")
            held.may_end["store:old"].set()
            await add(redis, "old")
            await held.begun["store:old"].wait()
            await until(lambda: _is_refused(process))
            async with redis.pipeline(transaction=True) as pipe:
                # the state of a server that never had it
                pipe.delete(SUBMITTED, EXTRACTED)
                pipe.xgroup_create(SUBMITTED, AGENT, id="0", mkstream=True)
                await pipe.execute()
            await add(redis, "new")
            await held.begun["store:new"].wait()
            await only_the_new_one_ends(process, redis, held, fenced=fenced)


async def only_the_new_one_ends(process: AgentProcess, redis: Redis, held: Held, *, fenced: float) -> None:
    """The old one ends first, which fences one more, and not the new one, which is handed on afterwards."""

    async def has_ended() -> bool:
        return process.metrics.fenced._value.get() > fenced or await _is_empty(redis)

    await until(has_ended)
    assert await redis.xlen(SUBMITTED) == 1, "it was ended in the place of the other one"
    held.may_end["store:new"].set()
    await until(lambda: _is_empty(redis))
    assert await handed_on(redis) == ["store:new"]


async def _is_empty(redis: Redis) -> bool:
    return bool(await redis.xlen(SUBMITTED) == 0)


async def _is_refused(process: AgentProcess) -> bool:
    (settler, _) = process._lanes[0]._settlers
    return settler._batch > 0 and settler._sending is None
