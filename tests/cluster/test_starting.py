"""An agent that starts while a cluster fails over waits until that is over, and then works."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from events.connection import connect
from sandbox.redis_server import HOST, free_port
from tests.cluster.agent import READS, Agent
from tests.cluster.conftest import LANES, Cluster, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow
WAITS: Final = "waiting for redis"


async def test_an_agent_waits_while_a_primary_is_replaced(cluster: Cluster, tmp_path: Path) -> None:
    dead, replica = cluster.primaries[1], cluster.replicas[1]
    # nobody takes its place before the agent has started
    cluster.ask(replica, "CONFIG", "SET", "cluster-replica-no-failover", "yes")
    dead.kill()
    async with Agent(tmp_path, cluster.url, lanes=LANES) as agent:
        await agent.says(WAITS)
        cluster.ask(replica, "CONFIG", "SET", "cluster-replica-no-failover", "no")
        await asyncio.to_thread(wait_until, lambda: cluster.state_of(replica) == "master")
        # as its supervisor does; it comes back as a replica
        await asyncio.to_thread(dead.start)
        await agent.says(READS)
    assert agent.events.count(WAITS) == 1


async def test_an_agent_waits_while_the_cluster_names_a_server_that_is_a_replica_already(
    kept_cluster: Cluster, tmp_path: Path
) -> None:
    """Nodes hear of a fail-over one after the other, and one that is cut off does not hear of it at all."""
    demoted = kept_cluster.replicas[1].port
    async with behind_the_times(demoted) as port:
        async with Agent(tmp_path, f"redis+cluster://{HOST}:{port}", lanes=LANES) as agent:
            await agent.says(WAITS)
            await agent.says(READS)
        assert agent.events.count(WAITS) == 1


async def test_who_is_led_to_a_dead_server_asks_another_node(kept_cluster: Cluster) -> None:
    async with behind_the_times(free_port()) as port:
        address = f"redis+cluster://{HOST}:{port},{HOST}:{kept_cluster.primaries[0].port}"
        async with connect(address) as redis:
            with pytest.raises(RedisConnectionError):
                await redis.get("erni:any")
            assert await redis.get("erni:any") is None


async def test_an_agent_does_not_wait_for_a_replica_that_its_address_names(
    kept_cluster: Cluster, tmp_path: Path
) -> None:
    url = kept_cluster.replicas[0].url
    async with Agent(tmp_path, url, lanes=LANES) as agent:
        code, said = await agent.ends()
    assert (code, "is a replica of" in said, "set REDIS_URL to the primary" in said) == (1, True, True), said


@asynccontextmanager
async def behind_the_times(primary: int) -> AsyncIterator[int]:
    """A node that answers on this port and names an earlier primary of every slot."""
    row = f"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n${len(HOST)}\r\n{HOST}\r\n:{primary}\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            writer.write(row.encode() if words[0] == b"CLUSTER" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
