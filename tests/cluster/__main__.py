"""``python -m tests.cluster --rounds 50``: fail-overs and moves under load, and what became of each photo.

Each round kills a primary, hangs one until its replica has taken its place, lets a replica take over in
order, or moves a lane to another node, by a seed. Exit code 1 if a photo was lost or handed on twice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from events.keys import all_lanes
from shared.telemetry.logs import configure_logging
from tests.chaos.schedule import FAIL_OVERS
from tests.cluster import changes
from tests.cluster.conftest import LANES, Cluster, wait_until
from tests.cluster.load import Load

KINDS: Final = (*FAIL_OVERS, "move")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found."""

    seed: int
    done: dict[str, int]
    acknowledged: int
    lost: int
    twice: int
    return_seconds_p50: float
    return_seconds_worst: float
    """From the fail-over after a kill to the lane's next hand-off. WAIT_REPLICAS=1 waits until the server
    that was killed is back as a replica."""


class Rounds:
    """Does the rounds of one run."""

    def __init__(self, cluster: Cluster, load: Load, seed: int) -> None:
        self._cluster = cluster
        self._load = load
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.returns: list[float] = []

    async def one(self) -> None:
        """Do one round, and wait until every lane works again and every node is back."""
        kind = self._random.choice(KINDS)
        lane = self._random.choice(all_lanes(LANES))
        cluster = self._cluster
        owner = await asyncio.to_thread(cluster.owner_of, lane)
        if kind == "move":
            others = [one for one in await asyncio.to_thread(changes.primaries, cluster) if one is not owner]
            await asyncio.to_thread(changes.move, cluster, lane, self._random.choice(others))
        else:
            await asyncio.to_thread(changes.fail_over, cluster, owner, kind)
        if kind == "kill":
            at = time.monotonic()
            await self._load.some_more(1, lanes=(lane,))
            self.returns.append(time.monotonic() - at)
        self.done[kind] += 1
        await self._load.some_more(5)
        await asyncio.to_thread(wait_until, lambda: changes.is_settled(cluster))


async def run(seed: int, rounds: int) -> Result:
    """Do so many rounds, then look at every photo."""
    with tempfile.TemporaryDirectory(prefix="erni-cluster-") as folder:
        cluster = Cluster(Path(folder))
        try:
            await asyncio.to_thread(cluster.start)
            load = Load(f"{cluster.url}?socket_timeout=3", log_level="error")
            configure_logging(load.settings, agent="schema_extractor", consumer="cluster")
            rounds_of = Rounds(cluster, load, seed)
            async with load.running():
                for number in range(rounds):
                    await rounds_of.one()
                    sys.stderr.write(f"{number + 1} of {rounds}: {dict(rounds_of.done)}\n")
            handed_on = await load.handed_on()
        finally:
            await asyncio.to_thread(cluster.stop)
    returns = sorted(rounds_of.returns) or [0.0]
    return Result(
        seed=seed,
        done=dict(rounds_of.done),
        acknowledged=len(load.acknowledged),
        lost=len(set(load.acknowledged) - handed_on.keys()),
        twice=sum(1 for count in handed_on.values() if count > 1),
        return_seconds_p50=round(returns[len(returns) // 2], 2),
        return_seconds_worst=round(returns[-1], 2),
    )


def main() -> int:
    """Run once and print what was found, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--rounds", type=int, default=50, metavar="N")
    given = parser.parse_args()
    found = asyncio.run(run(given.seed, given.rounds))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    return 1 if found.lost or found.twice else 0


if __name__ == "__main__":
    sys.exit(main())
