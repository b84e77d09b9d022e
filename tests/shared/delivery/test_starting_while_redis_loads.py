"""An agent that starts while Redis is still reading its data back waits for it."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from events.connection import Trouble, connect, trouble_of
from sandbox.redis_server import command, find_server
from shared.delivery import startup

if TYPE_CHECKING:
    from sandbox.redis_server import Valkey


async def test_a_server_that_is_loading_is_no_reason_not_to_start(own_redis_server: Valkey) -> None:
    """While it loads it says of itself that it keeps no append-only file."""
    server = own_redis_server
    async with connect(server.url) as client:
        async with client.pipeline(transaction=False) as pipe:
            for number in range(8000):
                pipe.xadd("some", {"n": number})
            await pipe.execute()
        server.stop()
        # it answers once in about a thousand commands while it loads
        slowly = {"key-load-delay": "100"}
        loading = await asyncio.create_subprocess_exec(
            *command(find_server(), folder=server.folder, port=server.port, options=slowly),
            stdout=subprocess.DEVNULL,
        )
        try:
            said: list[Exception] = []
            async with asyncio.timeout(30):
                while True:
                    try:
                        await startup.require(client, lanes=1, allow_volatile=False)
                    except (RedisError, OSError) as error:
                        said.append(error)
                        await asyncio.sleep(0.005)
                    else:
                        break
            assert all(startup.is_passing(error) for error in said)
            assert Trouble.LOADING in {trouble_of(error) for error in said}
        finally:
            loading.kill()
            await loading.wait()
