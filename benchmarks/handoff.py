"""Measures what a hand-off costs: our agent, a bare redis-py loop and other libraries, in one run.

Each subject reads entries of 400 bytes (CloudEvents with a trace context) and publishes one output for each.
It runs in a process of its own; the server is the same for all. The subjects take turns, and the figures are
medians over the rounds, because a machine is not equally fast all the time. What counts is CPU per hand-off
and its ratio to the bare loop, the least that could be called a hand-off: read 100, move them with one script
(XADD, XACK, XDEL), no check of ownership, no decoding, no counters. Rates depend on the machine more than
ratios do.

    python -m benchmarks.handoff [--entries 40000] [--rounds 3] [--without-peers] [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.peers.environments import MissingError, python_of
from benchmarks.subjects.engine import Valkey
from benchmarks.subjects.entries import OUTPUT
from benchmarks.subjects.figures import Goal, Row, goals_of, results, rows_of, table
from benchmarks.subjects.running import OURS, Subject, Taken, run
from benchmarks.subjects.spans import Collector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS: Final = Path(__file__).parent / "results"
ENTRIES: Final = 40_000
QUICK: Final = 1_000
_OURS: Final = ("XLEN", OUTPUT)
_OUT: Final = ("XLEN", "out")
SUBJECTS: Final = (
    Subject(name="bare", title="bare redis-py loop", module="subjects.bare", entries=ENTRIES, output=_OURS),
    Subject(name="ours", title="ours", module="subjects.ours", entries=ENTRIES, output=_OURS, mode="off"),
    Subject(
        name="ours_with_sessions",
        title="ours, with sessions, photo records, a log line",
        module="subjects.ours",
        entries=ENTRIES,
        output=_OURS,
        mode="sessions",
    ),
    Subject(
        name="ours_traced",
        title="ours, every trace sampled and exported too",
        module="subjects.ours",
        entries=ENTRIES // 2,
        output=_OURS,
        mode="traced",
        traced=True,
    ),
)
PEERS: Final = (
    Subject(
        name="faststream",
        title="FastStream, message by message",
        module="peers.with_faststream",
        entries=2_000,
        output=_OUT,
        environment="faststream",
    ),
    Subject(
        name="faststream_batch",
        title="FastStream, in batches",
        module="peers.with_faststream",
        entries=10_000,
        output=_OUT,
        mode="batch",
        environment="faststream",
    ),
    Subject(
        name="faststream_traced",
        title="FastStream with its OpenTelemetry and Prometheus",
        module="peers.with_faststream",
        entries=1_500,
        output=_OUT,
        mode="traced",
        traced=True,
        environment="faststream",
    ),
    Subject(
        name="redis_stream_queue",
        title="redis-stream-queue, in batches",
        module="peers.with_redis_stream_queue",
        entries=20_000,
        output=_OUT,
        environment="redis_stream_queue",
    ),
    Subject(
        name="taskiq",
        title="taskiq-redis",
        module="peers.with_taskiq",
        entries=1_500,
        output=_OUT,
        environment="taskiq",
    ),
    Subject(
        name="dramatiq",
        title="dramatiq",
        module="peers.with_dramatiq",
        entries=2_000,
        output=("LLEN", "dramatiq:out"),
        environment="dramatiq",
    ),
    Subject(
        name="streaq",
        title="streaQ",
        module="peers.with_streaq",
        entries=1_000,
        output=("XLEN", "streaq:out:queues:normal"),
        environment="streaq",
    ),
    Subject(
        name="docket",
        title="docket",
        module="peers.with_docket",
        entries=1_000,
        output=("XLEN", "out:stream"),
        environment="docket",
    ),
)


def measure(
    subjects: Sequence[Subject], pythons: Mapping[str, Path], *, entries: int, rounds: int
) -> dict[str, list[Taken]]:
    """Run every subject once in each round, one after the other.

    Another library that fails or stands still is left out from then on, with a sentence on standard error;
    the figures of the others do not depend on it. A failure of the bare loop or of ours ends the benchmark.
    """
    taken: dict[str, list[Taken]] = {one.name: [] for one in subjects}
    options = {"appendfsync": "no", "auto-aof-rewrite-percentage": "0"}
    with (
        tempfile.TemporaryDirectory() as folder,
        Valkey(Path(folder), options=options) as server,
        Collector() as collector,
    ):
        for number in range(rounds):
            for one in subjects:
                if one.name not in taken:
                    continue
                print(f"round {number + 1} of {rounds}: {one.title}", file=sys.stderr, flush=True)
                python = pythons[one.environment] if one.environment else OURS
                count = one.entries * entries // ENTRIES
                try:
                    taken[one.name].append(run(one, python, server.url, count, collector))
                except SystemExit as error:
                    if not one.environment:
                        raise
                    print(f"left out: {error}", file=sys.stderr)
                    del taken[one.name]
    return taken


def environments(peers: Sequence[Subject]) -> dict[str, Path]:
    """Return the Python of each library that can be installed; standard error names the others."""
    pythons: dict[str, Path] = {}
    for name in dict.fromkeys(peer.environment for peer in peers):
        try:
            pythons[name] = python_of(name)
        except MissingError as error:
            print(error, file=sys.stderr)
    return pythons


def show(rows: Mapping[str, Row], goals: Sequence[Goal]) -> None:
    """Print the table and the goals."""
    print(*table(rows), "", *(goal.line() for goal in goals), sep="\n")


def main() -> int:
    """Print the figures and write them to benchmarks/results/handoff.json."""
    parser = argparse.ArgumentParser(description="What a hand-off costs, ours beside others.")
    parser.add_argument(
        "--entries", type=int, default=ENTRIES, help="of the fast subjects; the rest in proportion"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true", help="only the bare loop and ours")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one short round without peers")
    parser.add_argument("--output", type=Path, default=RESULTS / "handoff.json", help="where results go")
    given = parser.parse_args()
    if given.entries < QUICK or given.rounds < 1:
        parser.error(f"--entries must be at least {QUICK} and --rounds at least 1")
    entries, rounds = (QUICK, 1) if given.quick else (given.entries, given.rounds)
    peers = () if given.quick or given.without_peers else PEERS
    pythons = environments(peers)
    subjects = [*SUBJECTS, *(peer for peer in peers if peer.environment in pythons)]
    taken = measure(subjects, pythons, entries=entries, rounds=rounds)
    rows = rows_of([one for one in subjects if one.name in taken], taken)
    goals = goals_of(rows)
    show(rows, goals)
    given.output.parent.mkdir(exist_ok=True, parents=True)
    text = json.dumps(results(rows, goals, entries=entries, rounds=rounds), indent=2)
    given.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
