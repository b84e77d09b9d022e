"""A primary dies, is moved or hangs under load: work goes on with the next one, and nothing comes twice."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from redis.exceptions import RedisError

from events.connection import Trouble, call, connect, trouble_of
from events.publisher import Publisher, PublishUnknownError
from events.sentinel import Sentinels
from events.types import PhotoSubmitted
from sandbox.redis_server import HOST, Valkey
from tests.cluster.load import Load
from tests.sentinel.conftest import NAME, SentinelSet
from tests.shared.delivery.harness import entries, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow
RETURN: Final = 3.0
"""Seconds after the fail-over within which hand-offs flow again."""


def load_for(watched: SentinelSet, **changes: object) -> Load:
    return Load(watched.url, lanes=1, upstreams=4, **{"lease_seconds": 1.0, "wait_replicas": 0} | changes)


async def test_a_killed_primary_loses_nothing_that_a_replica_was_waited_for(watched: SentinelSet) -> None:
    load = load_for(watched, wait_replicas=1)
    async with load.running():
        watched.primary.kill()
        await asyncio.to_thread(watched.wait_for_primary, *watched.replicas)
        # as its supervisor does; the sentinels make a replica of it, which the new primary waits for
        await asyncio.to_thread(watched.primary.start)
    await load.check()
    assert Trouble.AWAY in load.troubles


async def test_hand_offs_flow_again_soon_after_the_fail_over(watched: SentinelSet) -> None:
    load = load_for(watched)
    async with load.running():
        watched.primary.kill()
        _, at = await asyncio.to_thread(watched.wait_for_primary, *watched.replicas)
        before = load.done

        async def flows() -> bool:
            return load.done > before

        await until(flows)
        assert time.monotonic() - at < RETURN
    await load.check(lost=None)


async def test_a_primary_that_is_moved_by_hand_loses_nothing(watched: SentinelSet) -> None:
    load = load_for(watched, wait_replicas=1)
    async with load.running():
        async with connect(f"redis://{HOST}:{watched.sentinels[0].port}") as sentinel:
            await call(sentinel, "SENTINEL FAILOVER", NAME)
        await asyncio.to_thread(watched.wait_for_primary, *watched.replicas)
        # both answer all the time, the old one as a replica
        assert (await asyncio.to_thread(watched.info, watched.primary))["role"]
    await load.check()


async def test_without_its_replica_nothing_is_acknowledged_and_nothing_is_lost(watched: SentinelSet) -> None:
    load = load_for(watched, wait_replicas=1)
    (replica,) = watched.replicas
    async with load.running():
        watched.freeze(replica)
        try:
            # settlements on their way when the replica froze
            await asyncio.sleep(0.1)
            acknowledged, done, handled = len(load.acknowledged), load.done, load.handled
            event = PhotoSubmitted(source_url="store:unknown")
            for _ in range(2):
                # the second time the event is there already, and has to be waited for all the same
                async with connect(watched.url) as redis:
                    publisher = Publisher(redis, wait_replicas=1)
                    with pytest.raises(RedisError, match=r"0 of 1 replicas \(WAIT_REPLICAS\) have it so far"):
                        await publisher.publish(event, event_id="unknown")
            assert load.handled > handled
            assert (len(load.acknowledged), load.done) == (acknowledged, done)
        finally:
            watched.thaw(replica)
        async with connect(watched.url) as redis:
            published = await Publisher(redis, wait_replicas=1).publish(event, event_id="unknown")
            assert not published.fresh
        load.acknowledged.append(published.photo_id)
    await load.check()


async def test_what_no_replica_has_is_lost_unless_it_was_waited_for(watched: SentinelSet) -> None:
    (replica,) = watched.replicas
    async with connect(watched.url) as redis:
        await Publisher(redis).publish(PhotoSubmitted(source_url="store:before"))
        await call(redis, "WAIT", 1, 0)
        # killed and not frozen: the system would keep for a frozen one what it then reads
        replica.kill()
        assert (await Publisher(redis).publish(PhotoSubmitted(source_url="store:tail"))).fresh
        with pytest.raises(PublishUnknownError):
            await Publisher(redis, wait_replicas=1).publish(PhotoSubmitted(source_url="store:unknown"))
    watched.primary.kill()
    await asyncio.to_thread(replica.start)
    await asyncio.to_thread(watched.wait_for_primary, replica)
    async with connect(replica.url) as redis:
        found = [
            fields[1::2][fields[::2].index(b"data")]
            for fields in await entries(redis, "erni:photo.submitted")
        ]
    assert [b"store:before" in data for data in found] == [True]


@asynccontextmanager
async def stand_in(servers: list[Valkey]) -> AsyncIterator[int]:
    """A sentinel that names the last of `servers`, so that a test says when it learns of a fail-over."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            fields = ["name", NAME, "ip", HOST, "port", str(servers[-1].port), "flags", "master"]
            reply = "".join(f"${len(field)}\r\n{field}\r\n" for field in fields)
            writer.write(f"*{len(fields)}\r\n{reply}".encode() if words[0] == b"SENTINEL" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_demoted_primary_that_still_answers_costs_one_try(tmp_path: Path) -> None:
    with Valkey(tmp_path / "old") as old, Valkey(tmp_path / "new") as new:
        late, informed = [old], [old]
        async with (
            stand_in(late) as first,
            stand_in(informed) as second,
            connect(f"redis+sentinel://{HOST}:{first},{HOST}:{second}/{NAME}") as client,
            connect(old.url) as admin,
        ):
            publisher = Publisher(client)
            events = [PhotoSubmitted(source_url=f"store:{number}") for number in range(8)]
            # as many open connections as tasks
            await asyncio.gather(*map(publisher.publish, events))
            await call(admin, "REPLICAOF", HOST, new.port)
            informed.append(new)
            refused = []
            for event in events:
                try:
                    await publisher.publish(event, event_id=event.source_url)
                except RedisError as error:
                    refused.append(trouble_of(error))
            # the sentinel that named the old one is asked last from then on
            assert refused == [Trouble.READ_ONLY]
        async with connect(new.url) as new_admin:
            assert await new_admin.xlen("erni:photo.submitted") == 7


async def test_a_sentinel_that_did_not_help_is_asked_last() -> None:
    from events.redis_address import read

    asked = []

    async def ask(host: str, _port: int) -> dict[str, str]:
        asked.append(host)
        return {"ip": host, "port": "1", "flags": "master" if host != "c" else "master,s_down"}

    sentinels = Sentinels(read(f"redis+sentinel://a,c,b/{NAME}"), ask)
    assert await sentinels.primary() == ("a", 1)
    sentinels.distrust()
    # c sees its primary down
    assert await sentinels.primary() == ("b", 1)
    assert await sentinels.primary() == ("b", 1)
    assert asked == ["a", "c", "b", "b"]
