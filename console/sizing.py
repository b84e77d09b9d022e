"""Measures for `erni doctor --size` what a photo costs here, and says what a number of photos needs."""

from __future__ import annotations

import os
import resource
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import topology
from events.connection import call
from shared.operations import sizing
from shared.operations.sizing import Costs, Size
from shared.operations.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redis.asyncio import Redis

    from shared.settings import Settings

_ENTRIES: Final = 2_000
_FORGOTTEN_SECONDS: Final = 60
_AT_ONCE: Final = 100
_ENTRY_BYTES: Final = 2_000
"""An event between two agents with its fields (docs/events.md)."""
_MOVE: Final = """
for i = 3, #ARGV do
  redis.call('XADD', KEYS[2], '*', 'data', ARGV[2])
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  redis.call('XDEL', KEYS[1], ARGV[i])
end
"""
_HANDOFF_TO_BARE: Final = 5.0
"""The server's time of a hand-off with sessions and records, divided by that of a bare one
(`python -m benchmarks.handoff`)."""
_HANDOFFS: Final = 5.2
"""A photo's, and its part of the session's report."""

_PIXELS: Final = (4032, 3024)
_PREVIEWS: Final = 4
_REFERENCE_SECONDS: Final = 0.1
"""CPU of the decoder for a preview of that many pixels, where the figures below were measured."""
_CPU_SECONDS: Final = {
    "schema_extractor": 0.002,
    "photo_fetcher": 0.011,
    "vision_analyzer": 0.134,
    "sharepoint_uploader": 0.019,
    "validation_reporter": 0.026,
}
"""CPU of one photo by agent, with the local model (`python -m benchmarks.pipeline`)."""
_PREVIEW_ONLY: Final = 0.4
"""The part of that of the analyzer where the model is a service."""
_ASSUMED_SECONDS: Final = {
    "schema_extractor": 0.05,
    "photo_fetcher": 0.5,
    "vision_analyzer": 6.0,
    "sharepoint_uploader": 1.5,
    "validation_reporter": 1.0,
}
"""How long an entry occupies a slot, where no process has done enough photos to know it."""


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `erni doctor --size`."""

    photos_a_day: float
    seen: list[str]
    """Agents whose duration was taken from running processes; it is assumed for the others."""
    machine: float
    """How many times as fast as the machine of docs/performance.md this one decodes."""
    costs: Costs
    size: Size
    first_limit: str


async def measure(settings: Settings, redis: Redis, daily: float) -> Sizing:
    """Measure for a few seconds, and compute. Raises what redis-py raises, DecoderError, TransientError."""
    status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
    seen = {
        agent.agent: max(usual)
        for agent in status.agents
        if (
            usual := [process.says.seconds_usual for process in agent.processes if process.says.seconds_usual]
        )
    }
    machine = _REFERENCE_SECONDS / await _preview_seconds()
    bare, waiting = await _redis_costs(redis)
    costs = costs_of(machine, bare, waiting, seen, local_model=settings.vision_backend == "local")
    size = sizing.size(
        daily, costs, concurrency=settings.concurrency, record_hours=settings.photo_record_hours
    )
    return Sizing(
        photos_a_day=daily,
        seen=sorted(seen),
        machine=machine,
        costs=costs,
        size=size,
        first_limit=sizing.first_limit(size, daily, cores=os.cpu_count() or 1),
    )


def costs_of(
    machine: float, bare_handoff: float, waiting_bytes: float, seen: Mapping[str, float], *, local_model: bool
) -> Costs:
    """Return what a photo costs on a machine that is `machine` times as fast as that of docs/performance.md.

    `bare_handoff`: seconds of Redis; `seen`: how long an entry occupies a slot, by the agents that know it.
    """
    cpu = {agent: seconds / machine for agent, seconds in _CPU_SECONDS.items()}
    assumed = dict(_ASSUMED_SECONDS)
    if local_model:
        assumed["vision_analyzer"] = 0.0
    else:
        cpu["vision_analyzer"] *= _PREVIEW_ONLY
    return sizing.Costs(
        cpu_seconds=cpu,
        # an entry occupies its slot at least as long as it is worked on
        wall_seconds={agent: max(seen.get(agent, assumed[agent]), cpu[agent]) for agent in topology.AGENTS},
        redis_seconds=bare_handoff * _HANDOFF_TO_BARE * _HANDOFFS,
        waiting_bytes=waiting_bytes,
    )


async def _preview_seconds() -> float:
    """Return the CPU seconds of a decoder for the preview of a 12 megapixel photo."""
    import pyvips

    from shared.photos.decoders import Decoders

    noise = pyvips.Image.gaussnoise(_PIXELS[0] // 8, _PIXELS[1] // 8, sigma=40, mean=128)
    grey = noise.resize(8).cast("uchar")
    photo = bytes(grey.bandjoin([grey, grey]).copy(interpretation="srgb").jpegsave_buffer(Q=88))
    took = []
    for previews in (1, 1 + _PREVIEWS):
        before = _ended_children()
        async with Decoders(size=1) as decoders:
            for _ in range(previews):
                await decoders.preview(photo)
        # known when the process has ended: its start is in both
        took.append(_ended_children() - before)
    return max((took[1] - took[0]) / _PREVIEWS, 0.001)


def _ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _redis_costs(redis: Redis) -> tuple[float, float]:
    """Return the server's seconds for a bare hand-off, and the bytes that a waiting entry takes.

    Works on two streams of its own, and deletes them.
    """
    # one slot of a cluster for both
    tag = f"erni:{{sizing-{secrets.token_hex(6)}}}"
    names = [f"{tag}:in", f"{tag}:out"]
    data = os.urandom(_ENTRY_BYTES // 2).hex()
    try:
        await redis.xgroup_create(names[0], "sizing", id="0", mkstream=True)
        # should this end before they are deleted
        await redis.expire(names[0], _FORGOTTEN_SECONDS)
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(_ENTRIES):
                pipe.xadd(names[0], {"data": data})
            await pipe.execute()
        took = []
        while True:
            began = time.perf_counter()
            reply: Any = await call(
                redis, "XREADGROUP", "GROUP", "sizing", "me", "COUNT", _AT_ONCE, "STREAMS", names[0], ">"
            )
            ids = [entry_id for _, entries in reply or () for entry_id, _ in entries]
            if not ids:
                break
            await call(redis, "EVAL", _MOVE, 2, *names, "sizing", data, *ids)
            took.append((time.perf_counter() - began) / len(ids))
            await redis.expire(names[1], _FORGOTTEN_SECONDS)
        size = int(await call(redis, "MEMORY", "USAGE", names[1], "SAMPLES", 0) or 0)
    finally:
        await redis.delete(*names)
    # the least: other work of the server only adds to it
    return min(took), size / _ENTRIES


def lines(found: Sizing, settings: Settings) -> Iterator[str]:
    """Return what a person reads, line by line, at most 80 characters wide where it is a table."""
    size = found.size
    yield (
        f"{found.photos_a_day:,.0f} photos a day: {_number(size.per_second)} a second in the busiest hour,"
        f" which has {sizing.BUSY_HOUR:.0%} of them."
    )
    yield f"This machine decodes {_number(found.machine)} x as fast as the one of docs/performance.md."
    yield ""
    yield f"{'agent':<20} {'processes':>9}  {'one does':>9}  limited by"
    for one in size.agents:
        what = "its CPU" if one.because == "cpu" else f"its {settings.concurrency} slots, "
        if one.because == "slots":
            seconds = found.costs.wall_seconds[one.agent]
            what += f"{_number(seconds)} s each " + ("(seen)" if one.agent in found.seen else "(assumed)")
        yield f"{one.agent:<20} {one.processes:>9}  {_number(one.per_process) + '/s':>9}  {what}"
    yield ""
    lanes = "one lane" if size.lanes == 1 else f"LANES={size.lanes} on a cluster"
    yield f"Cores for all agents: {_number(size.cores)}. Redis: {size.redis_cores:.1%} of a core, {lanes};"
    yield (
        f"maxmemory {_bytes(size.maxmemory)}, so that {sizing.OUTAGE_HOURS} busy hours of photos may wait."
    )
    yield f"SharePoint: {max(size.units_per_minute, 1):,.0f} resource units a minute in that hour."
    yield ""
    what, _, limit = found.first_limit.partition(": ")
    yield f"At its limit first is {what}:"
    yield f"{limit}."
    if len(found.seen) < len(topology.AGENTS):
        yield "(assumed): let the pipeline do some photos, and it is known how long each takes."


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number < 10 else f"{number:.0f}"


def _bytes(number: float) -> str:
    for unit in ("MB", "GB"):
        number /= 1e6 if unit == "MB" else 1e3
        if number < 1000:
            break
    return f"{max(number, 1):,.0f} {unit}"
