"""Agents and processes for tests of the machinery: what they do is said by the test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from events.connection import connect
from events.publisher import Publisher
from events.types import LibraryRef, PhotoSubmitted, SchemaExtracted
from shared.delivery.agent import Agent
from shared.delivery.process import AgentProcess
from shared.operations import background
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis

LIBRARY = LibraryRef(
    site_id="site", list_id="list", drive_id="drive", site="/sites/Bau", library="Fotos", web_url="http://x"
)
T = TypeVar("T")


def extracted(event: PhotoSubmitted) -> SchemaExtracted:
    """The event the first agent would make."""
    assert event.photo_id is not None
    return SchemaExtracted(
        photo_id=event.photo_id,
        session_id=event.session_id,
        source_url=event.source_url,
        file_name=event.file_name,
        library=LIBRARY,
        schema_digest="0" * 64,  # type: ignore[arg-type]  # any text will do here
        schema_ref="store:schemas/x.json",  # type: ignore[arg-type]
    )


class FirstAgent(Agent[PhotoSubmitted, SchemaExtracted]):
    """The first agent, doing what a test says; counts what it was given."""

    name = "schema_extractor"

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        do: Callable[[PhotoSubmitted], Awaitable[SchemaExtracted]] | None = None,
    ) -> None:
        super().__init__(settings, redis)
        self.do = do
        self.handled: list[PhotoSubmitted] = []
        self.seen = asyncio.Event()

    async def handle(self, event: PhotoSubmitted) -> SchemaExtracted:
        self.handled.append(event)
        self.seen.set()
        return await self.do(event) if self.do else extracted(event)


def settings_for(redis_url: str, **changes: Any) -> Settings:
    """Settings with a short lease, so that a test of it takes a second."""
    values: dict[str, Any] = {
        "redis_url": redis_url,
        "lease_seconds": 1.0,
        "grace_seconds": 5.0,
        "metrics_port": 0,
        "enable_tracing": False,
    }
    return Settings(**(values | changes))


@asynccontextmanager
async def running(
    settings: Settings,
    do: Callable[[PhotoSubmitted], Awaitable[SchemaExtracted]] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[AgentProcess, FirstAgent]]:
    """The first agent's process, in this one; stopped and drained at the end."""
    redis = connect(settings.redis_url)
    agent = FirstAgent(settings, redis, do)
    process = AgentProcess(agent, settings, **{"background": background.run, **options})
    task = asyncio.create_task(process.run(serve=False))
    ready = asyncio.create_task(process.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        ready.cancel()
        task.result()
    try:
        yield process, agent
    finally:
        process.stop()
        await task
        await redis.aclose()


@asynccontextmanager
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    """A publisher with a connection of its own."""
    redis = connect(settings.redis_url)
    yield Publisher(redis, lanes=settings.lanes)
    await redis.aclose()


async def until(look: Callable[[], Awaitable[T]], seconds: float = 20.0) -> T:
    """Ask again and again until the answer is true; gives it. Fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not (found := await look()):  # noqa: ASYNC110 - another process's doing has no event here
            await asyncio.sleep(0.01)
    return found


async def entries(redis: Redis, stream: str) -> list[list[bytes]]:
    """The fields of a stream's entries, as Redis' flat lists."""
    call: Callable[..., Awaitable[Any]] = redis.eval
    found = await call("return redis.call('XRANGE', KEYS[1], '-', '+')", 1, stream)
    return [fields for _, fields in found]
