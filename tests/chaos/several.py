"""Several servers under test: a cluster with replicas, and a primary with a replica that sentinels watch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from events.connection import connect
from events.keys import all_lanes
from tests.chaos.proxy import Proxy
from tests.cluster import changes
from tests.cluster.conftest import LANES, Cluster, wait_until
from tests.sentinel.conftest import SentinelSet

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey
    from tests.chaos.server import Disk

WHOLE_SECONDS: Final = 60.0


class Several(ABC):
    """Servers of which one takes the place of another. A method returns when its change has taken place."""

    kinds: ClassVar[tuple[str, ...]]
    """The kinds of trouble of `tests.chaos.schedule` that can be caused here."""
    disk: Disk | None = None
    disk_refused = ""
    port = 0

    def __init__(self, lanes: int) -> None:
        self.lanes = all_lanes(lanes)
        self.admin: Redis

    @property
    @abstractmethod
    def url(self) -> str:
        """The address that agents and upstreams have."""

    def address(self, _proxy: Proxy) -> str:
        return self.url

    @abstractmethod
    async def start(self) -> None:
        """Start what does not run; return when every primary has its replica."""

    @abstractmethod
    async def fail_over(self, how: str, rng: Random) -> tuple[float, float]:
        """Let a replica take the place of its primary: ``kill``, ``hang`` or ``hand over``.

        Return when this began, and when there was a new primary and the old server ran again (monotonic).
        """

    @abstractmethod
    async def cut(self, seconds: float, rng: Random) -> None:
        """Cut something off that the others can do without."""

    async def move(self, seconds: float, rng: Random) -> None:
        """Move a lane to another node."""
        raise NotImplementedError

    @abstractmethod
    def holders(self) -> list[Valkey]:
        """Return the servers that have keys: the primaries."""

    async def release(self) -> None:
        """Do nothing: there is no memory limit to be taken away."""
        return

    def jump(self, _seconds: int) -> None:
        """Do nothing: their clocks are the machine's."""
        return

    @abstractmethod
    def kill(self) -> None:
        """End all of them."""

    def all_that_happened(self) -> list[Path]:
        """Return no files: what a replica wrote is in several, and keys that moved are in none."""
        return []

    async def close(self) -> None:
        """End all of them, and our connections."""
        await self.admin.aclose()
        await asyncio.to_thread(self.kill)


class ClusterServers(Several):
    """Three primaries with a replica each, and a proxy before each node."""

    kinds = ("fail_overs", "moves", "cuts", "kills", "zombies", "terms", "outside")

    def __init__(self, folder: Path) -> None:
        super().__init__(LANES)
        self._cluster = Cluster(folder)
        self._proxies: dict[int, Proxy] = {}
        self._begun = False

    @property
    def url(self) -> str:
        ports = (self._proxies[server.port].port for server in self._cluster.primaries)
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports) + "?socket_timeout=3"

    async def start(self) -> None:
        if not self._begun:
            self._begun = True
            for server in self._cluster.servers:
                proxy = self._proxies[server.port] = Proxy(server.port)
                await proxy.start()
                server.options["cluster-announce-port"] = str(proxy.port)
            await asyncio.to_thread(self._cluster.start)
            self.admin = connect(self.url, client_name="chaos")
        await asyncio.to_thread(wait_until, lambda: changes.is_settled(self._cluster), WHOLE_SECONDS)

    async def fail_over(self, how: str, rng: Random) -> tuple[float, float]:
        await self.start()
        owner = await asyncio.to_thread(self._cluster.owner_of, rng.choice(self.lanes))
        began = time.monotonic()
        await asyncio.to_thread(changes.fail_over, self._cluster, owner, how)
        changed = time.monotonic()
        await self.start()
        return began, changed

    async def cut(self, seconds: float, rng: Random) -> None:
        """Cut agents, upstreams and the replica off from one primary; the nodes talk past the proxies."""
        owner = await asyncio.to_thread(self._cluster.owner_of, rng.choice(self.lanes))
        proxy = self._proxies[owner.port]
        proxy.shut = True
        for link in list(proxy.links):
            link.cut()
        await asyncio.sleep(seconds)
        proxy.shut = False
        await self.start()

    async def move(self, seconds: float, rng: Random) -> None:
        await self.start()
        lane = rng.choice(self.lanes)
        owner = await asyncio.to_thread(self._cluster.owner_of, lane)
        others = [one for one in await asyncio.to_thread(self.holders) if one is not owner]
        to = rng.choice(sorted(others, key=lambda server: server.port))
        await asyncio.to_thread(changes.move, self._cluster, lane, to, seconds=seconds)

    def holders(self) -> list[Valkey]:
        return changes.primaries(self._cluster)

    def kill(self) -> None:
        self._cluster.stop()

    async def close(self) -> None:
        await super().close()
        for proxy in self._proxies.values():
            await proxy.stop()


class SentinelServers(Several):
    """A primary, its replica and three sentinels."""

    kinds = ("fail_overs", "cuts", "kills", "zombies", "terms", "outside")

    def __init__(self, folder: Path) -> None:
        super().__init__(1)
        self._set = SentinelSet(folder)
        self._begun = False

    @property
    def url(self) -> str:
        return f"{self._set.url}?socket_timeout=3"

    async def start(self) -> None:
        if not self._begun:
            self._begun = True
            await asyncio.to_thread(self._set.start)
            self.admin = connect(self.url, client_name="chaos")
        await asyncio.to_thread(wait_until, self._set.is_settled, WHOLE_SECONDS)

    async def fail_over(self, how: str, rng: Random) -> tuple[float, float]:
        await self.start()
        began = time.monotonic()
        await asyncio.to_thread(self._set.fail_over, how, rng.randrange(len(self._set.sentinels)))
        changed = time.monotonic()
        await self.start()
        return began, changed

    async def cut(self, seconds: float, rng: Random) -> None:
        """End one sentinel for a while: two of three still agree."""
        sentinel = rng.choice(self._set.sentinels)
        await asyncio.to_thread(sentinel.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(sentinel.start)

    def holders(self) -> list[Valkey]:
        return [self._set.now_primary()]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._set.stop()


SEVERAL: Final[dict[str, type[ClusterServers | SentinelServers]]] = {
    "cluster": ClusterServers,
    "sentinel": SentinelServers,
}
