"""Measures web hooks: how soon an end is delivered at rest, and what a dead endpoint costs the pipeline.

An agent in this process ends each photo at once, as a dead letter: that is the shortest way to an end, and
its settlement writes letter, event and notice. The notifier is a process of its own; the receiver is not.

* The time from the end (the entry id in photo.failed, the server's clock) to the request at the receiver.
* The CPU of agent, notifier and server for each end, without a web hook and with one that hangs, and how much
  of a photo's CPU (benchmarks/results/pipeline.json) the difference is. `window` seconds of held notices are
  among it.

    python -m benchmarks.webhooks [--ends 2000] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from aiohttp import web

from benchmarks.subjects.engine import Valkey
from events.connection import call, connect
from events.publisher import Publisher
from events.types import PhotoSubmitted, SchemaExtracted
from sandbox.children import end_with_parent
from shared.delivery.agent import Agent
from shared.delivery.process import AgentProcess
from shared.operations import webhooks
from shared.retry.errors import PermanentError
from shared.settings import Settings
from shared.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

RESULTS: Final = Path(__file__).parent / "results"
HOST: Final = "127.0.0.1"
SOURCE: Final = "urn:benchmark"
GOAL_SECONDS: Final = 1.0
GOAL_SHARE: Final = 0.02
_FAILED: Final = "erni:photo.failed"
_PAUSE: Final = 0.02


class Refuses(Agent[PhotoSubmitted, SchemaExtracted]):
    """End every photo at once."""

    name = "schema_extractor"

    async def handle(self, event: PhotoSubmitted) -> SchemaExtracted:
        """Refuse it."""
        raise PermanentError(f"refused for the benchmark: {event.photo_id}")


class Receiver:
    """Take notices, and note when each came; or hang."""

    def __init__(self, *, hangs: bool) -> None:
        self.came: dict[str, float] = {}
        self._hangs = hangs
        self._over = asyncio.Event()
        self._news = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        """Answer 204, or nothing at all."""
        async with self._news:
            self.came.setdefault(request.headers["webhook-id"], time.time())
            self._news.notify_all()
        if self._hangs:
            await self._over.wait()
        return web.Response(status=204)

    async def took(self, number: int) -> None:
        """Return when so many notices came."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.came) >= number)

    def let_go(self) -> None:
        """Answer what hangs."""
        self._over.set()


@asynccontextmanager
async def _receiving(*, hangs: bool) -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver(hangs=hangs)
    app = web.Application()
    app.router.add_post("/", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield receiver, f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        receiver.let_go()
        await runner.cleanup()


@asynccontextmanager
async def _notifier(redis_url: str) -> AsyncIterator[psutil.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "consumers",
        "webhook_notifier",
        env={
            **os.environ,
            "REDIS_URL": redis_url,
            "WEBHOOK_HOSTS": HOST,
            "WEBHOOK_TIMEOUT": "2",
            "METRICS_PORT": "0",
            "ENABLE_TRACING": "false",
            "LOG_LEVEL": "error",
        },
        preexec_fn=end_with_parent(),
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _agent(settings: Settings) -> AsyncIterator[None]:
    redis = connect(settings.redis_url)
    process = AgentProcess(Refuses(settings, redis), settings)
    task = asyncio.create_task(process.run(serve=False))
    try:
        async with asyncio.timeout(30):
            await process.ready.wait()
        yield
    finally:
        process.stop()
        await task
        await redis.aclose()


async def _publish(redis: Redis, numbers: range, *, apart: float = 0.0) -> None:
    publisher = Publisher(redis, source=SOURCE)
    for number in numbers:
        await publisher.publish(PhotoSubmitted(source_url=f"https://example.org/{number}.jpg"))
        if apart:
            await asyncio.sleep(apart)


async def _reached(redis: Redis, key: str, command: str, wanted: int) -> None:
    async with asyncio.timeout(300):
        while await call(redis, command, key) != wanted:  # noqa: ASYNC110 - the server has no event for that
            await asyncio.sleep(_PAUSE)


async def _latency(server: Valkey, settings: Settings, ends: int) -> dict[str, Any]:
    """Return the seconds from the end to the request, one photo after another."""
    async with AsyncExitStack() as stack:
        receiver, url = await stack.enter_async_context(_receiving(hangs=False))
        redis = connect(server.url)
        stack.push_async_callback(redis.aclose)
        await webhooks.add(redis, settings, url, source=SOURCE)
        await stack.enter_async_context(_notifier(server.url))
        await stack.enter_async_context(_agent(settings))
        # the first request opens its connection, and imports are loaded
        await _publish(redis, range(5))
        async with asyncio.timeout(60):
            await receiver.took(5)
        await _publish(redis, range(5, ends + 5), apart=0.02)
        await _reached(redis, _FAILED, "XLEN", ends + 5)
        async with asyncio.timeout(60):
            await receiver.took(ends + 5)
        ended = {
            dict(zip(flat[::2], flat[1::2], strict=True))[b"id"].decode(): int(entry.split(b"-")[0]) / 1000
            for entry, flat in (await call(redis, "XRANGE", _FAILED, "-", "+"))[5:]
        }
    seconds = sorted(receiver.came[name] - at for name, at in ended.items())
    p99 = seconds[int(0.99 * len(seconds))]
    return {
        "ends": ends,
        "p50_seconds": round(statistics.median(seconds), 4),
        "p99_seconds": round(p99, 4),
        "at_most": GOAL_SECONDS,
        "within": p99 <= GOAL_SECONDS,
    }


def _cpu(*processes: psutil.Process) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(float(one.user + one.system) for one in times)


async def _cost(server: Valkey, settings: Settings, ends: int, window: float, *, dead: bool) -> float:
    """Return the CPU seconds for each end, of agent, notifier and server."""
    async with AsyncExitStack() as stack:
        redis = connect(server.url)
        stack.push_async_callback(redis.aclose)
        await call(redis, "FLUSHALL")
        _, url = await stack.enter_async_context(_receiving(hangs=True))
        if dead:
            await webhooks.add(redis, settings, url, source=SOURCE)
        notifier = await stack.enter_async_context(_notifier(server.url))
        await stack.enter_async_context(_agent(settings))
        await _publish(redis, range(5))
        await _reached(redis, _FAILED, "XLEN", 5)
        processes = (
            psutil.Process(),
            notifier,
            psutil.Process(int((await redis.info("server"))["process_id"])),
        )
        await asyncio.sleep(1.0)
        before = _cpu(*processes)
        await _publish(redis, range(5, ends + 5))
        await _reached(redis, _FAILED, "XLEN", ends + 5)
        await asyncio.sleep(window)
        return (_cpu(*processes) - before) / ends


async def measure(ends: int, window: float, rounds: int) -> dict[str, Any]:
    """Return the figures."""
    with tempfile.TemporaryDirectory() as name:
        server = Valkey(Path(name)).start()
        settings = Settings(
            redis_url=server.url,
            metrics_port=0,
            enable_tracing=False,
            webhook_hosts=(HOST,),
            log_level="error",
        )
        with Path(os.devnull).open("wb") as nowhere:  # noqa: ASYNC230 - opening the null device never waits
            configure_logging(settings, agent=Refuses.name, consumer="benchmark", stream=nowhere)
            try:
                latency = await _latency(server, settings, min(ends, 500))
                plain, dead = [], []
                for _ in range(rounds):
                    plain.append(await _cost(server, settings, ends, window, dead=False))
                    dead.append(await _cost(server, settings, ends, window, dead=True))
            finally:
                server.stop()
    photo = json.loads((RESULTS / "pipeline.json").read_text())["milliseconds_of_cpu_per_photo"]
    extra = 1000 * (statistics.median(dead) - statistics.median(plain))
    return {
        "delivered": latency,
        "dead_endpoint": {
            "ends": ends,
            "window_seconds": window,
            "milliseconds_per_end_without": round(1000 * statistics.median(plain), 3),
            "milliseconds_per_end_with": round(1000 * statistics.median(dead), 3),
            "milliseconds_of_cpu_per_photo": photo,
            "share": round(extra / photo, 4),
            "at_most": GOAL_SHARE,
            "within": extra / photo <= GOAL_SHARE,
        },
    }


def main() -> int:
    """Print the figures and write them to benchmarks/results/webhooks.json."""
    parser = argparse.ArgumentParser(
        description="How soon ends are delivered, and what a dead endpoint costs."
    )
    parser.add_argument("--ends", type=int, default=2000)
    parser.add_argument("--window", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few ends, to see that it works")
    parser.add_argument("--output", type=Path, default=RESULTS / "webhooks.json")
    given = parser.parse_args()
    if given.quick:
        given.ends, given.window, given.rounds = 100, 2.0, 1
    figures = asyncio.run(measure(given.ends, given.window, given.rounds))
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(figures, indent=2) + "\n")
    delivered, dead = figures["delivered"], figures["dead_endpoint"]
    print(json.dumps(figures, indent=2))
    print(
        f"end of a photo → delivered: p99 {delivered['p99_seconds']} s ({GOAL_SECONDS} at most)"
        f" {'✓' if delivered['within'] else '✗'}\n"
        f"a dead endpoint costs {100 * dead['share']:.2f} % of a photo's CPU ({100 * GOAL_SHARE:.0f} at most)"
        f" {'✓' if dead['within'] else '✗'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
