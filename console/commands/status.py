"""`erni status`: how the pipeline stands, agent by agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from console import durations
from console.arguments import checked, describe
from console.errors import CommandError

if TYPE_CHECKING:
    import argparse

    from redis.asyncio import Redis
    from rich.console import RenderableType

    from console.output import Output
    from shared.operations.status import AgentStatus, PipelineStatus
    from shared.settings import Settings

_BEAT: Final = 1.0
"""Seconds between two looks: processes tell once a second how much they have done."""
_WINDOW: Final = 10
"""Looks over which a watched rate is taken."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni status [--watch]`."""
    describe(
        parser,
        "The pipeline, agent by agent: processes, entries in hand, backlog, age of the oldest entry, rate, "
        "postponed entries, dead letters, and what is wrong. Exit code 1 if a breaker is open, an agent has "
        "no process, or an entry has waited too long.",
        "erni status",
        "erni status --watch",
        "erni status --json | jq '.agents[] | {agent, backlog}'",
        run=status,
    )
    parser.add_argument("--watch", action="store_true", help="redraw every second until Ctrl-C")
    parser.add_argument(
        "--max-age",
        metavar="DURATION",
        type=checked(durations.seconds),
        default=600.0,
        help="an older backlog is wrong (default: 10m)",
    )


async def status(options: argparse.Namespace, output: Output) -> int:
    """Print it once, or again and again."""
    from console.explain import no_trace, redis_client
    from shared import settings as settings_module

    if options.watch and options.json:
        raise CommandError("--watch and --json exclude each other: JSON is one document", code=2)
    settings = settings_module.load()
    async with redis_client(settings) as redis:
        if options.watch:
            return await _watch(redis, settings, output, options.max_age)
        before = await _look(redis, settings)
        await asyncio.sleep(_BEAT)
        now = await _look(redis, settings)
        strange = await no_trace(redis, settings)
    rates = _rates(before, now)
    wrong = [*problems(now, options.max_age), *filter(None, [strange])]
    output.answer(document(now, rates, wrong))
    if not output.as_json:
        output.console.print(_table(now, rates))
        for sentence in wrong:
            output.tell(sentence, style="red", indent=2)
    return 1 if wrong else 0


async def _watch(redis: Redis, settings: Settings, output: Output, max_age: float) -> int:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from console.explain import redis_trouble
    from events.connection import RedisError

    looks: list[PipelineStatus] = []
    wrong: list[str] = []
    try:
        with Live(console=output.console, auto_refresh=False) as live:
            while True:
                shown: RenderableType
                try:
                    looks = [*looks[-_WINDOW:], await _look(redis, settings)]
                    wrong = problems(looks[-1], max_age)
                    shown = Group(
                        _table(looks[-1], _rates(looks[0], looks[-1])),
                        *(Text(f"  {sentence}", style="red") for sentence in wrong),
                    )
                except RedisError as error:
                    looks, wrong = [], [redis_trouble(error, settings)]
                    shown = Text(wrong[0], style="red")
                live.update(shown, refresh=True)
                await asyncio.sleep(_BEAT)
    except asyncio.CancelledError:
        # Ctrl-C is how a watch ends.
        return 1 if wrong else 0


async def _look(redis: Redis, settings: Settings) -> PipelineStatus:
    from shared.operations.status import read_status

    return await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)


def _rates(before: PipelineStatus, now: PipelineStatus) -> dict[str, float]:
    """Entries each agent ended per second between two looks, by the processes that were there both times."""
    elapsed = max(now.server_time - before.server_time, 0.001)
    earlier = {p.consumer: p.says.done for agent in before.agents for p in agent.processes}
    return {
        agent.agent: round(
            sum(p.says.done - earlier.get(p.consumer, p.says.done) for p in agent.processes) / elapsed, 2
        )
        for agent in now.agents
    }


def problems(status: PipelineStatus, max_age: float) -> list[str]:
    """What is wrong, each in a sentence with what to do."""
    wrong: list[str] = []
    for agent in status.agents:
        name, depth = agent.agent, agent.depth
        if not agent.processes:
            wrong.append(f"{name}: no process runs. Start one: python -m consumers {name}")
        wrong += [
            f"{name}: {part} fails, or throttles us. Reading has stopped;"
            f" it goes on by itself when {part} is back"
            for part in agent.breakers_open
        ]
        wrong += [
            f"{name}: the process {process.consumer} is unwell: {process.says.unwell}"
            for process in agent.processes
            if process.says.unwell
        ]
        if depth.oldest_seconds > max_age:
            why = " (the agent is paused: erni resume " + name + ")" if agent.paused_since else ""
            wrong.append(
                f"{name}: the oldest entry has waited {durations.short(depth.oldest_seconds)}, more than"
                f" {durations.short(max_age)}{why}"
            )
    return wrong


def document(status: PipelineStatus, rates: dict[str, float], wrong: list[str]) -> dict[str, object]:
    """The JSON of `erni status`."""
    return {
        "server_time": status.server_time,
        "agents": [
            {
                "agent": agent.agent,
                "processes": [
                    {"consumer": p.consumer, "beat_seconds_ago": p.beat_seconds_ago, **_says(p.says)}
                    for p in agent.processes
                ],
                "in_hand": agent.in_hand,
                "backlog": agent.depth.backlog,
                "pending": agent.depth.pending,
                "oldest_seconds": agent.depth.oldest_seconds,
                "rate_per_second": rates.get(agent.agent, 0.0),
                "postponed": agent.depth.delayed,
                "dead": agent.depth.dead,
                "breakers_open": agent.breakers_open,
                "paused_since": agent.paused_since,
            }
            for agent in status.agents
        ],
        "public": status.public,
        "problems": wrong,
    }


def _says(says: object) -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(says)
    return fields


def _table(status: PipelineStatus, rates: dict[str, float]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("agent", no_wrap=True)
    for head in ("procs", "in hand", "backlog", "oldest", "per s", "later", "dead"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for agent in status.agents:
        depth = agent.depth
        table.add_row(
            agent.agent,
            _number(len(agent.processes), zero="red"),
            _number(agent.in_hand),
            _number(depth.backlog),
            durations.short(depth.oldest_seconds) if depth.backlog else "·",
            f"{rate:.1f}" if (rate := rates.get(agent.agent, 0.0)) else "·",
            _number(depth.delayed, some="yellow"),
            _number(depth.dead, some="red"),
            _state(agent),
        )
    public = "   ".join(f"{name} {length}" for name, length in status.public.items())
    table.caption = f"out: {public}"
    table.caption_justify = "left"
    return table


def _number(number: int, *, some: str = "", zero: str = "dim") -> str:
    style = some if number else zero
    text = str(number) if number or zero != "dim" else "·"
    return f"[{style}]{text}[/]" if style else text


def _state(agent: AgentStatus) -> str:
    """What an operator has to know at a glance."""
    if not agent.processes:
        return "[red]missing[/]"
    if agent.breakers_open:
        return "[red]waits[/]"
    if any(process.says.unwell for process in agent.processes):
        return "[red]unwell[/]"
    if agent.paused_since:
        return "[yellow]paused[/]"
    return "[green]ok[/]"
