"""``python -m tests.shared.sessions.worker URL LANES WHAT …``: one process of a test."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from events.connection import connect
from events.identities import SessionId
from events.publisher import Publisher
from events.types import PhotoSubmitted
from tests.shared.sessions.chain import chain
from tests.shared.sessions.places import Place, store_at

if TYPE_CHECKING:
    from redis.asyncio import Redis


def _nothing(_agent: str, _url: str) -> None:
    """Every photo is fine."""


async def _publish(redis: Redis, place: Place, session_id: str, photos: int) -> None:
    publisher = Publisher(redis, lanes=place.lanes)
    await publisher.open_session(session_id, expected=photos)
    for number in range(photos):
        await publisher.publish(
            PhotoSubmitted(source_url=f"https://bau.invalid/{number}", session_id=SessionId(session_id))
        )


async def _main(url: str, lanes: str, what: str, *rest: str) -> None:
    place = Place(url=url, lanes=int(lanes))
    async with connect(url) as redis:
        store = store_at(redis, place)
        if what == "set":
            await store.set(rest[0], site=rest[1])
        elif what == "touch":
            for _ in range(int(rest[1])):
                sys.stdout.write(f"{await store.touch(rest[0])}\n")
        elif what == "publish":
            await _publish(redis, place, rest[0], int(rest[1]))
        elif what == "agents":
            async with chain(place, _nothing):
                # until the test closes our input
                await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
