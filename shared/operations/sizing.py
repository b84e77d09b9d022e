"""Computes what a number of photos needs: processes, lanes, memory of Redis, and what is at its limit first.

docs/scaling.md explains the arithmetic. What a photo costs comes from the caller, who measured it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from events import topology

BUSY_HOUR: Final = 0.2
"""The part of a day's photos that comes in its busiest hour. A choice: sites upload in the evening."""
DAYS_A_YEAR: Final = 250
"""Working days."""
_PER_DAY: Final = {"hour": 1 / BUSY_HOUR, "day": 1.0, "year": 1 / DAYS_A_YEAR}
"""Photos a day for one photo of the unit. Photos an hour are those of the busiest hour."""
_MOST: Final = 1e12
USED: Final = 0.7
"""The part of a core or a connection that is planned for: beyond it, queues grow long before it is full."""
OUTAGE_HOURS: Final = 8
"""So long everything that comes in has room in Redis while an outside service is down."""
RECORD_BYTES: Final = 2_500
"""Bytes of a photo's record and its part of a session (`python -m benchmarks.sessions`, rounded up)."""
MAXMEMORY_MARGIN: Final = 1.5
"""`maxmemory` divided by what is counted here: Redis also needs room for buffers and fragments."""
UNITS_PER_PHOTO: Final = 6.0
"""Resource units of SharePoint a photo takes (`python -m benchmarks.pipeline`)."""
UNITS_PER_MINUTE: Final = 1_200
"""Units that one app may use in a tenant of up to 1,000 licences ("Avoid getting throttled or blocked in
SharePoint Online")."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What one photo costs on this machine."""

    cpu_seconds: Mapping[str, float]
    """By agent: of one core."""
    wall_seconds: Mapping[str, float]
    """By agent: how long an entry occupies a slot."""
    redis_seconds: float
    """Of Redis' one core, for all hand-offs of the photo."""
    waiting_bytes: float
    """Of Redis, while the photo waits in a stream."""


class AgentSize(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent needs."""

    agent: str
    per_process: float
    """Photos a second that one process does."""
    processes: int
    because: str
    """``cpu`` or ``slots``: what limits a process."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of photos needs."""

    per_second: float
    """Photos a second in the busiest hour."""
    agents: list[AgentSize]
    cores: float
    """Of all agents together."""
    lanes: int
    redis_cores: float
    """Of Redis' core, in the busiest hour."""
    redis_bytes: float
    """What Redis holds when `OUTAGE_HOURS` of photos wait, and the records of `record_hours`."""
    maxmemory: float
    units_per_minute: float
    """Of SharePoint."""


def photos_a_day(text: str) -> float:
    """Read a number such as ``500000/day``, ``2000/hour`` or ``1000000/year``. Raises ValueError."""
    found = re.fullmatch(r"([\d_.,']*\d)\s*/\s*(hour|day|year)", text.strip())
    digits = re.sub(r"[_,']", "", found[1]) if found else ""
    if not found or not re.fullmatch(r"\d+(\.\d+)?", digits) or not 0 < float(digits) <= _MOST:
        raise ValueError(f"{text[:40]!r} is no number of photos: write 500000/day, 2000/hour or 1000000/year")
    return float(digits) * _PER_DAY[found[2]]


def per_second(photos_a_day: float) -> float:
    """Return the photos a second in the busiest hour of a day."""
    return photos_a_day * BUSY_HOUR / 3600


def size(photos_a_day: float, costs: Costs, *, concurrency: int, record_hours: float) -> Size:
    """Compute what this number of photos a day needs. `concurrency`: CONCURRENCY of each process."""
    rate = per_second(photos_a_day)
    agents = []
    for agent in topology.AGENTS:
        by_slots = concurrency * USED / costs.wall_seconds[agent]
        by_cpu = USED / costs.cpu_seconds[agent]
        each = min(by_slots, by_cpu)
        agents.append(
            AgentSize(
                agent=agent,
                per_process=each,
                processes=max(1, math.ceil(rate / each)),
                because="cpu" if by_cpu <= by_slots else "slots",
            )
        )
    redis_cores = rate * costs.redis_seconds
    held = rate * OUTAGE_HOURS * 3600 * costs.waiting_bytes + photos_a_day * record_hours / 24 * RECORD_BYTES
    return Size(
        per_second=rate,
        agents=agents,
        cores=rate * sum(costs.cpu_seconds.values()),
        lanes=max(1, math.ceil(redis_cores / USED)),
        redis_cores=redis_cores,
        redis_bytes=held,
        maxmemory=held * MAXMEMORY_MARGIN,
        units_per_minute=rate * 60 * UNITS_PER_PHOTO,
    )


def first_limit(size: Size, photos_a_day: float, *, cores: float) -> str:
    """Say what is at its limit first when the number of photos grows, and where that limit is."""
    limits = {
        f"SharePoint: {UNITS_PER_MINUTE:,} units a minute (a small tenant) are enough for": (
            photos_a_day * UNITS_PER_MINUTE / size.units_per_minute
        ),
        f"this machine: its {cores} cores are enough for": photos_a_day * cores * USED / size.cores,
        "Redis: one lane is enough for": photos_a_day * USED / size.redis_cores,
    }
    what, limit = min(limits.items(), key=lambda pair: pair[1])
    return f"{what} about {_rounded(limit):,} photos a day"


def _rounded(number: float) -> int:
    """Two digits are all that such a figure is worth."""
    digits = max(0, int(math.log10(max(number, 1))) - 1)
    return int(number // 10**digits * 10**digits)
