"""The result of a run, to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from tests.chaos.checker import Verdict

_SHOWN = 5


def show(verdict: Verdict, console: Console) -> None:
    """Print checks, faults and figures."""
    figures = verdict.figures
    checks = Table(box=box.SIMPLE_HEAD, title=f"seed {figures.seed}", title_justify="left")
    for heading in ("must be true", "looked at", "problems"):
        checks.add_column(heading, justify="right" if heading == "problems" else "left")
    for check in verdict.checks:
        count = len(check.problems)
        checks.add_row(check.name, check.looked_at, f"[red]{count}[/]" if count else "[green]0[/]")
    console.print(checks)
    for check in verdict.checks:
        for problem in check.problems[:_SHOWN]:
            console.print(f"[red]{check.name}:[/] {problem}", highlight=False, soft_wrap=True)
    numbers = Table(box=box.SIMPLE_HEAD, show_header=False)
    numbers.add_row("photos", f"{figures.photos}: {figures.validated} validated, dead {figures.dead or 0}")
    numbers.add_row("hand-offs", str(figures.hand_offs))
    numbers.add_row("time", f"{figures.seconds:.0f} s, drained after {figures.drain_seconds:.0f} s")
    numbers.add_row("faults", ", ".join(f"{count} {what}" for what, count in sorted(figures.faults.items())))
    numbers.add_row("processes", str(figures.processes))
    numbers.add_row("fenced", f"{figures.fenced} results of zombies dropped")
    numbers.add_row("taken over", f"{figures.took_over} entries, {figures.orphans} orphans")
    numbers.add_row("postponed", f"{figures.came_back} entries came back when they were due")
    if figures.take_overs_measured:
        numbers.add_row(
            "take-over",
            f"p50 {figures.take_over_p50} s, p99 {figures.take_over_p99} s,"
            f" longest {figures.take_over_longest} s over {figures.take_overs_measured} kills",
        )
    console.print(numbers)
    for note in verdict.notes:
        console.print(note, highlight=False, soft_wrap=True)
