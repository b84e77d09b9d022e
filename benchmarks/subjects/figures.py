"""Computes the figures of `benchmarks.handoff`, medians over the rounds, and shows them with the goals."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.subjects.running import Subject, Taken

BATCHES: Final = ("faststream_batch", "redis_stream_queue")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the medians of one subject; the ratios are to the bare loop of the same round."""

    title: str
    per_second: int
    rate_to_bare: float
    client: float
    client_to_bare: float
    server: float
    server_to_bare: float
    spans: float
    """Spans that arrived per hand-off."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a limit that a figure must keep or reach."""

    text: str
    figure: float | None
    """None: not measured in this run."""
    limit: float
    at_most: bool = False
    judged: bool = True
    """False: printed for people, who know how noisy a rate is."""

    @property
    def within(self) -> bool | None:
        """Return whether the goal is reached; None if its figure was not measured."""
        if self.figure is None:
            return None
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit

    def line(self) -> str:
        """Describe the goal and its figure for people."""
        limit = f"{'at most' if self.at_most else 'at least'} {self.limit:g}"
        if self.figure is None:
            return f"- {self.text}: {limit}, not measured"
        if self.within:
            return f"\N{CHECK MARK} {self.text}: {self.figure:.2f}, {limit}"
        missing = self.figure / self.limit if self.at_most else self.limit / self.figure
        return f"\N{MULTIPLICATION X} {self.text}: {self.figure:.2f}, {limit}: short by {missing:.2f} times"


def rows_of(subjects: Sequence[Subject], rounds: Mapping[str, Sequence[Taken]]) -> dict[str, Row]:
    """Return one row for each subject."""
    bare = rounds["bare"]

    def median(name: str, figure: Callable[[Taken], float]) -> float:
        return statistics.median(map(figure, rounds[name]))

    def ratio(name: str, figure: Callable[[Taken], float]) -> float:
        return statistics.median(figure(a) / figure(b) for a, b in zip(rounds[name], bare, strict=True))

    return {
        one.name: Row(
            title=one.title,
            per_second=round(median(one.name, lambda taken: taken.rate)),
            rate_to_bare=round(ratio(one.name, lambda taken: taken.rate), 3),
            client=round(median(one.name, lambda taken: taken.client), 1),
            client_to_bare=round(ratio(one.name, lambda taken: taken.client), 2),
            server=round(median(one.name, lambda taken: taken.server), 1),
            server_to_bare=round(ratio(one.name, lambda taken: taken.server), 2),
            spans=round(median(one.name, lambda taken: taken.spans / taken.entries), 3),
        )
        for one in subjects
    }


def times(rows: Mapping[str, Row], name: str, others: Sequence[str]) -> float | None:
    """Return how many times as fast as the fastest other one; None if no other was measured."""
    rates = [rows[other].per_second for other in others if other in rows]
    return round(rows[name].per_second / max(rates), 2) if rates else None


def goals_of(rows: Mapping[str, Row]) -> list[Goal]:
    """Return what we want to reach, and what was reached."""
    ours, full = rows["ours"], rows["ours_with_sessions"]
    by_message = times(rows, "ours", ["faststream"])
    traced = times(rows, "ours_traced", ["faststream_traced"])
    rate = "rate beside the bare loop (depends on the machine)"
    return [
        Goal(
            text="ours: client CPU beside the bare loop", figure=ours.client_to_bare, limit=2.2, at_most=True
        ),
        Goal(text="ours: server µs per hand-off", figure=ours.server, limit=22, at_most=True),
        Goal(text=f"ours: {rate}", figure=ours.rate_to_bare, limit=0.45, judged=False),
        Goal(text="ours: rate beside FastStream, message by message", figure=by_message, limit=15),
        Goal(text="ours: rate beside the best batches", figure=times(rows, "ours", BATCHES), limit=2),
        Goal(text="with sessions: server µs per hand-off", figure=full.server, limit=30, at_most=True),
        Goal(text=f"with sessions: {rate}", figure=full.rate_to_bare, limit=0.3, judged=False),
        Goal(text="traced: rate beside FastStream with its OpenTelemetry", figure=traced, limit=5),
    ]


def table(rows: Mapping[str, Row]) -> list[str]:
    """Return the rows in Markdown, padded for the terminal; docs/performance.md quotes them."""
    return [
        f"| {'':51} | per second | x bare | client µs | x bare | server µs | spans |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.title:51} | {row.per_second:10,} | {row.rate_to_bare:6.3f} | {row.client:9.1f}"
            f" | {row.client_to_bare:6.2f} | {row.server:9.1f} | {row.spans:5.2f} |"
            for row in rows.values()
        ),
    ]


def results(rows: Mapping[str, Row], goals: Sequence[Goal], *, entries: int, rounds: int) -> dict[str, Any]:
    """Return the content of benchmarks/results/handoff.json."""
    return {
        "entries": entries,
        "rounds": rounds,
        "per_second": {name: row.per_second for name, row in rows.items()},
        "ratio_to_bare": {name: row.rate_to_bare for name, row in rows.items()},
        "rows": {name: msgspec.structs.asdict(row) for name, row in rows.items()},
        "goals": [
            {
                "goal": goal.text,
                "figure": goal.figure,
                "at_most" if goal.at_most else "at_least": goal.limit,
                "within": goal.within,
            }
            for goal in goals
        ],
        "within": all(goal.within is not False for goal in goals if goal.judged),
    }
