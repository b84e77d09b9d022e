"""What can be seen from outside after a run: the upstream's ledger, Redis, its files, effects, logs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis import Redis as PlainRedis

from events import codec, keys, topology
from events.types import SessionReported, Step
from shared.delivery import packing
from shared.delivery.dead_letter import DeadLetter, read_letter
from tests.chaos import aof
from tests.chaos.several import Several
from tests.key_leaks import leaked_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.chaos.herd import Process
    from tests.chaos.nemesis import Interval, Nemesis, TakeOver
    from tests.chaos.real import Traced
    from tests.chaos.run import Plan, World
    from tests.chaos.submitter import Nonsense, Photo

SOURCE: Final = "erni"
"""Of all that the submitter publishes: it names none."""
_PAGE: Final = 1000


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker reads of a log line."""

    event: str
    timestamp: str = ""
    level: str = "info"
    consumer: str = ""
    outcome: str = ""
    reason: str = ""
    attempts: int = 0
    deliveries: int = 0
    attempt: int = 0
    wait: float = 0.0
    entries: int = 0
    error: str = ""
    exception: str = ""


class _Content(msgspec.Struct, frozen=True):
    sha256: str


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of photo.validated."""

    photo_id: str
    trace_id: str
    steps: tuple[Step, ...]
    sha256: str


class Buried(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter."""

    letter: DeadLetter
    raw: list[bytes]
    beside: bytes
    """All of it but `raw`, for the search for secrets."""


@dataclass
class Logged:
    """One process's log."""

    process: Process
    lines: list[Line]
    secret_lines: int
    not_json: list[str]


@dataclass
class Evidence:
    """Everything the checker looks at. Monotonic times are the nemesis'."""

    plan: Plan
    seed: int
    photos: dict[str, Photo]
    nonsense: list[Nonsense]
    validated: list[Validated]
    reported: Counter[tuple[str, int]]
    buried: list[Buried]
    sessions: dict[str, dict[str, str]]
    left: list[str]
    pending: list[str]
    leaks: list[str]
    strangers: list[str]
    """Consumers of no living process, while the processes still ran."""
    stayed: list[str]
    """Consumers, beats and records that are there after all processes have ended."""
    late: list[str]
    """Processes that did not end when told to."""
    handed: aof.HandOffs
    effects: dict[tuple[str, str, str], float]
    tried: Counter[tuple[str, str, str]]
    logs: list[Logged]
    herd: list[Process]
    done: Counter[str]
    take_overs: list[TakeOver]
    intervals: list[Interval]
    wall: float
    """Unix time minus monotonic time."""
    seconds: float
    drain_seconds: float
    uploads: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of the real agents: (sha256, created or replaced)."""
    traced: list[Traced] = field(default_factory=list)
    """Of the real agents."""
    ends: set[str] = field(default_factory=set)
    """With web hooks: the ids of the ends of what the upstream submitted."""
    notices: Counter[str] = field(default_factory=Counter)
    """The ids that the web hook took, and how often."""
    revived: Counter[str] = field(default_factory=Counter)
    """Likewise at the endpoint that was dead while there was trouble."""
    dropped: int = 0
    """Requests that it dropped while it was dead."""
    bodies: dict[str, int] = field(default_factory=dict)
    """How many different bodies came under an id."""
    unsigned: list[str] = field(default_factory=list)
    undelivered: list[str] = field(default_factory=list)
    """Why notices became dead letters."""
    notes: list[str] = field(default_factory=list)
    """What could not be done here, and other things worth a line."""


async def gather(here: World, nemesis: Nemesis, *, left: list[str], drain_seconds: float) -> Evidence:
    """Look at everything; ends the agents and the server."""
    strangers = await _strangers(here)
    late = await here.herd.stop()
    evidence = Evidence(
        plan=here.plan,
        seed=here.plan.seed,
        photos=here.submitter.everything,
        nonsense=here.submitter.nonsense,
        validated=[_validated(flat) async for _, flat in _entries(here, topology.VALIDATED)],
        reported=Counter([_reported(flat) async for _, flat in _entries(here, "session.reported")]),
        buried=[letter async for letter in _buried(here)],
        sessions=await _sessions(here),
        left=left,
        pending=await _pending(here),
        leaks=await asyncio.to_thread(_leaks, here),
        strangers=strangers,
        stayed=await _stayed(here),
        late=[f"{process.agent} (pid {process.pid})" for process in late],
        handed=aof.HandOffs(),
        effects=here.effects.taken,
        tried=here.effects.tried,
        logs=[],
        herd=here.herd.all,
        done=nemesis.done,
        take_overs=nemesis.take_overs,
        intervals=nemesis.intervals,
        wall=time.time() - time.monotonic(),
        seconds=time.monotonic() - here.began,
        drain_seconds=drain_seconds,
    )
    if here.real is not None:
        evidence.uploads = here.real.uploads()
        evidence.traced = await here.real.traced(entry.trace_id for entry in evidence.validated)
    if here.plan.hooks:
        await _heard(here, evidence)
    if here.server.disk_refused:
        evidence.notes.append(f"full disk was NOT tried: {here.server.disk_refused}")
    evidence.notes.append(
        f"power cuts took {nemesis.bytes_lost} unsynced bytes;"
        f" {here.proxy.struck} network strikes met traffic; the machine was late by"
        f" {nemesis.longest_lag:.2f} s at most;"
        f" {here.submitter.errors} publishes failed, {here.submitter.refused} were refused; all were repeated"
    )
    here.server.kill()
    evidence.handed = await asyncio.to_thread(aof.read, here.server.all_that_happened())
    evidence.logs = await asyncio.to_thread(_logs, here)
    return evidence


async def _heard(here: World, evidence: Evidence) -> None:
    heard = here.hooks
    evidence.ends = {
        pairs[b"id"].decode()
        for stream in topology.PUBLIC
        async for _, flat in _entries(here, stream)
        if (pairs := _pairs(flat)).get(b"ernisource") == SOURCE.encode()
    }
    evidence.notices, evidence.revived, evidence.dropped = heard.got, heard.revived, heard.refused
    evidence.bodies = {name: len(bodies) for name, bodies in heard.bodies.items()}
    evidence.unsigned = heard.wrong
    evidence.undelivered = [
        _pairs(flat)[b"message"].decode() async for _, flat in _entries(here, "dead:webhook_notifier")
    ]


async def _entries(here: World, stream: str) -> AsyncIterator[tuple[bytes, list[bytes]]]:
    """Yield what a stream holds, lane by lane."""
    fetch: Callable[..., Awaitable[Any]] = here.server.admin.execute_command
    for lane in here.server.lanes:
        start, page = "-", [()] * _PAGE
        while len(page) == _PAGE:
            page = await fetch("XRANGE", lane.stream(stream), start, "+", "COUNT", _PAGE)
            for entry_id, flat in page:
                yield entry_id, flat
            start = "(" + page[-1][0].decode() if page else ""


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _validated(flat: list[bytes]) -> Validated:
    pairs = _pairs(flat)
    return Validated(
        photo_id=pairs[b"subject"].decode(),
        trace_id=pairs[b"traceparent"].decode()[3:35],
        steps=codec.read_steps(pairs[b"ernisteps"]),
        sha256=msgspec.json.decode(pairs[b"data"], type=_Content).sha256,
    )


def _reported(flat: list[bytes]) -> tuple[str, int]:
    event = msgspec.json.decode(_pairs(flat)[b"data"], type=SessionReported)
    return event.session_id, event.completion


async def _buried(here: World) -> AsyncIterator[Buried]:
    for agent in topology.AGENTS:
        async for entry_id, flat in _entries(here, f"dead:{agent}"):
            pairs = _pairs(flat)
            raw = pairs.pop(b"raw", b"")
            yield Buried(
                letter=read_letter(entry_id, flat, agent=agent, lane=None),
                raw=packing.unpack(raw) if raw else [],
                beside=b"\n".join(pairs.values()),
            )


async def _sessions(here: World) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    admin = here.server.admin
    fetch: Callable[..., Awaitable[Any]] = admin.hgetall
    for lane in here.server.lanes:
        prefix = lane.session("")
        async for key in admin.scan_iter(match=f"{prefix}*", count=1000):
            name = key.decode().removeprefix(prefix)
            if ":" in name or name in ("open", "lru", "stats"):
                continue
            found[name] = {k.decode(): v.decode() for k, v in (await fetch(key)).items()}
    return found


async def _pending(here: World) -> list[str]:
    found = []
    for lane, stage in product(here.server.lanes, map(topology.stage_of, here.herd.agents)):
        for key in map(lane.stream, stage.streams):
            found += [
                f"{key}: {group['pending']} pending of {group['name'].decode()}"
                for group in await here.server.admin.xinfo_groups(key)
                if group["pending"]
            ]
    return found


async def _consumers(here: World) -> list[tuple[str, str]]:
    return [
        (stage.agent, consumer["name"].decode())
        for lane, stage in product(here.server.lanes, map(topology.stage_of, here.herd.agents))
        for stream in stage.streams
        for consumer in await here.server.admin.xinfo_consumers(lane.stream(stream), stage.agent)
        if consumer["name"] != keys.RETURNED.encode()
    ]


async def _strangers(here: World) -> list[str]:
    living = {f"-{process.pid}-" for process in here.herd.all if process.alive}
    return [
        f"{agent}: {name}"
        for agent, name in await _consumers(here)
        if not any(mark in name for mark in living)
    ]


async def _stayed(here: World) -> list[str]:
    found = [f"{agent}: consumer {name}" for agent, name in await _consumers(here)]
    fetch: Callable[..., Awaitable[Any]] = here.server.admin.hkeys
    for lane, agent in product(here.server.lanes, here.herd.agents):
        for what, key in (("beat", lane.beats(agent)), ("record", lane.processes(agent))):
            found += [f"{agent}: {what} of {name.decode()}" for name in await fetch(key)]
    return found


def _leaks(here: World) -> list[str]:
    server = here.server
    password = None if isinstance(server, Several) else here.secret
    found = []
    for url in [one.url for one in server.holders()] if isinstance(server, Several) else [server.url]:
        with PlainRedis.from_url(url, password=password, protocol=2) as client:
            found += leaked_keys(client)
    return found


def _logs(here: World) -> list[Logged]:
    decoder, secret = msgspec.json.Decoder(Line), here.secret.encode()
    found = []
    for process in here.herd.all:
        logged = Logged(process, [], 0, [])
        if process.log.exists():
            for raw in process.log.read_bytes().splitlines():
                logged.secret_lines += secret in raw
                try:
                    logged.lines.append(decoder.decode(raw))
                except msgspec.MsgspecError:
                    logged.not_json.append(raw.decode(errors="replace"))
        found.append(logged)
    return found
