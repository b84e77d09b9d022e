"""What uvloop, which the agents run on, says otherwise than asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from events.connection import Trouble, connect, trouble_of

if TYPE_CHECKING:
    from redis.asyncio import Redis


def test_a_command_on_a_connection_that_just_closed_means_that_redis_is_away(redis_url: str) -> None:
    """Redis killed between our connecting and our first command: no loop may end of it."""

    async def send_on_a_closed_one() -> BaseException:
        async with connect(redis_url) as client:
            pool: Any = client.connection_pool
            connection = await pool.get_connection()
            connection._writer.transport.abort()
            with pytest.raises(Exception, match=r"closed|lost") as raised:
                await connection.send_command("PING")
            await pool.release(connection)
            return raised.value

    assert trouble_of(uvloop.run(send_on_a_closed_one())) is Trouble.AWAY


def test_a_cancellation_is_never_swallowed(redis_url: str) -> None:
    """Python 3.11's wait_for loses one when the write ends in the same moment."""

    async def cancel_many() -> int:
        lost = 0
        async with connect(redis_url) as client:
            await client.ping()
            for turns in range(300):
                task = asyncio.ensure_future(_forever(client))
                for _ in range(turns % 7):
                    await asyncio.sleep(0)
                task.cancel()
                _, pending = await asyncio.wait([task], timeout=0.5)
                lost += bool(pending)
                while pending:
                    task.cancel()
                    _, pending = await asyncio.wait([task], timeout=0.1)
        return lost

    assert uvloop.run(cancel_many()) == 0


async def _forever(client: Redis) -> None:
    while True:
        await client.ping()
