"""Draws the table of `erni status` and the lines below it, within 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table

from console import durations
from console.addresses import bare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from console.agent_state import Judgement
    from shared.operations.status import PipelineStatus
    from shared.settings import Settings

_STYLES: Final = {
    "ok": "green",
    "slow": "yellow",
    "waiting": "yellow",
    "failing": "bold red",
    "missing": "bold red",
    "frozen": "bold red",
    "paused": "yellow",
}


def table(status: PipelineStatus, rates: Mapping[str, float], judged: Sequence[Judgement]) -> Table:
    """Return the table: a row for each agent."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    drawn.add_column("agent", no_wrap=True)
    for head in ("procs", "in flight", "backlog", "oldest", "per s", "postponed", "dead"):
        drawn.add_column(head, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    for agent, one in zip(status.agents, judged, strict=True):
        depth, rate = agent.depth, rates.get(agent.agent, 0.0)
        drawn.add_row(
            agent.agent,
            _number(len(agent.processes), zero="red"),
            _number(depth.pending),
            _number(depth.waiting),
            durations.short(depth.oldest_seconds) if depth.backlog else "·",
            f"{rate:.1f}" if rate else "·",
            _number(depth.delayed, some="yellow"),
            _number(depth.dead, some="red"),
            f"[{_STYLES[one.word]}]{one.word}[/]",
        )
    return drawn


def footer(status: PipelineStatus, settings: Settings) -> list[str]:
    """Return what the public streams keep, where and when this was read, and what says why entries died."""
    kept = ", ".join(f"{name} {length}" for name, length in status.public.items())
    read = f"{bare(settings.redis_url)}  {durations.clock(status.server_time)}"
    # a photo that failed and was replayed has left both of its events there
    lines = [f"events kept: {kept}", read]
    if any(agent.depth.dead for agent in status.agents):
        lines.append("why: erni dead list")
    return lines


def _number(number: int, *, some: str = "", zero: str = "dim") -> str:
    style = some if number else zero
    text = _short(number) if number or zero != "dim" else "·"
    return f"[{style}]{text}[/]" if style else text


def _short(number: int) -> str:
    """A count in four characters, up to 9,999 exactly."""
    if number < 10_000:
        return str(number)
    if number < 999_500:
        return f"{number / 1000:.0f}k"
    return f"{number / 1e6:.1f}M" if number < 9_950_000 else f"{number / 1e6:.0f}M"
