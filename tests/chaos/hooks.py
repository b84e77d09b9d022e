"""Two receivers of web hooks, and the look at what they got: every end, nothing else.

One fails now and then. The other is dead while there is trouble: it drops every connection.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from aiohttp import web

from events import topology
from shared.operations import webhooks
from shared.retry import breaker
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
_DEAD: Final = "/dead"
_TROUBLE: Final = {"500": 0.1, "reset": 0.05, "lost": 0.05, "late": 0.02}
"""Shares of the requests that fail while there is trouble; ``lost``: it was taken, the answer is lost."""


class Hooks:
    """What came in, by webhook-id: at the endpoint that fails now and then, and at the one that was dead."""

    def __init__(self, seed: int) -> None:
        self.got: Counter[str] = Counter()
        """Requests that were taken; also those whose sender did not learn of it."""
        self.revived: Counter[str] = Counter()
        """Requests that the dead endpoint took when it was alive again."""
        self.refused = 0
        """Requests that the dead endpoint dropped."""
        self.bodies: dict[str, set[bytes]] = defaultdict(set)
        self.wrong: list[str] = []
        """Requests whose signature is wrong."""
        self.troubled = True
        self._random = random.Random(f"hooks {seed}")
        self._secrets: dict[str, str] = {}
        """By the path of an endpoint."""
        self._runner: web.AppRunner | None = None

    async def start(self, admin: Redis) -> None:
        """Listen, and register both addresses for the upstream's source, before the first agent starts."""
        app = web.Application()
        app.router.add_post("/", self._take)
        app.router.add_post(_DEAD, self._drop)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        port = self._runner.addresses[0][1]
        for path in ("/", _DEAD):
            registered = await webhooks.add(
                admin, Settings(webhook_hosts=(HOST,)), f"http://{HOST}:{port}{path}", source=SOURCE
            )
            self._secrets[path] = registered.verify_with

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
            self._note(request, body, self.got)
        if fault in ("reset", "lost") and request.transport is not None:
            request.transport.abort()
        if fault == "late":
            await asyncio.sleep(2 * TIMEOUT)
        return web.Response(status=204)

    async def _drop(self, request: web.Request) -> web.StreamResponse:
        if self.troubled:
            self.refused += 1
            if request.transport is not None:
                request.transport.abort()
        else:
            self._note(request, await request.read(), self.revived)
        return web.Response(status=204)

    def _note(self, request: web.Request, body: bytes, got: Counter[str]) -> None:
        headers = request.headers
        name = headers["webhook-id"]
        got[name] += 1
        self.bodies[f"{name} at {request.path}"].add(body)
        signed = signature.header(
            [self._secrets[request.path]],
            message_id=name,
            timestamp=int(headers["webhook-timestamp"]),
            body=body,
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
    """Let a failed notice come back within a second: a run has no hours for the schedule of the product.

    Nor for the wait of those that a breaker holds, after the dead endpoint has come back.
    """
    vars(breaker)["LONGEST_SPREAD"] = 2.0
    short = topology.Schedule(delays=(0.5,) * 1000, longest=topology.NOTIFIER.schedule.longest)  # type: ignore[union-attr]  # it has one
    changed = {**{name: getattr(topology.NOTIFIER, name) for name in topology.Stage.__struct_fields__}}
    stage = topology.Stage(**{**changed, "schedule": short})
    vars(topology)["NOTIFIER"] = stage
    vars(topology)["STAGES"] = (*topology.PIPELINE, stage)


def notices(evidence: Evidence) -> Check:
    """Every end of the upstream's photos was delivered at least once, none was made up."""
    got, revived, ends = evidence.notices, evidence.revived, evidence.ends
    problems = [f"{name} was never delivered" for name in ends - got.keys()]
    problems += [
        f"{name} was never delivered to the endpoint that was dead" for name in ends - revived.keys()
    ]
    problems += [f"{name} was delivered, and is no end" for name in (got | revived).keys() - ends]
    problems += [f"{name} came with two bodies" for name, count in evidence.bodies.items() if count > 1]
    problems += [f"{name} was signed wrongly" for name in evidence.unsigned]
    problems += [f"a notice became a dead letter: {message}" for message in evidence.undelivered]
    return Check(
        name="notices",
        looked_at=f"{len(ends)} ends of {len(EVENTS)} kinds, {got.total()} deliveries;"
        f" {revived.total()} to an endpoint that was dead before and dropped {evidence.dropped} requests",
        problems=problems,
    )
