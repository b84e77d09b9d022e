"""The figures of a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from events import topology

if TYPE_CHECKING:
    from tests.chaos.evidence import Evidence


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    seed: int
    seconds: float
    drain_seconds: float
    photos: int
    validated: int
    dead: dict[str, int]
    hand_offs: int
    faults: dict[str, int]
    fenced: int
    took_over: int
    """Entries that were claimed from dead processes."""
    orphans: int
    came_back: int
    """Entries that came back to their stream: postponed ones that were due, and replayed dead letters."""
    processes: int
    take_over_p50: float | None
    take_over_p99: float | None
    take_over_longest: float | None
    take_overs_measured: int


def _hand_offs(evidence: Evidence) -> int:
    """Count what the server's files have; of several servers, the hand-offs of what was validated."""
    if evidence.plan.topology:
        return len(topology.AGENTS) * len(evidence.validated)
    return sum(
        count for (stream, _), count in evidence.handed.handed.items() if not stream.startswith("dead:")
    )


def measure(evidence: Evidence) -> Figures:
    """Count and measure."""
    seconds = sorted(take_over.seconds for take_over in evidence.take_overs)

    def quantile(share: float) -> float | None:
        return round(seconds[min(len(seconds) - 1, int(len(seconds) * share))], 2) if seconds else None

    events: Counter[str] = Counter()
    for logged in evidence.logs:
        for line in logged.lines:
            events[line.event] += line.entries if line.event.startswith(("took over", "claimed")) else 1
    return Figures(
        seed=evidence.seed,
        seconds=round(evidence.seconds, 1),
        drain_seconds=round(evidence.drain_seconds, 1),
        photos=len(evidence.photos),
        validated=len(evidence.validated),
        dead=dict(Counter(buried.letter.reason for buried in evidence.buried)),
        hand_offs=_hand_offs(evidence),
        faults=dict(evidence.done),
        fenced=events["fenced"],
        took_over=events["took over from a dead process"],
        orphans=events["claimed orphans"],
        came_back=evidence.handed.came_back.total(),
        processes=len(evidence.herd),
        take_over_p50=quantile(0.5),
        take_over_p99=quantile(0.99),
        take_over_longest=round(seconds[-1], 2) if seconds else None,
        take_overs_measured=len(seconds),
    )
