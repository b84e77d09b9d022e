"""One run: everything started, the nemesis let loose, healed, drained, and looked at."""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from events import topology
from events.connection import RedisError
from tests.chaos import bugs, hooks, light_agents
from tests.chaos.effects import Effects
from tests.chaos.evidence import Evidence, gather
from tests.chaos.herd import Herd
from tests.chaos.hooks import Hooks
from tests.chaos.nemesis import Nemesis
from tests.chaos.proxy import Proxy
from tests.chaos.real import RealOutside
from tests.chaos.schedule import HOUR, KINDS, schedule
from tests.chaos.server import Server
from tests.chaos.several import SEVERAL, Several
from tests.chaos.submitter import Mix, Submitter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_LOOK_SECONDS: Final = 0.2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of run."""

    seed: int
    duration: float = 60.0
    """Seconds of trouble, the drain not counted."""
    photos: int | None = None
    """End the trouble when so many have been published."""
    lease: float = 1.5
    per_agent: int = 2
    concurrency: int = 8
    grace: float = 5.0
    kinds: tuple[str, ...] = KINDS
    mix: Mix = Mix()
    calm: bool = True
    strikes: bool = True
    ahead: int = 300
    rate: float = 0.0
    early: int = 40
    """Photos published before the first agent starts."""
    bug: str = ""
    stuck_seconds: float = 30.0
    """How long nothing may move before the drain is given up: longer than any wait there is."""
    slowness: float = 0.03
    calls: str = "1,1,1,1,1"
    fixed_share: float = 0.0
    hooks: bool = False
    """A web hook hears of every end, and the notifier runs."""
    topology: str = ""
    """``cluster`` or ``sentinel``: several servers (`tests.chaos.several`); '' is one server."""
    wait_replicas: int = 0
    real: bool = False
    """The real agents, with SharePoint's emulator and a vision service, in place of the light ones."""

    @property
    def loses_a_tail(self) -> bool:
        """Whether a fail-over may lose what was acknowledged last."""
        return bool(self.topology) and not self.wait_replicas


def on_several(plan: Plan, topology: str, *, wait_replicas: int, kinds: Sequence[str]) -> Plan:
    """Return the same run on several servers. Their proxies only cut; nobody writes past the publisher."""
    return msgspec.structs.replace(
        plan,
        topology=topology,
        wait_replicas=wait_replicas,
        kinds=tuple(kinds),
        strikes=False,
        mix=msgspec.structs.replace(plan.mix, nonsense=0),
        # a demoted primary comes back as a replica after some ten seconds
        stuck_seconds=max(plan.stuck_seconds, 60.0),
    )


@dataclass
class World:
    """All parts of a run."""

    plan: Plan
    folder: Path
    secret: str
    server: Server | Several
    proxy: Proxy
    """Before the one server."""
    effects: Effects
    herd: Herd
    submitter: Submitter
    hooks: Hooks
    real: RealOutside | None = None
    began: float = field(default_factory=time.monotonic)


@asynccontextmanager
async def world(plan: Plan, *, folder: Path | None = None) -> AsyncIterator[World]:
    """Redis, proxy, effect service, upstream and the agents' zygote; nothing of it outlives the block."""
    with tempfile.TemporaryDirectory(prefix="erni-chaos-", ignore_cleanup_errors=True) as temporary:
        place = folder or Path(temporary)
        logs = place / "agents"
        logs.mkdir(parents=True)
        # begins with a letter of its own: nothing of what is printed may hold it
        secret = f"planted{secrets.token_hex(12)}"
        server = _server(plan, place / "redis", secret)
        proxy, effects, heard = Proxy(server.port), Effects(plan.seed), Hooks(plan.seed)
        effects.slowness = plan.slowness
        effects.fixed_share = plan.fixed_share
        real = RealOutside(place / "outside", secret=secret) if plan.real else None
        submitter = None
        herd = None
        try:
            await server.start()
            await proxy.start()
            await effects.start()
            if plan.hooks:
                await heard.start(server.admin)
            if real is not None:
                await real.start()
            herd = Herd(
                logs,
                _environment(plan, server, proxy, effects, secret) | (real.environment() if real else {}),
                light=real is None,
                per_agent=plan.per_agent,
                bug=plan.bug if plan.bug not in bugs.ELSEWHERE else "",
                hooks=plan.hooks,
            )
            await herd.start()
            submitter = Submitter(
                server.address(proxy),
                # several servers have no password: there is one primary after the other
                password="" if plan.topology else secret,
                admin=server.admin,
                rng=random.Random(f"upstream {plan.seed}"),
                run=f"{plan.seed}",
                secret=secret,
                journal=place / "upstream.jsonl",
                mix=plan.mix,
                ahead=plan.ahead,
                rate=plan.rate,
                bare=plan.bug == "client_retries",
                source=real.picture if real else None,
                lanes=server.lanes,
                wait_replicas=plan.wait_replicas,
            )
            yield World(plan, place, secret, server, proxy, effects, herd, submitter, heard, real)
        finally:
            if herd is not None:
                await herd.stop(10.0)
                await herd.close()
            if submitter is not None:
                await submitter.close()
            await effects.stop()
            await heard.stop()
            if real is not None:
                await real.stop()
            await proxy.stop()
            await server.close()


def _server(plan: Plan, folder: Path, secret: str) -> Server | Several:
    if plan.topology:
        return SEVERAL[plan.topology](folder)
    return Server(
        folder,
        password=secret,
        appendfsync="everysec" if plan.bug == "synced_every_second" else "always",
        repairs=plan.bug != "torn_log_left",
    )


def _environment(
    plan: Plan, server: Server | Several, proxy: Proxy, effects: Effects, secret: str
) -> dict[str, str]:
    return {
        "REDIS_URL": server.address(proxy),
        **({} if plan.topology else {"REDIS_PASSWORD": secret}),
        "LANES": str(len(server.lanes)),
        "WAIT_REPLICAS": str(plan.wait_replicas),
        "AZURE_CLIENT_SECRET": secret,
        "VISION_API_KEY": secret,
        "ENABLE_TRACING": "0",
        "METRICS_PORT": "0",
        "LEASE_SECONDS": str(plan.lease),
        "CONCURRENCY": str(plan.concurrency),
        "GRACE_SECONDS": str(plan.grace),
        "HANDLE_TIMEOUT": "20",
        # a clock that jumps an hour must not forget a session before it is looked at
        "SESSION_TTL": str(7 * 24 * HOUR),
        "LOG_FORMAT": "json",
        light_agents.EFFECTS: str(effects.port),
        light_agents.CALLS: plan.calls,
        "WEBHOOK_HOSTS": hooks.HOST,
        "WEBHOOK_TIMEOUT": str(hooks.TIMEOUT),
    }


async def drained(here: World) -> list[str]:
    """Wait until nothing is left to do; gives what is left when nothing has moved for `stuck_seconds`."""
    left, before = ["nothing was looked at"], [""]
    moved = time.monotonic()
    while left and time.monotonic() < moved + here.plan.stuck_seconds:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            left = await _left(here)
        except (RedisError, OSError) as error:
            left = [f"Redis: {error}"]
        # a photo that kills moves nothing but these
        now = [*left, str(len(here.herd.all))]
        if now != before:
            before, moved = now, time.monotonic()
    return left


async def begun(here: World) -> None:
    """Return when every agent process has beaten once."""
    async with asyncio.timeout(120):
        while True:
            counts = [
                await here.server.admin.hlen(lane.beats(agent))
                for lane, agent in product(here.server.lanes, here.herd.agents)
            ]
            if min(counts) >= here.plan.per_agent:
                return
            await asyncio.sleep(_LOOK_SECONDS)


async def _left(here: World) -> list[str]:
    admin = here.server.admin
    left: list[str] = []
    for lane, stage in product(here.server.lanes, map(topology.stage_of, here.herd.agents)):
        lengths = {key: await admin.xlen(key) for key in map(lane.stream, stage.streams)}
        left += [f"{key} holds {count} entries" for key, count in lengths.items() if count]
        if count := await admin.zcard(lane.delayed(stage.agent)):
            left.append(f"{count} entries of {stage.agent} are postponed")
    return left


async def heal(here: World) -> None:
    """Nothing goes wrong any more."""
    here.proxy.heal()
    here.hooks.troubled = False
    await (here.real or here.effects).trouble(on=False)
    if here.server.disk:
        await asyncio.to_thread(here.server.disk.free)
    await here.server.start()
    await here.server.release()
    # what was postponed while the clock was an hour ahead is due now, not in an hour
    here.server.jump(2 * HOUR)
    # whoever was killed last is looked at by the others for a lease
    await asyncio.sleep(here.plan.lease)


async def finish(here: World, nemesis: Nemesis) -> Evidence:
    """Heal, drain, end everything, and gather what can be seen then."""
    since = time.monotonic()
    here.submitter.stop()
    await heal(here)
    left = await drained(here)
    return await gather(here, nemesis, left=left, drain_seconds=time.monotonic() - since)


def nemesis_of(here: World) -> Nemesis:
    """The one that carries out the run's schedule."""
    plan = here.plan
    return Nemesis(
        schedule(
            plan.seed,
            plan.duration,
            lease=plan.lease,
            places=plan.per_agent * len(here.herd.agents),
            kinds=plan.kinds,
            calm=plan.calm,
            strikes=plan.strikes,
        ),
        server=here.server,
        proxy=here.proxy,
        herd=here.herd,
        outside=here.real or here.effects,
    )


@asynccontextmanager
async def watched(nemesis: Nemesis) -> AsyncIterator[Nemesis]:
    """Note inside the block how busy this machine is."""
    watching = asyncio.create_task(nemesis.watch_machine())
    try:
        yield nemesis
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def run(plan: Plan, *, folder: Path | None = None) -> Evidence:
    """Do all of it and gather what can be seen afterwards."""
    async with world(plan, folder=folder) as here, watched(nemesis_of(here)) as nemesis:
        if plan.early:
            await here.submitter.run(plan.early)
        here.herd.start_agents()
        await begun(here)
        publishing = asyncio.create_task(here.submitter.run(plan.photos))
        await nemesis.run()
        here.submitter.stop()
        await heal(here)
        await publishing
        return await finish(here, nemesis)
