"""``python -m tests.crashpoints``: every crash point of every agent, or one of them again."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from events import topology
from tests.crashpoints import mutations, series
from tests.crashpoints.coordinates import Coordinates, every
from tests.crashpoints.world import World

if TYPE_CHECKING:
    from tests.crashpoints.slot import Result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crashpoints",
        description="One photo, five agents: a fault before, in and after each of their calls.",
        epilog="example: python -m tests.crashpoints --at 'photo_fetcher|redis EVALSHA settle#1|held|stall'",
    )
    parser.add_argument("--agent", action="append", choices=topology.AGENTS, help="only this one; repeatable")
    parser.add_argument("--all", action="store_true", help="every run (default: a sample of 200)")
    parser.add_argument("--sample", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the sample")
    parser.add_argument("--at", action="append", metavar="COORDINATES", help="one run, as printed")
    parser.add_argument("--match", default="", help="only runs whose coordinates contain this text")
    parser.add_argument("--calls", metavar="N-M", help="only the calls of these numbers of each agent")
    parser.add_argument("--mutation", default="", choices=["", *mutations.APPLY], help="with a protocol bug")
    parser.add_argument("--list", action="store_true", help="print the coordinates, run nothing")
    parser.add_argument("--slots", type=int, default=12, help="runs at once")
    parser.add_argument("--lease", type=float, default=1.0, help="LEASE_SECONDS of the agent under test")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return parser.parse_args()


def main() -> int:
    """Run; 1 if anything was wrong."""
    given = _arguments()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="crashpoints-") as folder,
        World(Path(folder), slots=given.slots, lease=given.lease) as world,
    ):
        runs = _chosen(given, world)
        if given.list:
            sys.stdout.writelines(f"{run}\n" for run in runs)
            return 0
        sys.stderr.write(f"{len(runs)} runs, seed {given.seed}\n")
        done = 0

        def tell(result: Result) -> None:
            nonlocal done
            done += 1
            if result.wrong:
                sys.stderr.write(
                    f"\n{result.coordinates}\n" + "".join(f"    {line}\n" for line in result.wrong)
                )
            elif done % 50 == 0:
                sys.stderr.write(f"{done} ({time.monotonic() - started:.0f} s)\n")

        results = series.run_all(world, runs, mutation=given.mutation, tell=tell)
    seconds = time.monotonic() - started
    wrong = [result for result in results if result.wrong]
    missed = [result.coordinates for result in results if not result.reached]
    if given.json:
        document = {
            "runs": len(results),
            "seconds": round(seconds, 1),
            "violations": wrong,
            "missed": missed,
            "seed": given.seed,
        }
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
    else:
        by_agent = Counter(Coordinates.parse(result.coordinates).agent for result in results)
        for agent, count in by_agent.items():
            sys.stdout.write(f"{agent:<22}{count:>6} runs\n")
        sys.stdout.write(
            f"{len(results)} runs in {seconds:.0f} s, {len(wrong)} violations,"
            f" {len(missed)} where the call was not made again\n"
        )
    return 1 if wrong else 0


def _chosen(given: argparse.Namespace, world: World) -> list[Coordinates]:
    if given.at:
        return [Coordinates.parse(text) for text in given.at]
    runs: list[Coordinates] = []
    for agent in given.agent or topology.AGENTS:
        calls = list(series.calls_of(world, agent, mutation=given.mutation))
        if given.calls:
            first, _, last = given.calls.partition("-")
            calls = calls[int(first) - 1 : int(last or first)]
        runs += every(agent, calls)
    runs = [run for run in runs if given.match in str(run)]
    return runs if given.all or given.match or given.calls else series.sample(runs, given.sample, given.seed)


if __name__ == "__main__":
    sys.exit(main())
