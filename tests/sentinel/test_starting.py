"""An agent that starts while no primary is elected waits for one, and then works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from redis import Redis as PlainRedis
from redis.exceptions import ReadOnlyError

from console.explain import redis_trouble
from sandbox.redis_server import HOST
from shared.settings import Settings
from tests.cluster.agent import READS, Agent
from tests.sentinel.conftest import NAME, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sentinel.conftest import SentinelSet

pytestmark = pytest.mark.slow
WAITS: Final = "waiting for redis"


async def test_an_agent_waits_while_no_primary_is_elected(watched: SentinelSet, tmp_path: Path) -> None:
    (replica,) = watched.replicas
    # nobody to elect
    replica.kill()
    watched.primary.kill()
    async with Agent(tmp_path, watched.url, lanes=1) as agent:
        await agent.says(WAITS)
        await asyncio.to_thread(replica.start)
        await asyncio.to_thread(watched.wait_for_primary, replica)
        await asyncio.to_thread(watched.primary.start)
        await agent.says(READS)
    assert agent.events.count(WAITS) == 1


async def test_an_agent_waits_while_the_sentinels_name_a_server_that_is_a_replica_already(
    watched: SentinelSet, tmp_path: Path
) -> None:
    """As after a restart with the configuration that the sentinels wrote when it was a replica."""
    (replica,) = watched.replicas
    with PlainRedis(host=HOST, port=watched.primary.port, protocol=2) as primary:
        primary.execute_command("REPLICAOF", HOST, replica.port)
        async with Agent(tmp_path, watched.url, lanes=1) as agent:
            await agent.says(WAITS)
            primary.execute_command("REPLICAOF", "NO", "ONE")
            await agent.says(READS)
    assert agent.events.count(WAITS) == 1
    await asyncio.to_thread(wait_until, watched.is_settled)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (f"redis+sentinel://{HOST}/{NAME}", "Try again in a moment"),
        (f"redis+cluster://{HOST}", "Try again in a moment"),
        (f"redis://{HOST}", "Set REDIS_URL to the primary"),
    ],
)
def test_commands_advise_to_wait_where_the_address_is_not_of_one_server(url: str, advice: str) -> None:
    said = redis_trouble(ReadOnlyError("this server is a replica"), Settings(redis_url=url))
    assert advice in said
