"""A primary dies, is moved or hangs under load: work goes on with the next one, and nothing comes twice."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from redis import Redis as PlainRedis
from redis.exceptions import RedisError

from events.connection import ASK_TIMEOUT, Trouble, call, connect, trouble_of
from events.publisher import Publisher, PublishUnknownError
from events.sentinel import WATCH_SECONDS
from events.types import PhotoSubmitted
from sandbox.redis_server import HOST, Valkey
from tests.cluster.agent import READS, Agent
from tests.cluster.load import Load
from tests.sentinel.conftest import NAME, SentinelSet, wait_until
from tests.shared.delivery.harness import entries, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

pytestmark = pytest.mark.slow
SUBMITTED: Final = "erni:photo.submitted"
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
        handled = load.handled
        watched.freeze(replica)
        try:
            # settlements on their way when the replica froze
            await asyncio.sleep(0.1)
            acknowledged, done = len(load.acknowledged), load.done
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
        found = [fields[1::2][fields[::2].index(b"data")] for fields in await entries(redis, SUBMITTED)]
    assert [b"store:before" in data for data in found] == [True]


async def test_a_primary_that_is_moved_by_hand_gets_no_more_writes_while_it_is_up(
    watched: SentinelSet,
) -> None:
    """The sentinels make a replica of it after 8 s at the earliest, and what it took meanwhile is lost."""
    old, (new,) = watched.primary, watched.replicas
    numbers = itertools.count()

    async def publish() -> None:
        await publisher.publish(PhotoSubmitted(source_url=f"store:{next(numbers)}"))

    async with connect(watched.url) as redis, connect(old.url) as at_old, connect(new.url) as at_new:
        publisher = Publisher(redis)
        # as many open connections as tasks
        await asyncio.gather(*(publish() for _ in range(8)))
        await asyncio.to_thread(watched.fail_over, "hand over", 0)
        await asyncio.to_thread(wait_until, lambda: watched.now_primary() is new)
        named, before = time.monotonic(), await at_new.xlen(SUBMITTED)
        while await at_new.xlen(SUBMITTED) == before:
            await publish()
        assert time.monotonic() - named < RETURN
        taken = await at_old.xlen(SUBMITTED)
        await asyncio.gather(*(publish() for _ in range(32)))
        assert (await call(at_old, "ROLE"))[0] == b"master"
        assert await at_old.xlen(SUBMITTED) == taken
        assert await at_new.xlen(SUBMITTED) >= before + 33


@asynccontextmanager
async def stand_in(servers: list[Valkey]) -> AsyncIterator[int]:
    """A sentinel that names the last of `servers`, so that a test says when it learns of a fail-over.

    Its epoch is the number of servers, as if each had taken the place of the one before.
    """

    def bulk(*words: object) -> str:
        return f"*{len(words)}\r\n" + "".join(f"${len(str(word))}\r\n{word}\r\n" for word in words)

    def reply(words: list[bytes]) -> str:
        address = (HOST, servers[-1].port)
        if b"MASTER" in words:
            known = ("ip", address[0], "port", address[1], "flags", "master")
            return bulk(*known, "config-epoch", len(servers))
        return bulk(*address) if words[0] == b"SENTINEL" else "+OK\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if not servers:
                await reader.read()  # it hangs
                break
            writer.write(reply(words).encode())
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def address_of(*ports: int) -> str:
    return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in ports)}/{NAME}"


async def port_of(redis: Redis) -> int:
    """Return the port of the server that a client's next command goes to."""
    return int((await redis.info("server"))["tcp_port"])


async def test_a_demoted_primary_that_still_answers_costs_one_try(tmp_path: Path) -> None:
    with Valkey(tmp_path / "old") as old, Valkey(tmp_path / "new") as new:
        late, informed = [old], [old]
        async with (
            stand_in(late) as first,
            stand_in(informed) as second,
            connect(address_of(first, second)) as client,
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
            # none if the question of every half second came before the first event
            assert refused in ([], [Trouble.READ_ONLY])
        async with connect(new.url) as new_admin:
            assert await new_admin.xlen(SUBMITTED) == 8 - len(refused)


async def test_a_sentinel_with_an_old_epoch_sends_nobody_back(tmp_path: Path) -> None:
    with Valkey(tmp_path / "old") as old, Valkey(tmp_path / "new") as new:
        stale, informed, other = [old], [old], [old]
        async with (
            stand_in(stale) as first,
            AsyncExitStack() as reachable,
            connect(old.url) as at_old,
        ):
            second = await reachable.enter_async_context(stand_in(informed))
            third = await reachable.enter_async_context(stand_in(other))
            async with connect(address_of(first, second, third)) as client:
                assert await port_of(client) == old.port
                informed.append(new)

                # one that knows more is enough, whoever is asked first
                await until(lambda: _is_at(client, new))
                async with connect(address_of(first, third, second)) as another:
                    await until(lambda: _is_at(another, new))
                await reachable.aclose()
                for _ in range(10):
                    assert await port_of(client) == new.port
                    await asyncio.sleep(WATCH_SECONDS / 5)
                # also when it has to connect again, and the old one is all that is named
                await client.connection_pool.disconnect()
                with pytest.raises(RedisError, match="an older primary") as away:
                    await port_of(client)
                assert trouble_of(away.value) is Trouble.AWAY
                assert not await at_old.xlen(SUBMITTED)


async def test_more_than_half_of_the_sentinels_can_go_back_to_a_lower_epoch(tmp_path: Path) -> None:
    """As they do when a person removes the set from each, and has it monitored again."""
    with Valkey(tmp_path / "old") as old, Valkey(tmp_path / "new") as new:
        servers = [old, old, new]
        async with stand_in(servers) as port, connect(address_of(port)) as client:
            assert await port_of(client) == new.port
            servers[:] = [old]
            await until(lambda: _is_at(client, old))


async def _is_at(client: Redis, server: Valkey) -> bool:
    return await port_of(client) == server.port


async def test_a_sentinel_that_hangs_costs_no_time(tmp_path: Path) -> None:
    with Valkey(tmp_path / "server") as server:
        async with (
            stand_in([]) as hangs,
            stand_in([server]) as first,
            stand_in([server]) as second,
            connect(address_of(hangs, first, second)) as client,
        ):
            # one that waits for it ends with its time limit, which is longer
            async with asyncio.timeout(ASK_TIMEOUT * 0.8):
                assert await port_of(client) == server.port


async def test_a_closed_client_leaves_no_task_and_no_connection_to_a_sentinel(watched: SentinelSet) -> None:
    def connections() -> int:
        return sum(_ours(sentinel.port) for sentinel in watched.sentinels)

    before = asyncio.all_tasks()
    async with connect(watched.url) as client:
        await asyncio.gather(*(call(client, "PING") for _ in range(4)))
        assert len(asyncio.all_tasks() - before) == 1 + len(watched.sentinels)
        await asyncio.to_thread(wait_until, lambda: connections() == len(watched.sentinels))
    assert asyncio.all_tasks() == before
    await asyncio.to_thread(wait_until, lambda: connections() == 0)


async def test_clients_of_one_address_ask_the_sentinels_together(watched: SentinelSet) -> None:
    def connections() -> list[int]:
        return [_ours(sentinel.port) for sentinel in watched.sentinels]

    async with connect(watched.url) as stays:
        async with connect(watched.url) as goes:
            assert await port_of(stays) == await port_of(goes)
            await asyncio.to_thread(wait_until, lambda: connections() == [1, 1, 1])
        # who stays is still led to a new primary, though it opens no connection
        (new,) = watched.replicas
        await asyncio.to_thread(watched.fail_over, "hand over", 0)
        await until(lambda: _is_at(stays, new))
        assert connections() == [1, 1, 1]
    await asyncio.to_thread(wait_until, lambda: connections() == [0, 0, 0])


async def test_a_process_has_one_connection_to_each_sentinel(watched: SentinelSet, tmp_path: Path) -> None:
    async with Agent(tmp_path, watched.url, lanes=4) as agent:
        await agent.says(READS)
        counts: list[list[int]] = []

        def is_calm() -> bool:
            counts.append([_ours(sentinel.port) for sentinel in watched.sentinels])
            return counts[-10:] == [[1, 1, 1]] * 10

        # a new connection to Redis has one of its own for a moment
        await asyncio.to_thread(wait_until, is_calm, 10.0)


def _ours(port: int) -> int:
    """Return how many connections of redis-py a sentinel has, besides the one that asks."""
    with PlainRedis(host=HOST, port=port, protocol=2) as client:
        return [one.get("lib-name") for one in client.client_list()].count("redis-py") - 1
