"""`erni status --watch`: draws the pipeline again every second, and follows a Redis that moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from console import status_table
from console.addresses import bare
from console.agent_state import judge
from console.commands.status import rates_between
from console.disk_state import problems_here
from console.explain import foreign, redis_client, redis_trouble
from console.system import not_running
from console.up_state import agent_states
from events.connection import RedisError
from shared import settings as settings_module
from shared.operations.memory import read_memory
from shared.operations.status import read_status

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from rich.console import RenderableType

    from console.output import Output
    from shared.operations.status import PipelineStatus
    from shared.settings import Settings

_SECONDS: Final = 1.0
_WINDOW: Final = 10
"""Looks over which the rate is taken."""


async def watch(output: Output, max_age: float) -> int:
    """Watch until Ctrl-C; return 1 if something was wrong at the end."""
    view = _View(max_age)
    try:
        with Live(console=output.console, auto_refresh=False) as live:
            settings = settings_module.load()
            while True:
                async with redis_client(settings, whose=False) as redis:
                    while (now := settings_module.load()).redis_url == settings.redis_url:
                        live.update(await view.look(redis, settings), refresh=True)
                        await asyncio.sleep(_SECONDS)
                # without an `erni up` there is the default address, at which another system may be
                if why := not_running():
                    live.update(view.stopped(why), refresh=True)
                    await asyncio.sleep(_SECONDS)
                    continue
                view.moved(settings, now)
                settings = now
    except asyncio.CancelledError:
        # Ctrl-C is how a watch ends.
        return 1 if view.wrong else 0


class _View:
    """What the last looks showed."""

    def __init__(self, max_age: float) -> None:
        self._max_age = max_age
        self._looks: list[PipelineStatus] = []
        self._news: list[str] = []
        self.wrong: list[str] = []

    def moved(self, before: Settings, now: Settings) -> None:
        """Forget what another Redis said, and say that it was another one."""
        self._looks = []
        self._news = [f"Redis moved from {bare(before.redis_url)} to {bare(now.redis_url)}"]

    def stopped(self, why: str) -> RenderableType:
        """Return the picture of a system that does not run."""
        self._looks, self.wrong = [], [why]
        return Text(why, style="red")

    async def look(self, redis: Redis, settings: Settings) -> RenderableType:
        """Read the pipeline once more and return its picture."""
        up = agent_states(settings)
        if why := not_running():
            return self.stopped(why)
        try:
            if why := await foreign(redis, settings):
                return self.stopped(why)
            status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
            memory = await read_memory(redis, lanes=settings.lanes)
        except RedisError as error:
            self._looks, self.wrong = [], [redis_trouble(error, settings)]
            return Text(self.wrong[0], style="red")
        self._looks = [*self._looks[-_WINDOW:], status]
        judged = [judge(agent, self._max_age, up) for agent in status.agents]
        self.wrong = await asyncio.to_thread(problems_here, settings)
        self.wrong += [sentence for one in judged for sentence in one.problems]
        self.wrong += [memory.sentence] if memory.nearly_full else []
        notes = [sentence for one in judged for sentence in one.notes] + self._news
        return Group(
            status_table.table(status, rates_between(self._looks[0], status), judged),
            *(Text(f"  {sentence}", style="red") for sentence in self.wrong),
            *(Text(f"  {sentence}", style="yellow") for sentence in notes),
            *(Text(line) for line in status_table.footer(status, settings)),
        )
