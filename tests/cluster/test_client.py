"""A command reaches the node of its keys, wherever that is now, or a sentence says why not."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ClusterCrossSlotError, RedisError

from events import scripts
from events.cluster import ClusterClient, NotAClusterError, SentInCirclesError, slot_of
from events.connection import Trouble, call, call_and_wait, connect, server_of, servers_of, trouble_of
from events.identities import SessionId
from events.keys import Keys, all_lanes
from events.publisher import Publisher
from events.redis_address import tls_trouble
from events.types import PhotoSubmitted
from sandbox.redis_server import HOST, Valkey, free_port
from tests.cluster.conftest import LANES, Cluster, lane_on, wait_until
from tests.project.test_redis_tls import certify
from tests.shared.delivery.harness import until
from tests.tools import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

LANE = all_lanes(LANES)[0]
BOTH = scripts.Script(
    "both", "#!lua\nredis.call('SET', KEYS[1], 1)\nredis.call('SET', KEYS[2], 2)\nreturn 3\n"
)


def key(number: int) -> str:
    return f"{LANE.prefix}test:{number}"


@asynccontextmanager
async def moving(cluster: Cluster) -> AsyncIterator[tuple[Valkey, Valkey]]:
    """The lane's slot is open for its move inside the block, and has moved behind it: from, to."""
    owner = await asyncio.to_thread(cluster.owner_of, LANE)
    to = next(server for server in cluster.primaries if server is not owner)
    await asyncio.to_thread(cluster.begin_move, LANE, to)
    try:
        yield owner, to
    finally:
        await asyncio.to_thread(cluster.end_move, LANE, owner, to)


@pytest.fixture
async def client(kept_cluster: Cluster) -> AsyncIterator[Redis]:
    async with connect(kept_cluster.url) as redis:
        yield redis


@pytest.mark.parametrize(
    ("words", "key_"),
    [
        (("GET", "a"), "a"),
        (("EVALSHA", "0" * 40, 2, "a", "b", "x"), "a"),
        (("EVAL", "return 1", 0, "a"), None),
        (("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "a", ">"), "a"),
        (("XREAD", "BLOCK", 1, "STREAMS", b"a", "0"), "a"),
        (("XGROUP CREATE", "a", "g", "0"), "a"),
        (("MEMORY", "USAGE", "a"), "a"),
        (("MEMORY USAGE", "a"), "a"),
        (("SCRIPT LOAD", "return 1"), None),
        (("INFO", "memory"), None),
        (("TIME",), None),
        (("CLUSTER SLOTS",), None),
    ],
)
def test_the_slot_of_a_command_is_that_of_its_first_key(words: tuple[Any, ...], key_: str | None) -> None:
    assert slot_of(words) == (slot_of(("GET", key_)) if key_ else None)


async def test_new_keys_of_a_slot_that_moves_are_written_at_once_by_many(
    kept_cluster: Cluster, client: Redis
) -> None:
    """ASKING counts for the next command of its connection only, and many tasks share the connections."""
    await client.set(key(0), "old")
    async with moving(kept_cluster) as (_, to):
        await asyncio.gather(*(client.set(key(number), number) for number in range(1, 200)))
        assert await client.get(key(0)) == b"old"
        assert await client.get(key(77)) == b"77"
        there = await asyncio.to_thread(
            kept_cluster.ask, to, "CLUSTER", "COUNTKEYSINSLOT", slot_of(("GET", key(0))) or 0
        )
        assert there == 199
    assert [await client.get(key(number)) for number in range(3)] == [b"old", b"1", b"2"]


async def test_a_write_is_waited_for_where_it_was_sent(kept_cluster: Cluster, client: Redis) -> None:
    """WAIT speaks of the writes of its own connection: it goes to where the write went."""
    await client.set(key(0), "old")
    async with moving(kept_cluster) as (_, to):
        reply, have = await call_and_wait(client, 1, "SET", key(1), 1)
        assert (reply, have) == (True, 1)
        replica = kept_cluster.replicas[kept_cluster.primaries.index(to)]
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            reply, have = await call_and_wait(client, 1, "SET", key(3), 1)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        assert (reply, have) == (True, 0), "a replica of the other node was counted"
    reply, have = await call_and_wait(client, 1, "SET", key(2), 1)
    assert (reply, have) == (True, 1)


async def test_keys_that_are_half_moved_are_waited_for(kept_cluster: Cluster, client: Redis) -> None:
    await client.mset({key(1): 1, key(2): 2})
    async with moving(kept_cluster) as (owner, to):
        await asyncio.to_thread(kept_cluster.ask, owner, "MIGRATE", HOST, to.port, key(1), 0, 5000)
        with pytest.raises(RedisError) as half:
            await BOTH(client, [key(1), key(2)], [])
        assert trouble_of(half.value) is Trouble.LOADING
    assert await BOTH(client, [key(1), key(2)], []) == 3


async def test_a_script_is_loaded_on_every_node(kept_cluster: Cluster, client: Redis) -> None:
    await scripts.load_for_publishers(client)
    digests = [script.digest for script in scripts.for_publishers()]
    for server in await servers_of(client):
        assert await call(server, "SCRIPT EXISTS", *digests) == [True] * len(digests)
    assert len(await servers_of(client)) == len(kept_cluster.primaries)


async def test_every_lane_has_a_home_and_keys_of_all_nodes_are_found(client: Redis) -> None:
    names = {lane.paused for lane in all_lanes(LANES)} | {"erni:system", "erni:keys"}
    for name in names:
        await client.hset(name, "field", "1")
        home = await server_of(client, name)
        assert await home.hget(name, "field") == b"1"
    assert {found.decode() async for found in client.scan_iter(match="erni:*")} == names


async def test_a_blocked_read_goes_on_where_its_stream_moved(kept_cluster: Cluster, client: Redis) -> None:
    stream = LANE.stream("test")
    first = await client.xadd(stream, {"n": 1})
    async with connect(kept_cluster.url) as reading:
        read = asyncio.create_task(call(reading, "XREAD", "BLOCK", 5000, "STREAMS", stream, first))

        async def blocks() -> bool:
            home = await server_of(client, stream)
            found: list[dict[str, str]] = await home.client_list()
            return any(one["cmd"] == "xread" and "b" in one["flags"] for one in found)

        await until(blocks)
        async with moving(kept_cluster):
            pass
        await client.xadd(stream, {"n": 2})
        ((_, ((_, fields),)),) = await read
        assert fields == [b"n", b"2"]


async def test_one_node_of_the_address_is_enough(kept_cluster: Cluster) -> None:
    url = f"redis+cluster://{HOST}:{free_port()},{HOST}:{kept_cluster.replicas[0].port}"
    async with connect(url) as redis:
        for lane in all_lanes(LANES):
            assert await redis.xlen(lane.stream("photo.submitted")) == 0


async def test_nobody_there_is_an_outage() -> None:
    async with connect(f"redis+cluster://{HOST}:{free_port()},{HOST}:{free_port()}") as redis:
        with pytest.raises(RedisError, match=r"no node of the cluster answers now: .*; ") as away:
            await redis.ping()
    assert trouble_of(away.value) is Trouble.AWAY


async def test_a_single_server_is_no_cluster(redis_url: str) -> None:
    async with connect(redis_url.replace("redis://", "redis+cluster://")) as redis:
        with pytest.raises(NotAClusterError, match="write redis:// instead") as wrong:
            await redis.ping()
    assert trouble_of(wrong.value) is Trouble.NO_PRIMARY


@pytest.mark.parametrize("lanes", [1, LANES])
async def test_a_plain_address_of_a_node_says_which_form_to_use(kept_cluster: Cluster, lanes: int) -> None:
    owner = await asyncio.to_thread(kept_cluster.owner_of, LANE)
    async with connect(next(other for other in kept_cluster.primaries if other is not owner).url) as redis:
        publisher = Publisher(redis, lanes=lanes)
        # s1 is of that lane
        event = PhotoSubmitted(source_url="store:1", session_id=SessionId("s1"))
        with pytest.raises(NotAClusterError, match=r"write redis\+cluster:// instead") as wrong:
            await publisher.publish(event)
    assert trouble_of(wrong.value) is Trouble.NO_PRIMARY


async def test_a_publisher_without_lanes_is_told_to_set_them(client: Redis) -> None:
    with pytest.raises(ClusterCrossSlotError, match="set LANES"):
        await Publisher(client).publish(PhotoSubmitted(source_url="store:1"))


async def test_the_cluster_stands_still_without_one_of_its_primaries_and_goes_on_with_it(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, replicas=False)
    try:
        await asyncio.to_thread(cluster.start)
        async with connect(cluster.url) as redis:
            home = await asyncio.to_thread(cluster.owner_of, LANE)
            away = all_lanes(LANES)[2]
            assert await asyncio.to_thread(cluster.owner_of, away) is not home
            await redis.set(key(1), 1)
            home.kill()
            seen: dict[str, Trouble | None] = {}

            async def refuses() -> bool:
                for name in (key(1), away.paused):
                    try:
                        await redis.hget(name, "field")
                    except RedisError as error:
                        seen[name] = trouble_of(error)
                return len(seen) == 2

            await until(refuses)
            # the others refuse too: a cluster without some of its slots serves none by default
            assert seen == {key(1): Trouble.AWAY, away.paused: Trouble.LOADING}
            await asyncio.to_thread(home.start)
            await asyncio.to_thread(wait_until, lambda: all(map(cluster.is_whole, cluster.servers)))
            assert await redis.get(key(1)) == b"1"
    finally:
        await asyncio.to_thread(cluster.stop)


class Liar:
    """A node that serves every slot and sends everybody to another port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.other = self.port
        self.primary = self.port
        """Which port it says serves every slot."""
        self.asked = 0
        self.connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if words[0] == b"CLUSTER":
                reply = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$%d\r\n%s\r\n:%d\r\n" % (
                    len(HOST), HOST.encode(), self.primary,
                )  # fmt: skip
            elif words[0] == b"GET" and self.other == self.port:
                reply = b"$1\r\n1\r\n"
            elif words[0] == b"GET":
                self.asked += 1
                reply = b"-MOVED 1 %s:%d\r\n" % (HOST.encode(), self.other)
            else:
                reply = b"+OK\r\n"
            writer.write(reply)
        writer.close()
        await writer.wait_closed()


async def test_nodes_that_send_in_circles_are_left_after_a_few_hops() -> None:
    one, two = Liar(), Liar()
    one.other, two.other = two.port, one.port
    servers = [await asyncio.start_server(liar.accept, HOST, liar.port) for liar in (one, two)]
    try:
        async with connect(f"redis+cluster://{HOST}:{one.port}") as redis:
            with pytest.raises(SentInCirclesError, match="nodes disagree") as circle:
                await redis.get("a")
            assert trouble_of(circle.value) is Trouble.AWAY
            assert one.asked + two.asked == 6
        await asyncio.gather(*one.connections, *two.connections)
    finally:
        for server in servers:
            server.close()


async def test_who_was_sent_elsewhere_asks_again_which_nodes_there_are() -> None:
    """A planned fail-over breaks no connection: only MOVED tells, and scripts must reach the new node."""
    old, new = Liar(), Liar()
    servers = [await asyncio.start_server(liar.accept, HOST, liar.port) for liar in (old, new)]
    try:
        async with connect(f"redis+cluster://{HOST}:{old.port}") as redis:
            assert isinstance(redis, ClusterClient)
            assert await redis.get("a") == b"1"
            old.primary = old.other = new.primary = new.port
            assert await redis.get("a") == b"1"
            [primary] = await redis.primaries()
            assert primary.connection_pool.connection_kwargs["port"] == new.port
        await asyncio.gather(*old.connections, *new.connections)
    finally:
        for server in servers:
            server.close()


async def test_users_need_the_right_to_ask_for_slots(tmp_path: Path) -> None:
    users = tmp_path / "users.acl"
    users.write_text(
        "user default on >ge:heim@ ~* &* +@all\n"
        "user worker on >arb#eit ~* &* +@all\nuser blind on >arb#eit ~* &* +@all -cluster\n"
    )
    cluster = Cluster(
        tmp_path / "cluster",
        replicas=False,
        options={"aclfile": str(users), "masterauth": "ge:heim@", "masteruser": "default"},
    )
    for server in cluster.servers:
        server.options["requirepass"] = "ge:heim@"
    try:
        await asyncio.to_thread(cluster.start)
        own = cluster.url.removeprefix("redis+cluster://")
        for url, password in (
            (f"redis+cluster://:ge%3Aheim%40@{own}", ""),
            (f"redis+cluster://worker:arb%23eit@{own}/0", ""),
            (f"redis+cluster://worker@{own}", "arb#eit"),
        ):
            async with connect(url, password=password) as redis:
                assert await redis.set(key(1), 1)
        for url, says in (
            (f"redis+cluster://worker:falsch@{own}", "invalid username-password pair"),
            (f"redis+cluster://blind:arb%23eit@{own}", r"add \+cluster\|slots to the user's rules"),
        ):
            async with connect(url) as redis:
                with pytest.raises(RedisError, match=says) as denied:
                    await redis.get(key(1))
                assert trouble_of(denied.value) is Trouble.NO_PERMISSION
    finally:
        await asyncio.to_thread(cluster.stop)


def test_keys_of_one_lane_only() -> None:
    assert slot_of(("GET", Keys(1).paused)) == slot_of(("GET", Keys(1).stream("photo.submitted")))


async def test_a_node_that_hangs_is_asked_for_a_second_only(kept_cluster: Cluster) -> None:
    hangs, answers = kept_cluster.primaries[0], kept_cluster.primaries[1]
    lane = await asyncio.to_thread(lane_on, kept_cluster, answers)
    os.kill(hangs.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(3), connect(kept_cluster.url_of(hangs, answers)) as redis:
            assert await redis.exists(lane.paused) == 0
    finally:
        os.kill(hangs.pid, signal.SIGCONT)


async def test_replies_stay_in_step_behind_a_refusal_of_a_plain_address(kept_cluster: Cluster) -> None:
    owner = await asyncio.to_thread(kept_cluster.owner_of, LANE)
    other = next(server for server in kept_cluster.primaries if server is not owner)
    async with connect(other.url, max_connections=1) as redis:
        with pytest.raises(NotAClusterError):
            await call_and_wait(redis, 1, "SET", key(1), 1)
        assert await call(redis, "PING") is True
        assert await call(redis, "ECHO", "still in step") == b"still in step"


@pytest.mark.needs("redis-server")  # the bundled server is built without TLS
async def test_all_nodes_are_reached_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certify(tmp_path)
    monkeypatch.setattr("sandbox.redis_server._candidates", lambda: [require("redis-server")])
    options = {
        "tls-cert-file": str(tmp_path / "server.pem"),
        "tls-key-file": str(tmp_path / "server.key"),
        "tls-ca-cert-file": str(tmp_path / "ca.pem"),
        "tls-auth-clients": "no",
        # else the nodes name their ports without TLS
        "tls-cluster": "yes",
    }
    cluster = Cluster(tmp_path / "cluster", replicas=False, options=options)
    for server in cluster.servers:
        server.options["tls-port"] = str(free_port())
    try:
        await asyncio.to_thread(cluster.start)
        places = ",".join(f"{HOST}:{server.options['tls-port']}" for server in cluster.servers)
        url = f"rediss+cluster://{places}"
        async with connect(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}") as redis:
            for lane in all_lanes(LANES):
                assert await redis.hset(lane.paused, "field", "1") == 1
            names = {server.connection_pool.connection_kwargs["port"] for server in await servers_of(redis)}
            assert names == {int(server.options["tls-port"]) for server in cluster.servers}
        async with connect(url) as redis:
            with pytest.raises(RedisError, match="certificate verify failed") as refused:
                await redis.ping()
            assert "its TLS certificate is refused" in str(tls_trouble(refused.value, url))
    finally:
        await asyncio.to_thread(cluster.stop)
