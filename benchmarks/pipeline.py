"""Measures the whole pipeline on this machine: how much of its cores the agents' own work keeps busy.

A local stack as `erni demo` starts it gets generated photos, a quarter of them of 12 megapixels, the same in
every run. The figure that counts is a ratio: the time that the agents' CPU work would take on all cores,
divided by the time from the first publish to the last validated photo. What is missing to 1 is waiting, and
the CPU of the server, of the SharePoint stand-in and of this benchmark. What other programs of the machine
use is subtracted from the cores (`foreign_cpu_seconds`), but only a quiet machine shows the true ratio.

    python -m benchmarks.pipeline [--photos 300] [--processes vision_analyzer=2]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import numpy as np
import psutil
from PIL import Image
from yarl import URL

from console import photo_files
from console.explain import redis_client
from console.news import Reported
from console.publish_traces import tracing
from console.publishing import Batch, BatchPublisher
from console.running import running
from events import topology
from events.identities import SessionId
from events.keys import Keys
from events.types import Hints
from sandbox.stack import plan_demo
from shared.photo_store import BlobStore
from shared.settings import merged_environment

if TYPE_CHECKING:
    from console.supervisor import Supervisor
    from events.types import SessionReported
    from sandbox.stack import Stack

RESULTS: Final = Path(__file__).parent / "results"
AT_LEAST: Final = 0.8
PHOTOS: Final = 300
_LARGE: Final = (4032, 3024)
"""12 megapixels, a phone's."""
_SMALL: Final = (1600, 1200)
_PICTURES: Final = 4
"""Pictures of each size; more photos are the same pictures in files of their own content."""
_WARM: Final = 6
"""Photos that go through before: models, tokens and columns are read by then."""
_PATIENCE: Final = 600.0


def write_photos(folder: Path, photos: int) -> None:
    """Write the photos, every fourth a large one, each with a comment that makes it a content of its own."""
    folder.mkdir(parents=True)
    made: dict[tuple[int, int, int], bytes] = {}
    for index in range(photos):
        width, height = _LARGE if index % 4 == 0 else _SMALL
        which = (width, height, index // 4 % _PICTURES)
        if which not in made:
            made[which] = _picture(*which)
        (folder / f"{folder.name}_{index:04}.jpg").write_bytes(
            _commented(made[which], f"{folder.name} {index}")
        )


def _picture(width: int, height: int, seed: int) -> bytes:
    """Return a JPEG with large shapes and fine grain, which decodes about as slowly as a photograph."""
    random = np.random.default_rng([width, seed])
    shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = random.integers(-12, 13, (height, width, 1), np.int16)
    pixels = np.clip(np.asarray(shapes, np.int16) + grain, 0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=88)
    return target.getvalue()


def _commented(jpeg: bytes, comment: str) -> bytes:
    """Return the JPEG with a comment segment behind its first marker."""
    text = comment.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _cpu(supervisor: Supervisor) -> dict[str, float]:
    """Return the CPU seconds so far of each agent and service: all its processes and their children."""
    seconds: dict[str, float] = {}
    for child in supervisor.children.values():
        if child.pid is None:
            continue
        process = psutil.Process(child.pid)
        used = process.cpu_times()
        total = used.user + used.system + used.children_user + used.children_system
        for one in process.children(recursive=True):
            times = one.cpu_times()
            total += times.user + times.system
        name = child.spec.name.partition(".")[0]
        seconds[name] = seconds.get(name, 0.0) + total
    return seconds


async def _units(stack: Stack) -> int:
    """Return the resource units that SharePoint has counted so far."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(stack.settings.graph_url).with_path("/_erni")) as answer,
    ):
        return int((await answer.json())["units"])


async def _through(stack: Stack, folder: Path, session: SessionId) -> tuple[float, SessionReported]:
    """Publish a folder and wait for the session's end; return the seconds until the last validated photo."""
    async with redis_client(stack.settings) as redis:
        publisher = BatchPublisher(
            redis, BlobStore(stack.settings.photo_store_url), stack.settings, source="erni:benchmark"
        )
        reported = Reported(redis, lanes=stack.settings.lanes)
        await reported.skip()
        began = time.time()
        with tracing(stack.settings) as tracer:
            await publisher.publish(
                photo_files.find([str(folder)]).photos,
                Batch(session_id=session, hints=Hints(project="Benchmark")),
                tracer=tracer,
            )
        async with asyncio.timeout(_PATIENCE):
            while True:
                ended = [one for one in await reported.new() if one.session_id == session]
                if ended:
                    break
                await asyncio.sleep(0.1)
        # an entry's id contains the server's clock in milliseconds
        newest: Any = await redis.xrevrange(Keys().stream("photo.validated"), count=1)
        return int(newest[0][0].split(b"-")[0]) / 1000 - began, ended[0]


async def measure(photos: int, processes: dict[str, int]) -> dict[str, Any]:
    """Return the figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = plan_demo(merged_environment(), folder / "stack", processes=processes)
        sources = folder / "stack" / "photos"
        write_photos(sources / "warm", _WARM)
        write_photos(sources / "measured", photos)
        cores = len(os.sched_getaffinity(0))
        async with running(stack, on_change=lambda _: None) as (supervisor, _):
            await _through(stack, sources / "warm", SessionId("warm"))
            units = await _units(stack)
            before, busy, own = _cpu(supervisor), _busy(), time.process_time()
            seconds, ended = await _through(stack, sources / "measured", SessionId("measured"))
            units = await _units(stack) - units
            used = {name: total - before[name] for name, total in _cpu(supervisor).items()}
            foreign = _busy() - busy - sum(used.values()) - (time.process_time() - own)
            running_agents = [
                child.spec.name
                for child in supervisor.children.values()
                if child.spec.name.partition(".")[0] in topology.AGENTS
            ]
    agents = {agent: used.pop(agent) for agent in topology.AGENTS}
    work = sum(agents.values())
    ratio = work / (cores * seconds - max(foreign, 0.0))
    return {
        "photos": photos,
        "validated": ended.validated,
        "cores": cores,
        "processes": running_agents,
        "wall_seconds": round(seconds, 1),
        "agents_cpu_seconds": {agent: round(each, 1) for agent, each in agents.items()},
        "all_agents_cpu_seconds": round(work, 1),
        "services_cpu_seconds": {name: round(each, 1) for name, each in used.items()},
        "foreign_cpu_seconds": round(foreign, 1),
        "sharepoint_units_per_photo": round(units / photos, 1),
        "milliseconds_of_cpu_per_photo": round(1000 * work / photos),
        "ratio": round(ratio, 3),
        "at_least": AT_LEAST,
        "within": ratio >= AT_LEAST,
    }


def _busy() -> float:
    """Return the CPU seconds that all processes of this machine have used."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _number_of(text: str) -> tuple[str, int]:
    agent, _, number = text.partition("=")
    if agent not in topology.AGENTS or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: write vision_analyzer=2, for example")
    return agent, int(number)


def main() -> int:
    """Print the figures and write them to benchmarks/results/pipeline.json."""
    parser = argparse.ArgumentParser(description="How busy the agents keep this machine's cores.")
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--processes", type=_number_of, action="append", default=[], metavar="AGENT=N")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.photos, dict(given.processes)))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "pipeline.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    mark = "✓" if figures["within"] else f"{AT_LEAST - figures['ratio']:.3f} short"
    print(
        f"{figures['photos']} photos in {figures['wall_seconds']} s; the agents' work alone takes"
        f" {figures['all_agents_cpu_seconds'] / figures['cores']:.1f} s on {figures['cores']} cores"
        f" (other programs used {figures['foreign_cpu_seconds']} s of CPU meanwhile):"
        f" {figures['ratio']} ({AT_LEAST} at least) {mark}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
