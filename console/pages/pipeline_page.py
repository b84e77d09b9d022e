"""The start page: the five agents as one picture, what each waits for, and what was done last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from console.agent_state import judge
from console.pages import rendering
from console.pages.activity_page import lines
from console.pages.desk import VISIT
from console.pages.guard import RefusedError, Route
from console.pages.texts import Quoted
from events import topology
from shared.operations import activity, pauses
from shared.operations.status import AgentStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.pages.desk import Desk
    from console.pages.live import Snapshot
    from console.pages.saying import Spoken
    from shared.operations.memory import Memory

_LAST: Final = 10
_STREAM_SECONDS: Final = 300.0
"""After so long the browser connects again, and its sign-in is looked at again."""
_QUIET_SECONDS: Final = 15.0
_OLD_SECONDS: Final = 600.0
"""An entry that waits longer is a problem, as for `erni status`."""
_CHART = (120, 28)
"""Width and height of a chart in its own units."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One agent of the picture."""

    status: AgentStatus
    word: str
    """Of the agent's state, as `erni status` has it."""
    look: str
    """The word its colour goes by: the state, or ``old`` where an entry has waited too long."""
    problems: tuple[str, ...]
    """What a person has to look at, and what to do, as `erni status` says it."""
    notes: tuple[str, ...]
    rate: float
    chart: str
    """Points of a line, as SVG has them."""
    peak: float
    """The highest rate of the chart."""
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    aside: bool
    """It stands beside the way of the photos, as the notifier of web hooks does."""


class PipelinePage:
    """Shows the pipeline, pauses and resumes, and sends what changes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Return the requests of this page."""
        return [
            Route("GET", "/", "viewer", self._show),
            Route("GET", "/live", "viewer", self._stream, is_stream=True),
            Route("POST", "/agents/{agent}/pause", "operator", self._pause),
            Route("POST", "/agents/{agent}/resume", "operator", self._resume),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        snapshot = await self._desk.live.now()
        acted = await activity.newest(self._desk.redis, most=_LAST)
        says = rendering.spoken(self._desk, request)
        return await rendering.page(
            self._desk,
            request,
            "pipeline",
            cards=[card(agent, snapshot, says) for agent in snapshot.status.agents],
            memory=_memory(snapshot.memory, says),
            public=snapshot.status.public,
            activities=await lines(self._desk.bulk, acted),
            now=time.time(),
        )

    async def _pause(self, request: web.Request) -> web.Response:
        agent = _agent(request)
        who = request[VISIT].person
        await pauses.pause(self._desk.redis, agent, lanes=self._desk.settings.lanes, by=who)
        return _back(agent)

    async def _resume(self, request: web.Request) -> web.Response:
        agent = _agent(request)
        who = request[VISIT].person
        await pauses.resume(self._desk.redis, agent, lanes=self._desk.settings.lanes, by=who)
        return _back(agent)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Send the versions of all topics whenever one changes (server-sent events)."""
        answer = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                **rendering.HEADERS,
                "Content-Security-Policy": rendering.POLICY,
            }
        )
        await answer.prepare(request)
        await answer.write(b"retry: 2000\n\n")
        sent, written = b"", time.monotonic()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_STREAM_SECONDS):
                async for versions in self._desk.live.changes():
                    now = msgspec.json.encode(versions)
                    if now != sent:
                        await answer.write(b"data: " + now + b"\n\n")
                    elif time.monotonic() - written > _QUIET_SECONDS:
                        # so that a connection that is gone is noticed
                        await answer.write(b": still here\n\n")
                    else:
                        continue
                    sent, written = now, time.monotonic()
        return answer


def card(agent: AgentStatus, snapshot: Snapshot, says: Spoken) -> Card:
    """Return what the picture shows of an agent."""
    judged = judge(agent, _OLD_SECONDS, snapshot.up, says)
    behind = agent.depth.oldest_seconds > _OLD_SECONDS and judged.word in ("ok", "slow")
    # entries that are postponed come back by themselves: no alarm
    passes = judged.word == "waiting" and not judged.problems
    # the card has the agent's name above
    name = f"{agent.agent}: "
    points = snapshot.charts[agent.agent]
    stage = topology.stage_of(agent.agent)
    return Card(
        status=agent,
        word=judged.word,
        look="old" if behind else "slow" if passes else judged.word,
        problems=tuple(one.removeprefix(name) for one in judged.problems),
        notes=tuple(one.removeprefix(name) for one in judged.notes),
        rate=snapshot.rates[agent.agent],
        chart=_line(points),
        peak=max(points, default=0.0),
        reads=stage.reads,
        writes=stage.writes,
        aside=stage not in topology.PIPELINE,
    )


def _memory(memory: Memory, says: Spoken) -> str:
    """Return that the server's memory is nearly full, as `erni status` says it; '' if it is not."""
    if not memory.nearly_full:
        return ""
    filled = says("state.memory.biggest", what=Quoted(memory.biggest)) if memory.biggest else ""
    return says(
        "state.memory",
        used=f"{memory.used / 1e6:.1f}",
        limit=f"{memory.limit / 1e6:.1f}",
        percent=f"{100 * memory.used / memory.limit:.0f}",
        biggest=filled,
    )


def _line(points: Sequence[float]) -> str:
    """Return the points of a chart's line; the newest at the right."""
    width, height = _CHART
    peak = max(points, default=0.0) or 1.0
    step = width / 59
    begin = width - step * (len(points) - 1)
    return " ".join(
        f"{begin + step * place:.1f},{height - 1 - (height - 2) * value / peak:.1f}"
        for place, value in enumerate(points)
    )


def _agent(request: web.Request) -> str:
    agent = request.match_info["agent"]
    if agent not in topology.CONSUMERS:
        raise RefusedError("error.no_page", 404)
    return agent


def _back(agent: str) -> web.Response:
    """Lead back to the agent's card."""
    return web.Response(status=303, headers={"Location": f"/#{agent}"})
