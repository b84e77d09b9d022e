"""What KEDA scales by is exactly what waits and what is in flight, whatever the order of the hand-offs."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from events import codec, topology
from events.connection import call, connect
from events.identities import EventId, PhotoId
from events.keys import all_lanes
from events.types import PhotoUploaded, PhotoValidated, SessionCompleted, SessionReported
from sandbox.redis_server import Valkey
from shared.delivery.agent import Agent
from shared.delivery.process import AgentProcess
from shared.retry.errors import PermanentError, PostponeError
from shared.settings import Settings
from tests.events.samples import sample
from tests.project import manifests
from tests.scaling import keda
from tests.scaling.lanes import scaled_object
from tests.shared.delivery.harness import settings_for, until
from tests.tools import REDIS_8, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

    from events.keys import Keys

EVENTS: Final = 120
PODS: Final = 2


@pytest.fixture(
    scope="module",
    params=[
        "the bundled server",
        pytest.param("redis-server", marks=pytest.mark.needs("redis-server")),
        pytest.param(REDIS_8, marks=pytest.mark.needs(REDIS_8)),
    ],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Servers count `lag` differently: Redis 7.0 in one way, Redis from 7.2.7 on and Valkey in another."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "the bundled server":
            patch.setattr("sandbox.redis_server._candidates", lambda: [require(request.param)])
        with Valkey(tmp_path_factory.mktemp("scaling"), options={"appendfsync": "no"}) as running:
            yield running


class Reporter(Agent[PhotoUploaded | SessionCompleted, PhotoValidated | SessionReported]):
    """The agent with two streams. Each of its entries ends when the test says so, and how."""

    name = "validation_reporter"

    def begin(self) -> None:
        """Make the list of entries in flight."""
        self.in_flight: list[asyncio.Future[str]] = []

    async def handle(self, event: PhotoUploaded | SessionCompleted) -> PhotoValidated | SessionReported:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.in_flight.append(future)
        how = await future
        if how == "dead":
            raise PermanentError("this one is none")
        if how == "postponed":
            raise PostponeError("come back in an hour", seconds=3600)
        if isinstance(event, SessionCompleted):
            return sample("session.reported")  # type: ignore[return-value]
        reported: PhotoValidated = sample("photo.validated")  # type: ignore[assignment]
        return msgspec.structs.replace(reported, photo_id=event.photo_id, session_id=None)


async def publish(redis: Redis, lane: Keys, name: str, number: int) -> None:
    """Add an entry as the agent before, or the end of a session, does."""
    photo = PhotoId(f"p-{number}")
    event = sample(topology.type_of(name))
    if isinstance(event, PhotoUploaded):
        event = msgspec.structs.replace(event, photo_id=photo, session_id=None)
    fields = codec.encode(
        event,
        event_id=EventId(f"e-{number}"),
        source="test",
        photo_id=photo if topology.type_of(name) == "photo.uploaded" else None,
        session_id=None,
        traceparent="",
        tracestate="",
    )
    await call(redis, "XADD", lane.stream(name), "*", *fields)


@pytest.mark.parametrize("lanes", [1, 8])
async def test_the_metric_is_published_less_settled_in_every_look(server: Valkey, lanes: int) -> None:
    drawn = random.Random(15)
    stage = topology.stage_of(Reporter.name)
    spec = scaled_object("validation-reporter", lanes)["spec"]
    settings = settings_for(server.url, lanes=lanes, lease_seconds=15.0)
    async with connect(server.url) as redis:
        await redis.flushall()
        agents = [Reporter(settings, redis) for _ in range(PODS)]
        for agent in agents:
            agent.begin()
        processes = [AgentProcess(agent, settings) for agent in agents]
        running = [asyncio.create_task(process.run(serve=False)) for process in processes]
        await asyncio.gather(*(process.ready.wait() for process in processes))
        published = settled = looks = 0
        try:
            async with asyncio.timeout(60):
                while settled < EVENTS:
                    if published < EVENTS and drawn.random() < 0.7:
                        for _ in range(min(drawn.randint(1, 6), EVENTS - published)):
                            lane = drawn.choice(all_lanes(lanes))
                            await publish(redis, lane, drawn.choice(stage.streams), published)
                            published += 1
                    in_flight = [one for agent in agents for one in agent.in_flight if not one.done()]
                    for future in drawn.sample(in_flight, drawn.randint(0, min(3, len(in_flight)))):
                        future.set_result(drawn.choice(("done", "done", "done", "dead", "postponed")))
                        settled += 1
                    await until(partial(have_ended, redis, lanes, settled))
                    seen = await keda.metrics(redis, spec)
                    looks += 1
                    # without a formula the autoscaler goes by the largest
                    assert max(metric.value for metric in seen) == published - settled, f"look {looks}"
        finally:
            for agent in agents:
                for future in agent.in_flight:
                    if not future.done():
                        future.set_result("done")
            for process in processes:
                process.stop()
            await asyncio.gather(*running)
        assert looks > 30


async def have_ended(redis: Redis, lanes: int, number: int) -> bool:
    """Whether so many entries have left the agent, counted where they went."""
    pipe = redis.pipeline(transaction=False)
    for lane in all_lanes(lanes):
        # `photo.failed` stands beside a dead letter that names a photo
        ends = set(topology.PUBLIC) - {topology.FAILED}
        for stream in (*map(lane.stream, ends), lane.dead(Reporter.name)):
            pipe.xlen(stream)
        pipe.zcard(lane.delayed(Reporter.name))
    return sum(map(int, await pipe.execute())) == number


def test_no_more_pods_go_than_the_entries_in_flight_can_spare() -> None:
    (concurrency,) = (one.default for one in msgspec.structs.fields(Settings) if one.name == "concurrency")
    for name, each in manifests.of_kind("ScaledObject").items():
        assert float(each["spec"]["advanced"]["scalingModifiers"]["target"]) <= concurrency, name
