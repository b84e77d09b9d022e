"""Every test of these runs on one Redis, and with four lanes on a server in cluster mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis as PlainRedis

from events.connection import connect
from sandbox.redis_server import Valkey, free_port, ping
from tests.key_leaks import leaked_keys
from tests.shared.sessions.places import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis


@pytest.fixture(scope="session")
def cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server in cluster mode that owns every slot: scripts are held to their declared keys and one slot."""
    options = {"cluster-enabled": "yes", "cluster-port": str(free_port()), "appendfsync": "no"}
    with Valkey(tmp_path_factory.mktemp("cluster"), options=options) as server:
        with PlainRedis.from_url(server.url, protocol=2) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                ping(server.port)
        yield server


@pytest.fixture(params=["one Redis", "four lanes of a cluster"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty Redis; nothing undeclared may stay in it for ever."""
    if request.param == "one Redis":
        yield Place(url=request.getfixturevalue("redis_url"), lanes=1)
        return
    server = request.getfixturevalue("cluster_server")
    with PlainRedis.from_url(server.url, protocol=2) as client:
        client.flushall()
        client.script_flush()
        yield Place(url=f"redis+cluster://127.0.0.1:{server.port}", lanes=4)
        left = leaked_keys(client)
    if left:
        pytest.fail("the test left keys without a time to live:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
async def client(place: Place) -> AsyncIterator[Redis]:
    """A client of the place, as the product makes it."""
    redis = connect(place.url)
    yield redis
    await redis.aclose()
