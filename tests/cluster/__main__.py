"""``python -m tests.cluster --rounds 50``: fail-overs and moves under load, and what became of each photo.

Each round kills a primary, hangs one until its replica has taken its place, lets a replica take over in
order, or moves a lane to another node, by a seed. Exit code 1 if a photo was lost or handed on twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from events.keys import all_lanes
from shared.telemetry.logs import configure_logging
from tests.cluster.conftest import LANES, NODE_TIMEOUT, Cluster, wait_until
from tests.cluster.load import Load

if TYPE_CHECKING:
    from sandbox.redis_server import Valkey

KINDS: Final = ("kill", "hang", "hand over", "move")


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


class Changes:
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
        owner = await asyncio.to_thread(self._cluster.owner_of, lane)
        replica = await asyncio.to_thread(self._replica_of, owner)
        if kind == "move":
            others = [one for one in self._primaries() if one is not owner]
            to = self._random.choice(others)
            await asyncio.to_thread(self._cluster.begin_move, lane, to)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(self._cluster.end_move, lane, owner, to)
        elif kind == "hand over":
            await asyncio.to_thread(self._cluster.ask, replica, "CLUSTER", "FAILOVER")
            await self._is_primary(replica)
        elif kind == "hang":
            os.kill(owner.pid, signal.SIGSTOP)
            try:
                await self._is_primary(replica)
                await asyncio.sleep(NODE_TIMEOUT)
            finally:
                os.kill(owner.pid, signal.SIGCONT)
        else:
            owner.kill()
            await self._is_primary(replica)
            at = time.monotonic()
            await asyncio.to_thread(owner.start)
            await self._load.some_more(1, lanes=(lane,))
            self.returns.append(time.monotonic() - at)
        self.done[kind] += 1
        await self._load.some_more(5)
        await asyncio.to_thread(wait_until, lambda: all(map(self._is_settled, self._cluster.servers)))

    async def _is_primary(self, server: Valkey) -> None:
        await asyncio.to_thread(wait_until, lambda: self._cluster.state_of(server) == "master")

    def _primaries(self) -> list[Valkey]:
        return [one for one in self._cluster.servers if self._cluster.state_of(one) == "master"]

    def _replica_of(self, primary: Valkey) -> Valkey:
        """The one replica of a primary."""
        for server in self._cluster.servers:
            role = self._cluster.ask(server, "ROLE")
            if role[0] == b"slave" and role[2] == primary.port:
                return server
        raise AssertionError(f"the primary on port {primary.port} has no replica")

    def _is_settled(self, server: Valkey) -> bool:
        """Whether a node sees every slot served, and is a connected replica or has one."""
        if b"cluster_state:ok" not in self._cluster.ask(server, "CLUSTER", "INFO"):
            return False
        info = self._cluster.ask(server, "INFO", "replication")
        return bool(info.get("connected_slaves") or info.get("master_link_status") == "up")


async def run(seed: int, rounds: int) -> Result:
    """Do so many rounds, then look at every photo."""
    with tempfile.TemporaryDirectory(prefix="erni-cluster-") as folder:
        cluster = Cluster(Path(folder))
        try:
            await asyncio.to_thread(cluster.start)
            load = Load(f"{cluster.url}?socket_timeout=3", log_level="error")
            configure_logging(load.settings, agent="schema_extractor", consumer="cluster")
            changes = Changes(cluster, load, seed)
            async with load.running():
                for number in range(rounds):
                    await changes.one()
                    sys.stderr.write(f"{number + 1} of {rounds}: {dict(changes.done)}\n")
            handed_on = await load.handed_on()
        finally:
            await asyncio.to_thread(cluster.stop)
    returns = sorted(changes.returns) or [0.0]
    return Result(
        seed=seed,
        done=dict(changes.done),
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
