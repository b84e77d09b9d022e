"""What can happen to a cluster while it works: each change ends when it has taken place."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from tests.cluster.conftest import NODE_TIMEOUT, Cluster, announced, wait_until

if TYPE_CHECKING:
    from events.keys import Keys
    from sandbox.redis_server import Valkey


def fail_over(cluster: Cluster, owner: Valkey, how: str) -> None:
    """Let the replica of a primary take its place; a killed primary is started again, as a replica."""
    replica = replica_of(cluster, owner)
    if how == "hand over":
        cluster.ask(replica, "CLUSTER", "FAILOVER")
        wait_until_primary(cluster, replica)
    elif how == "hang":
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            wait_until_primary(cluster, replica)
            time.sleep(NODE_TIMEOUT)
        finally:
            os.kill(owner.pid, signal.SIGCONT)
    else:
        owner.kill()
        try:
            wait_until_primary(cluster, replica)
        finally:
            owner.start()


def move(cluster: Cluster, lane: Keys, to: Valkey, *, seconds: float = 0.2) -> None:
    """Move a lane's slot to another node; for so long, new keys go to it already."""
    owner = cluster.begin_move(lane, to)
    time.sleep(seconds)
    cluster.end_move(lane, owner, to)


def primaries(cluster: Cluster) -> list[Valkey]:
    """Return the nodes that take themselves for primaries."""
    return [one for one in cluster.servers if cluster.state_of(one) == "master"]


def replica_of(cluster: Cluster, primary: Valkey) -> Valkey:
    """Return the one replica of a primary."""
    for server in cluster.servers:
        role = cluster.ask(server, "ROLE")
        if role[0] == b"slave" and role[2] == announced(primary):
            return server
    raise AssertionError(f"the primary on port {primary.port} has no replica")


def wait_until_primary(cluster: Cluster, server: Valkey) -> None:
    """Return when a node takes itself for a primary."""
    wait_until(lambda: cluster.state_of(server) == "master")


def is_settled(cluster: Cluster) -> bool:
    """Whether each node sees every slot served, and is a connected replica or has one."""
    try:
        for server in cluster.servers:
            if b"cluster_state:ok" not in cluster.ask(server, "CLUSTER", "INFO"):
                return False
            info = cluster.ask(server, "INFO", "replication")
            if info.get("master_link_status") != "up" and "state=online" not in _first_replica(info):
                return False
    except RedisError:
        return False
    return True


def _first_replica(info: dict[str, object]) -> str:
    replica = info.get("slave0", {})
    return f"state={replica.get('state')}" if isinstance(replica, dict) else ""
