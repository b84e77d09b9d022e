"""A server that takes heartbeats and refuses settlements is not asked without pause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from events.connection import call, connect
from events.keys import Keys
from events.types import PhotoSubmitted
from sandbox.redis_server import Valkey
from tests.shared.delivery.harness import FirstAgent, publisher, running, settings_for, until

if TYPE_CHECKING:
    from pathlib import Path

KEYS = Keys()


async def test_settlements_that_are_refused_between_heartbeats_are_tried_again_with_pauses(
    tmp_path: Path,
) -> None:
    with Valkey(tmp_path / "redis", options={"appendfsync": "no"}) as server:
        # a lease of a usual length: heartbeats come once a second
        settings = settings_for(server.url, lease_seconds=15.0)
        async with connect(server.url) as redis, publisher(settings) as publish, running(settings):
            # the keys of a heartbeat and of a read; those of sessions and outputs are missing
            mine = [KEYS.beats(FirstAgent.name), KEYS.processes(FirstAgent.name), KEYS.paused]
            mine += [KEYS.delayed(FirstAgent.name), KEYS.stream("photo.submitted*")]
            patterns = [f"~{key}" for key in mine]
            await call(redis, "ACL SETUSER", "operator", "on", "nopass", "~*", "+@all")
            operator = connect(server.url.replace("redis://", "redis://operator@"), password="any")
            await publish.publish(PhotoSubmitted(source_url="store:1"))
            stream = KEYS.stream("schema.extracted")

            async def handed_on() -> int:
                return int(await operator.xlen(stream))

            async def heartbeats() -> int:
                (count,) = await operator.hvals(KEYS.beats(FirstAgent.name))
                return int(count)

            await until(handed_on)
            await call(operator, "ACL SETUSER", "default", "resetkeys", *patterns)
            await call(
                operator, "XADD", KEYS.stream("photo.submitted"), "*", "data", b'{"source_url":"store:2"}'
            )
            before = await heartbeats()
            await asyncio.sleep(3.0)
            assert 2 <= await heartbeats() - before < 30
            await call(operator, "ACL SETUSER", "default", "allkeys")
            assert await until(lambda: _equals(handed_on, 2))
            await operator.aclose()


async def _equals(look: object, wanted: int) -> bool:
    assert callable(look)
    return bool(await look() == wanted)
