"""A set that sentinels watch is copied and restored with the commands of docs/operating.md."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from events.connection import call, connect
from events.publisher import Publisher
from events.types import PhotoSubmitted
from sandbox.redis_server import HOST
from tests.cluster.backup import Shell, blocks, of_one_server
from tests.sentinel.conftest import wait_until
from tests.shared.delivery.harness import entries, running, settings_for, until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.sentinel.conftest import SentinelSet

pytestmark = pytest.mark.slow
SUBMITTED, EXTRACTED = "photo.submitted", "schema.extracted"


async def publish(url: str, *names: str) -> None:
    async with connect(url) as redis:
        for name in names:
            await Publisher(redis, wait_replicas=1).publish(PhotoSubmitted(source_url=f"store:{name}"))


async def photos(redis: Redis, name: str) -> list[str]:
    """Return what photos a stream has."""
    found = await entries(redis, f"erni:{name}")
    events = [msgspec.json.decode(fields[1::2][fields[::2].index(b"data")]) for fields in found]
    return [str(event["source_url"]).removeprefix("store:") for event in events]


async def test_a_copy_of_a_replica_comes_back_and_the_sentinels_keep_it(
    watched: SentinelSet, tmp_path: Path
) -> None:
    shell, settings = Shell(tmp_path), settings_for(watched.url)
    copy, restore = of_one_server()
    is_up, which, aside, is_primary = blocks("Backup and restore with Sentinel")
    (replica,) = watched.replicas
    await publish(watched.url, "done")
    async with running(settings), connect(watched.url) as redis:
        await until(lambda: _is_empty(redis))
    await publish(watched.url, "waits")

    at_copy = {"DATA": replica.folder, "PORT": replica.port, "BACKUP": tmp_path / "copy"}
    for commands in (is_up, copy, is_up):
        await asyncio.to_thread(shell.run, commands, **at_copy)
    await asyncio.to_thread(watched.fail_over, "kill", 0)
    await asyncio.to_thread(wait_until, watched.is_settled)
    await publish(watched.url, "after")
    said = await asyncio.to_thread(shell.run, which, SENTINEL_PORT=watched.sentinels[0].port)
    assert said.split()[0] == HOST
    primary, other = sorted((watched.primary, replica), key=lambda one: str(one.port) not in said)
    # their configuration files say this since the fail-over, if they have some
    primary.options.pop("replicaof", None)
    other.options["replicaof"] = f"{HOST} {primary.port}"

    watched.stop()
    place = {"DATA": primary.folder, "PORT": primary.port, "BACKUP": tmp_path / "copy"}
    await asyncio.to_thread(shell.run, restore, **place)
    await asyncio.to_thread(shell.run, aside, DATA=other.folder)
    await asyncio.to_thread(primary.start)
    await asyncio.to_thread(shell.run, is_primary, **place)
    await asyncio.to_thread(other.start)
    for sentinel in watched.sentinels:
        await asyncio.to_thread(sentinel.start)
    await asyncio.to_thread(wait_until, watched.is_settled)

    async with connect(watched.url) as redis, connect(other.url) as at_replica:
        await call(redis, "SET", "synced", 1)
        assert await call(redis, "WAIT", 1, 0) == 1
        for one in (redis, at_replica):
            assert (await photos(one, EXTRACTED), await photos(one, SUBMITTED)) == (["done"], ["waits"])
        async with running(settings):
            await until(lambda: _is_empty(redis))
        assert await photos(redis, EXTRACTED) == ["done", "waits"]


async def _is_empty(redis: Redis) -> bool:
    return bool(await redis.xlen(f"erni:{SUBMITTED}") == 0)
