"""``python -m tests.chaos --seed 7 --duration 60``: the nemesis, then the checker; exit code 1 if red."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import uvloop
from rich.console import Console

from tests.chaos import bugs, checker, table
from tests.chaos.run import Plan, on_several, run
from tests.chaos.schedule import KINDS
from tests.chaos.several import SEVERAL
from tests.chaos.submitter import Mix

if TYPE_CHECKING:
    from tests.chaos.evidence import Evidence


_BIG_SECONDS: Final = 960.0
_BIG_RATE: Final = 28.0
"""Photos a second: what was validated stays in the server's memory and is loaded at each of its restarts."""
_BIG_KINDS: Final = (*KINDS, "kills", "zombies", "redis_kills", "power_cuts")


async def _interruptible(plan: Plan) -> Evidence:
    """The run; SIGTERM ends it with everything it started and mounted."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(plan)


def main() -> int:
    """Run once."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of trouble (default 60)")
    parser.add_argument("--lease", type=float, default=1.5, help="LEASE_SECONDS of the agents (default 1.5)")
    parser.add_argument("--processes", type=int, default=2, help="per agent (default 2)")
    parser.add_argument("--only", metavar="KINDS", help=f"kinds of trouble, of {','.join(KINDS)}")
    parser.add_argument("--bug", choices=[*bugs.PLANT, *bugs.ELSEWHERE], help="with a deliberate mistake")
    parser.add_argument("--good", action="store_true", help="no photos that kill or are refused")
    parser.add_argument("--real", action="store_true", help="the real agents and SharePoint's emulator")
    parser.add_argument("--hooks", action="store_true", help="a web hook hears of every end")
    parser.add_argument(
        "--big",
        action="store_true",
        help="the run whose figures are published: some 15 minutes, 25,000 photos",
    )
    parser.add_argument("--topology", choices=tuple(SEVERAL), help="several servers, which fail over")
    parser.add_argument(
        "--wait-replicas",
        type=int,
        default=1,
        metavar="N",
        help="WAIT_REPLICAS with --topology (default 1); with 0 the lost tail is counted",
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    plan = plan_of(given, seed)
    if given.big:
        plan = msgspec.structs.replace(plan, duration=_BIG_SECONDS, kinds=_BIG_KINDS, rate=_BIG_RATE)
    sys.stderr.write(f"seed {seed}, {plan.duration:g} s\n")
    verdict = checker.check(uvloop.run(_interruptible(plan)))
    if given.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode() + "\n")
    else:
        table.show(verdict, Console())
    return 0 if verdict.green else 1


def plan_of(given: argparse.Namespace, seed: int) -> Plan:
    """Return what the command line asks for."""
    plan = Plan(
        seed=seed,
        duration=given.duration,
        lease=given.lease,
        per_agent=given.processes,
        kinds=tuple(given.only.split(",")) if given.only else KINDS,
        bug=given.bug or "",
        real=given.real,
        hooks=given.hooks,
        mix=Mix(die=0, refuse=0) if given.real or given.good else Mix(),
    )
    if given.topology:
        kinds = plan.kinds if given.only else SEVERAL[given.topology].kinds
        plan = on_several(plan, given.topology, wait_replicas=given.wait_replicas, kinds=kinds)
    return plan


if __name__ == "__main__":
    sys.exit(main())
