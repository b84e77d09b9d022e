"""Three primaries of a cluster, each with a replica, all real processes on loopback."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from redis import Redis as PlainRedis
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from events.keys import Keys, all_lanes
from sandbox.redis_server import HOST, Valkey, port_is_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

LANES: Final = 4
NODE_TIMEOUT: Final = 1.0
"""Seconds without an answer after which the other nodes take one for down."""
_FAST: Final = {
    "appendfsync": "no",
    "repl-diskless-sync-delay": "0",
    "cluster-enabled": "yes",
    "cluster-node-timeout": str(int(NODE_TIMEOUT * 1000)),
    "cluster-replica-validity-factor": "0",
}
_SLOTS: Final = 16384
_PASSING: Final = ("NOREPLICAS", "IOERR", "CLUSTERDOWN")


class Cluster:
    """Nodes that serve every slot together."""

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = 3,
        replicas: bool = True,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`options` may have a user and password for ourselves: ``masteruser``, ``masterauth``."""
        self._folder = folder
        self._options = {**_FAST, **(options or {})}
        self.primaries = [self._server() for _ in range(primaries)]
        self.replicas = [self._server() for _ in range(primaries if replicas else 0)]

    def _server(self, **options: str) -> Valkey:
        # by default the nodes talk on a port that is greater by 10,000, which may be in use
        own = {**self._options, "cluster-port": str(_port()), **options}
        port = _port()
        return Valkey(self._folder / str(port), port=port, options=own)

    @property
    def servers(self) -> list[Valkey]:
        """All of them."""
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """The address of the cluster."""
        return self.url_of(*self.primaries)

    @staticmethod
    def url_of(*servers: Valkey) -> str:
        """The address of the cluster by some of its nodes."""
        return "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in servers)

    def start(self) -> Self:
        for server in self.servers:
            server.start()
        share = _SLOTS // len(self.primaries)
        for number, server in enumerate(self.servers):
            self.ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, server in enumerate(self.primaries):
            last = _SLOTS - 1 if server is self.primaries[-1] else (number + 1) * share - 1
            self.ask(server, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for server in self.servers[1:]:
            self.meet(server)
        wait_until(lambda: all(self._knows_all(server) for server in self.servers))
        for replica, primary in zip(self.replicas, self.primaries, strict=False):
            self.ask(replica, "CLUSTER", "REPLICATE", self.id_of(primary))
        wait_until(lambda: all(map(self.is_whole, self.servers)))
        return self

    def meet(self, server: Valkey) -> None:
        """Let the first node know another one."""
        self.ask(self.primaries[0], "CLUSTER", "MEET", HOST, server.port, int(server.options["cluster-port"]))

    def add(self) -> Valkey:
        """Start a primary without slots, and return it when all know it and it knows whose every slot is."""
        server = self._server()
        self.primaries.append(server.start())
        self.meet(server)
        wait_until(lambda: all(self._knows_all(server) for server in self.servers) and self.is_whole(server))
        return server

    def add_replica(self, of: Valkey) -> Valkey:
        """Start a replica of a primary, and return it when it has everything."""
        server = self._server()
        self.replicas.append(server.start())
        self.meet(server)
        wait_until(lambda: all(self._knows_all(server) for server in self.servers))
        self.ask(server, "CLUSTER", "REPLICATE", self.id_of(of))
        wait_until(lambda: self.is_whole(server))
        return server

    def _knows_all(self, server: Valkey) -> bool:
        known = self.ask(server, "CLUSTER", "NODES")
        return known.count(b"\n") == len(self.servers) and b"handshake" not in known

    def is_whole(self, server: Valkey) -> bool:
        """Whether a node sees every slot served, and each replica connected."""
        if b"cluster_state:ok" not in self.ask(server, "CLUSTER", "INFO"):
            return False
        if server in self.replicas:
            return bool(self.ask(server, "INFO", "replication").get("master_link_status") == "up")
        return True

    def ask(self, server: Valkey, *words: str | int) -> Any:
        """What a node answers."""
        password = self._options.get("masterauth")
        with PlainRedis.from_url(
            server.url, username=self._options.get("masteruser"), password=password, protocol=2
        ) as client:
            return client.execute_command(*words)

    def state_of(self, server: Valkey) -> str:
        """Return whether a node takes itself for a ``master`` or a ``slave``; '' if it does not answer."""
        try:
            return str(self.ask(server, "ROLE")[0].decode())
        except RedisError:
            return ""

    def id_of(self, server: Valkey) -> str:
        """Return the name that a node has among the others."""
        return str(self.ask(server, "CLUSTER", "MYID").decode())

    def owner_of(self, lane: Keys) -> Valkey:
        """Return the node that serves a lane, as the first one that answers says."""
        slot = slot_of(lane)
        for server in self.servers:
            try:
                rows = self.ask(server, "CLUSTER", "SLOTS")
            except RedisError:
                continue
            port = next(primary[1] for first, last, primary, *_ in rows if first <= slot <= last)
            return next(one for one in self.servers if announced(one) == port)
        raise AssertionError("no node answers")

    def begin_move(self, lane: Keys, to: Valkey) -> Valkey:
        """Open a lane's slot for its move to another node; return the one that has it now."""
        owner, slot = self.owner_of(lane), slot_of(lane)
        self.ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(owner))
        self.ask(owner, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(to))
        return owner

    def move_keys(self, lane: Keys, owner: Valkey, to: Valkey, *, most: int = 1000) -> int:
        """Move some of a lane's keys; return how many."""
        names = self.ask(owner, "CLUSTER", "GETKEYSINSLOT", slot_of(lane), most)
        if names:
            # REPLACE: the answer of an earlier MIGRATE may have been lost, its keys are there already
            move = ("MIGRATE", HOST, to.port, "", 0, 5000, "REPLACE", "KEYS", *names)
            repeated(lambda: self.ask(owner, *move))
        return len(names)

    def end_move(self, lane: Keys, owner: Valkey, to: Valkey) -> None:
        """Move what is left, and say everywhere whose the slot is now."""
        while self.move_keys(lane, owner, to):
            pass
        # the new one first: else nobody would have the slot for a moment
        others = (one for one in self.servers if one not in (to, owner) and self.state_of(one) == "master")
        for server in (to, owner, *others):
            repeated(partial(self.ask, server, *self.home(lane, to)))

    def home(self, lane: Keys, to: Valkey) -> tuple[str | int, ...]:
        """Return the command that says whose a lane's slot is."""
        return ("CLUSTER", "SETSLOT", slot_of(lane), "NODE", self.id_of(to))

    def stop(self) -> None:
        for server in self.servers:
            server.kill()


def _port() -> int:
    """A free port below those that Linux gives to outgoing connections: it must be free at a restart too."""
    while True:
        port = random.randrange(10_000, 32_000)
        if port_is_free(port):
            return port


def announced(server: Valkey) -> int:
    """Return the port that a node names to clients."""
    return int(server.options.get("cluster-announce-port", server.port))


def slot_of(lane: Keys) -> int:
    """Return the slot of a lane's keys."""
    return int(key_slot(lane.paused.encode()))


def repeated(step: Callable[[], object], seconds: float = 30.0) -> None:
    """Repeat a step of a move until it is done, as a tool does, because a busy machine refuses some.

    A replica that does not confirm SETSLOT within 2 s makes Valkey 8 answer NOREPLICAS, and MIGRATE answers
    IOERR after its time limit, or CLUSTERDOWN while the other node waits for the answers of most nodes.
    The slot then stays half moved, and its keys are refused (TRYAGAIN).
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if step():
                return
        except ResponseError as error:
            # MIGRATE puts a sentence before the error of the other node
            if not any(word in str(error) for word in _PASSING) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def wait_until(look: Any, seconds: float = 30.0) -> None:
    """Ask until the answer is true: other processes have no event here."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that the test may break."""
    made = Cluster(tmp_path / "cluster")
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def quiet_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that nobody breaks."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def kept_cluster(quiet_cluster: Cluster) -> Cluster:
    """The quiet cluster, emptied."""
    for server in quiet_cluster.primaries:
        quiet_cluster.ask(server, "FLUSHALL")
    return quiet_cluster


def lane_on(cluster: Cluster, server: Valkey) -> Keys:
    """Return the first lane that a node serves."""
    return next(lane for lane in all_lanes(LANES) if cluster.owner_of(lane) is server)
