"""A receiver of web hooks that fails now and then, and the look at what it got: every end, nothing else."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from events import topology
from shared.operations import webhooks
from shared.settings import Settings
from shared.webhooks import signature
from shared.webhooks.notices import EVENTS
from tests.chaos.check import Check
from tests.chaos.evidence import SOURCE

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.chaos.evidence import Evidence

HOST: Final = "127.0.0.1"
TIMEOUT: Final = 1.0
_TROUBLE: Final = {"500": 0.1, "reset": 0.05, "lost": 0.05, "late": 0.02}
"""Shares of the requests that fail while there is trouble; ``lost``: it was taken, the answer is lost."""


class Hooks:
    """What came in, by webhook-id."""

    def __init__(self, seed: int) -> None:
        self.got: Counter[str] = Counter()
        """Requests that were taken; also those whose sender did not learn of it."""
        self.bodies: dict[str, set[bytes]] = defaultdict(set)
        self.wrong: list[str] = []
        """Requests whose signature is wrong."""
        self.troubled = True
        self._random = random.Random(f"hooks {seed}")
        self._secret = ""
        self._runner: web.AppRunner | None = None

    async def start(self, admin: Redis) -> None:
        """Listen, and register the address for the upstream's source, before the first agent starts."""
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        port = self._runner.addresses[0][1]
        registered = await webhooks.add(
            admin, Settings(webhook_hosts=(HOST,)), f"http://{HOST}:{port}/", source=SOURCE
        )
        self._secret = registered.verify_with

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self._fault()
        if fault == "500":
            return web.Response(status=500)
        if fault != "reset":
            self._note(request.headers, body)
        if fault in ("reset", "lost") and request.transport is not None:
            request.transport.abort()
        if fault == "late":
            await asyncio.sleep(2 * TIMEOUT)
        return web.Response(status=204)

    def _note(self, headers: Any, body: bytes) -> None:
        name = headers["webhook-id"]
        self.got[name] += 1
        self.bodies[name].add(body)
        signed = signature.header(
            [self._secret], message_id=name, timestamp=int(headers["webhook-timestamp"]), body=body
        )
        if signed != headers["webhook-signature"]:
            self.wrong.append(name)

    def _fault(self) -> str:
        drawn = self._random.random()
        for fault, share in _TROUBLE.items() if self.troubled else ():
            if drawn < share:
                return fault
            drawn -= share
        return ""


def patient() -> None:
    """Let a failed notice come back within a second: a run has no hours for the schedule of the product."""
    short = topology.Schedule(delays=(0.5,) * 1000, longest=topology.NOTIFIER.schedule.longest)  # type: ignore[union-attr]  # it has one
    changed = {**{name: getattr(topology.NOTIFIER, name) for name in topology.Stage.__struct_fields__}}
    stage = topology.Stage(**{**changed, "schedule": short})
    vars(topology)["NOTIFIER"] = stage
    vars(topology)["STAGES"] = (*topology.PIPELINE, stage)


def notices(evidence: Evidence) -> Check:
    """Every end of the upstream's photos was delivered at least once, none was made up."""
    got, ends = evidence.notices, evidence.ends
    problems = [f"{name} was never delivered" for name in ends - got.keys()]
    problems += [f"{name} was delivered, and is no end" for name in got.keys() - ends]
    problems += [f"{name} came with two bodies" for name, count in evidence.bodies.items() if count > 1]
    problems += [f"{name} was signed wrongly" for name in evidence.unsigned]
    problems += [f"a notice became a dead letter: {message}" for message in evidence.undelivered]
    return Check(
        name="notices",
        looked_at=f"{len(ends)} ends of {len(EVENTS)} kinds, {got.total()} deliveries",
        problems=problems,
    )
