"""An agent that starts while no primary is elected waits for one, and then works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from redis import Redis as PlainRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

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


SETS: Final = (f"redis+sentinel://{HOST}/{NAME}", f"redis+cluster://{HOST}")


@pytest.mark.parametrize(
    "error", [ReadOnlyError("this server is a replica"), RedisConnectionError("refused")]
)
def test_commands_advise_to_wait_where_another_server_may_take_over(error: RedisError) -> None:
    for url in SETS:
        said = redis_trouble(error, Settings(redis_url=url))
        assert ("Try again in a moment" in said, "erni up" in said) == (True, False), said
    assert "Try again" not in redis_trouble(error, Settings(redis_url=f"redis://{HOST}"))


@pytest.mark.parametrize("url", SETS)
def test_a_set_that_hangs_is_not_taken_for_the_server_at_the_default_port(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.explain.listening_process", lambda _: pytest.fail("it asked for a process"))
    said = redis_trouble(RedisTimeoutError("no answer"), Settings(redis_url=url))
    assert "takes connections and does not answer" in said
    assert "Try again in a moment" in said
