"""The autoscaler goes from one pod to the most and back, and a busy pod that is taken loses nothing."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from events import codec
from events.connection import connect
from events.keys import all_lanes
from events.types import PhotoSubmitted, SchemaExtracted
from shared.delivery.process import AgentProcess
from shared.operations import photos
from tests.scaling import keda
from tests.scaling.lanes import scaled_object
from tests.shared.delivery.harness import FirstAgent, entries, extracted, publisher, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.settings import Settings
    from tests.project.manifests import Manifest

WAITING: Final = 1000
TRICKLE: Final = 6
"""Photos that still come between two looks while the pods become fewer, so that some of them are busy."""
SECONDS: Final = 0.15
"""What a photo takes; `GRACE` ends before some of them, so a pod that goes finishes some, releases others."""
GRACE: Final = 0.05
LOOK: Final = 0.12
"""Real seconds for the autoscaler's 15."""


class Pods:
    """The pods of a deployment: agent processes. Which one goes is the cluster's choice: the newest."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._running: list[tuple[AgentProcess, asyncio.Task[None]]] = []
        self._going: list[asyncio.Task[None]] = []
        self.taken_while_busy = 0

    def __len__(self) -> int:
        return len(self._running)

    async def scale(self, number: int) -> None:
        """Start some more, or send SIGTERM to some."""
        while len(self) < number:
            agent = FirstAgent(self._settings, self._redis, self._work)
            process = AgentProcess(agent, self._settings)
            self._running.append((process, asyncio.create_task(process.run(serve=False))))
        while len(self) > number:
            process, task = self._running.pop()
            self.taken_while_busy += process._in_flight > 0
            process.stop()
            self._going.append(task)

    async def _work(self, event: PhotoSubmitted) -> SchemaExtracted:
        await asyncio.sleep(SECONDS)
        return extracted(event)

    async def close(self) -> None:
        await self.scale(0)
        await asyncio.gather(*self._going)


@pytest.mark.slow
@pytest.mark.leaves_keys("schema.extracted")
@pytest.mark.parametrize("lanes", [1, 8])
async def test_a_thousand_waiting_photos_bring_every_pod_and_then_only_one_is_left(
    redis: Redis, redis_url: str, lanes: int
) -> None:
    spec = scaled_object("schema-extractor", lanes)["spec"]
    autoscaler = keda.Autoscaler(spec)
    settings = settings_for(redis_url, lanes=lanes, lease_seconds=10.0, grace_seconds=GRACE)
    numbers: list[int] = []
    async with connect(redis_url) as client, publisher(settings) as up, asyncio.timeout(90):
        waiting = [PhotoSubmitted(source_url=f"store:{number}") for number in range(WAITING)]
        published = await asyncio.gather(*map(up.publish, waiting))
        pods = Pods(settings, client)
        await pods.scale(1)
        down = False
        try:
            while True:
                await asyncio.sleep(LOOK)
                if len(pods) == autoscaler.most or down:
                    for _ in range(TRICKLE):
                        photo = PhotoSubmitted(source_url=f"store:{len(published)}")
                        published.append(await up.publish(photo))
                    await asyncio.sleep(GRACE)
                seen = await keda.metrics(client, spec)
                await pods.scale(autoscaler.sync(len(pods), seen))
                numbers.append(len(pods))
                down = numbers[-1] < max(numbers)
                if len(pods) == 1 and down:
                    break
            await drained(client, spec)
        finally:
            await pods.close()
        # up as fast as its limits allow (4 pods, or as many as there are), then down without a turn
        peak = numbers.index(autoscaler.most)
        assert peak <= math.ceil(math.log2(autoscaler.most))
        assert numbers[:peak] == sorted(numbers[:peak])
        assert numbers[peak:] == sorted(numbers[peak:], reverse=True)
        assert pods.taken_while_busy
        made: Counter[str | None] = Counter()
        for lane in all_lanes(lanes):
            assert await client.xlen(lane.dead("schema_extractor")) == 0
            for fields in await entries(client, lane.stream("schema.extracted")):
                envelope = codec.decode("schema.extracted", "1-0", fields)
                made[envelope.photo_id] += 1
        assert made == Counter(one.photo_id for one in published)
        for record in await asyncio.gather(
            *(photos.show(client, one.photo_id, lanes=lanes) for one in published)
        ):
            assert record is not None
            assert [part.deliveries for part in record.parts] == [1]


async def drained(client: Redis, spec: Manifest) -> None:
    """Return when nothing waits and nothing is in flight."""

    async def nothing_left() -> bool:
        return not max(metric.value for metric in await keda.metrics(client, spec))

    await until(nothing_left)
