"""Photos that are published and handed on while servers change, and what became of each.

For a cluster and, with one lane, for the server that sentinels name.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from events import codec
from events.connection import Trouble, connect, trouble_of
from events.identities import SessionId
from events.keys import all_lanes, lane_of
from events.publisher import Publisher
from events.topology import bulk_of
from events.types import PhotoSubmitted, SchemaExtracted
from shared.delivery.process import AgentProcess
from tests.cluster.conftest import LANES
from tests.shared.delivery.harness import FirstAgent, entries, extracted, settings_for, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from events.keys import Keys
    from shared.settings import Settings

_SECONDS = 40.0


class Load:
    """Upstreams that publish until each event is acknowledged, and two processes that hand them on.

    Each upstream has a session, and there are so many that each lane gets photos.
    """

    def __init__(self, url: str, *, lanes: int = LANES, upstreams: int = 2 * LANES, **changes: Any) -> None:
        # a lease that no fail-over outlasts: what is handled twice then was taken over for another reason
        values = {"lease_seconds": 15.0, "wait_replicas": 1} | changes
        self.settings: Settings = settings_for(url, lanes=lanes, **values)
        self.lanes = all_lanes(lanes)
        self.acknowledged: list[str] = []
        self.by_lane: Counter[int | None] = Counter()
        """Hand-offs begun in each lane."""
        self.troubles: set[Trouble | None] = set()
        self.processes: list[AgentProcess] = []
        self._upstreams = upstreams
        self._stop = asyncio.Event()

    @property
    def handled(self) -> int:
        """Hand-offs begun."""
        return self.by_lane.total()

    @property
    def done(self) -> int:
        """Hand-offs that the processes count as settled."""
        return sum(worker.accounting.done for one in self.processes for worker in one._lanes)

    async def _handle(self, event: PhotoSubmitted) -> SchemaExtracted:
        await asyncio.sleep(0.005)
        self.by_lane[self._lane_of(event).lane] += 1
        return extracted(event)

    def _lane_of(self, event: PhotoSubmitted) -> Keys:
        return lane_of(str(event.session_id), self.settings.lanes)

    async def _publish(self, number: int) -> None:
        session = SessionId(f"s{number}")
        async with connect(self.settings.redis_url) as redis:
            publisher = Publisher(redis, lanes=self.settings.lanes, wait_replicas=self.settings.wait_replicas)
            count = 0
            while not self._stop.is_set():
                event = PhotoSubmitted(source_url=f"store:{number}/{count}", session_id=session)
                try:
                    published = await publisher.publish(event, event_id=event.source_url)
                except RedisError as error:
                    self.troubles.add(trouble_of(error))
                    await asyncio.sleep(0.05)
                    continue
                self.acknowledged.append(published.photo_id)
                count += 1
                await asyncio.sleep(0.01)

    async def pile_up(self, lane: Keys, number: int) -> None:
        """Publish so many photos more into a lane than its upstreams do, so that it has a backlog."""
        sessions = (SessionId(f"pile-{count}") for count in range(1000))
        mine = next(one for one in sessions if lane_of(one, self.settings.lanes).lane == lane.lane)
        async with connect(self.settings.redis_url) as redis:
            publisher = Publisher(redis, lanes=self.settings.lanes)
            for count in range(number):
                published = await publisher.publish(
                    PhotoSubmitted(source_url=f"store:{mine}/{count}", session_id=mine)
                )
                self.acknowledged.append(published.photo_id)

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[None]:
        """Publish and hand on inside the block; afterwards what was published is handed on to its end.

        If the block fails, nothing is waited for: its own error says more than what is then left.
        """
        async with connect(self.settings.redis_url) as redis:
            agents = [FirstAgent(self.settings, redis, self._handle) for _ in range(2)]
            self.processes = [AgentProcess(agent, self.settings, **options) for agent in agents]
            tasks = [asyncio.create_task(process.run(serve=False)) for process in self.processes]
            await asyncio.gather(*(process.ready.wait() for process in self.processes))
            upstreams = [asyncio.create_task(self._publish(number)) for number in range(self._upstreams)]
            try:
                await self.some_more()
                yield
                await self.some_more()
                self._stop.set()
                await asyncio.gather(*upstreams)
                await until(self._drained, _SECONDS)
            finally:
                self._stop.set()
                for process in self.processes:
                    process.stop()
                await asyncio.gather(*upstreams, *tasks)

    async def some_more(self, number: int = 10, *, lanes: tuple[Keys, ...] = ()) -> None:
        """Return when so many more photos of each of these lanes (of all) were handled, and acknowledged."""
        before, acknowledged = self.by_lane.copy(), len(self.acknowledged)

        async def are_there() -> bool:
            return len(self.acknowledged) >= acknowledged + number and all(
                self.by_lane[lane.lane] >= before[lane.lane] + number for lane in lanes or self.lanes
            )

        await until(are_there, _SECONDS)

    async def _drained(self) -> bool:
        try:
            return await self.count("photo.submitted") == 0
        except RedisError:
            return False

    async def count(self, stream: str) -> int:
        """Return how many entries a stream has in all lanes."""
        async with connect(self.settings.redis_url) as redis:
            return sum(
                [
                    await redis.xlen(lane.stream(name))
                    for lane in self.lanes
                    for name in (stream, bulk_of(stream))
                ]
            )

    async def handed_on(self) -> Counter[str]:
        """Return how often each photo was handed on."""
        counts: Counter[str] = Counter()
        async with connect(self.settings.redis_url) as redis:
            for lane in self.lanes:
                found = await entries(redis, lane.stream("schema.extracted"))
                # what comes behind the first photos of a session
                found += await entries(redis, lane.stream(bulk_of("schema.extracted")))
                counts.update(
                    str(codec.decode("schema.extracted", "1-0", fields).photo_id) for fields in found
                )
                assert await redis.xlen(lane.dead(FirstAgent.name)) == 0
        return counts

    async def check(self, *, lost: int | None = 0) -> None:
        """Each acknowledged photo but `lost` was handed on (None: whatever), and none was handed on twice."""
        handed_on = await self.handed_on()
        if lost is not None:
            assert len(set(self.acknowledged) - handed_on.keys()) == lost, "lost"
        assert set(handed_on.values()) == {1}, "handed on twice"
