"""A primary, its replicas and their sentinels, all real processes on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from redis import Redis as PlainRedis
from redis.exceptions import RedisError

from sandbox.children import end_with_parent
from sandbox.redis_server import HOST, Valkey, find_server, free_port, ping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAME: Final = "erni"
DOWN_AFTER: Final = 0.4
"""Seconds without an answer after which a sentinel takes the primary for down."""
_FAST: Final = {"appendfsync": "no", "repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}


class SentinelProcess:
    """One sentinel. It writes what it learns into its own configuration."""

    def __init__(self, folder: Path, *, lines: tuple[str, ...], tls: bool = False) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self.address_port = free_port() if tls else self.port
        """The port that belongs into an address: the one with TLS, where there is one."""
        if tls:
            lines = (f"tls-port {self.address_port}", *lines)
        self._file = folder / "sentinel.conf"
        self._file.write_text(
            "\n".join((f"port {self.port}", f"bind {HOST}", f"dir {folder}", *lines)) + "\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with (self._file.parent / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_server().path, self._file, "--sentinel"],
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent(),  # noqa: PLW1509 - one prctl call, looked up before the fork
            )
        wait_until(lambda: ping(self.port) or "NOAUTH" in self.said())
        return self

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None

    def said(self) -> str:
        """What it answers to PING."""
        try:
            with PlainRedis(host=HOST, port=self.port, socket_timeout=1, protocol=2) as client:
                return str(client.ping())
        except RedisError as error:
            return f"NOAUTH {error}" if "uthentication" in str(error) else ""

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class SentinelSet:
    """A primary with replicas, and three sentinels that watch them."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        options: Mapping[str, str] | None = None,
        sentinel_lines: tuple[str, ...] = (),
    ) -> None:
        """With a certificate in `options`, servers and sentinels have a port with TLS, and use it."""
        self._folder = folder
        self._options = {**_FAST, **(options or {})}
        self._sentinel_lines = sentinel_lines
        self._tls = tuple(f"{name} {value}" for name, value in self._options.items() if "tls-" in name)
        self.primary = self._server(0)
        replicated = f"{HOST} {self.port_of(self.primary)}"
        self.replicas = [self._server(number, replicaof=replicated) for number in range(1, replicas + 1)]
        self.sentinels: list[SentinelProcess] = []

    def _server(self, number: int, **options: str) -> Valkey:
        own = {"tls-port": str(free_port())} if self._tls else {}
        return Valkey(self._folder / str(number), options={**self._options, **own, **options})

    @staticmethod
    def port_of(server: Valkey) -> int:
        """Return the port under which servers and sentinels know a server."""
        return int(server.options.get("tls-port", server.port))

    def start(self) -> Self:
        self.primary.start()
        for replica in self.replicas:
            replica.start()
        wait_until(lambda: self.info(self.primary)["connected_slaves"] == len(self.replicas))
        watched = (
            *self._tls,
            f"sentinel monitor {NAME} {HOST} {self.port_of(self.primary)} 2",
            f"sentinel down-after-milliseconds {NAME} {int(DOWN_AFTER * 1000)}",
            f"sentinel failover-timeout {NAME} 2000",
            *self._sentinel_lines,
        )
        for number in range(3):
            folder = self._folder / f"sentinel-{number}"
            self.sentinels.append(SentinelProcess(folder, lines=watched, tls=bool(self._tls)).start())
        wait_until(self._agreed)
        return self

    def _agreed(self) -> bool:
        """Whether each sentinel knows the others and every replica."""
        return all(
            int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == len(self.replicas)
            for state in map(self.state, self.sentinels)
        )

    def state(self, sentinel: SentinelProcess) -> dict[str, Any]:
        """What a sentinel knows of the set."""
        password = next(
            (line.split()[1] for line in self._sentinel_lines if line.startswith("requirepass")), None
        )
        with PlainRedis(host=HOST, port=sentinel.port, password=password, protocol=2) as client:
            state: dict[str, Any] = client.sentinel_master(NAME)
            return state

    def is_down(self, sentinel: SentinelProcess) -> bool:
        """Whether a sentinel has noticed that the primary does not answer, or knows another one already."""
        state = self.state(sentinel)
        return "s_down" in state["flags"] or state["port"] != self.port_of(self.primary)

    def info(self, server: Valkey) -> dict[str, Any]:
        """INFO replication of a server; empty while it does not answer."""
        try:
            with PlainRedis.from_url(server.url, password=self._options.get("requirepass")) as client:
                found: dict[str, Any] = client.info("replication")
                return found
        except RedisError:
            return {}

    @property
    def places(self) -> str:
        """Hosts and ports of the sentinels, as in an address."""
        return ",".join(f"{HOST}:{sentinel.address_port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        """The address of the set."""
        return f"redis+sentinel://{self.places}/{NAME}/0"

    def wait_for_primary(self, *among: Valkey) -> tuple[Valkey, float]:
        """Wait until one of the servers is the primary; return it and when that was (monotonic)."""
        found: list[Valkey] = []

        def look() -> bool:
            found[:] = [server for server in among if self.info(server).get("role") == "master"]
            return bool(found)

        wait_until(look)
        return found[0], time.monotonic()

    def now_primary(self) -> Valkey:
        """Return the server that the sentinels name now."""
        ports = [self.state(sentinel)["port"] for sentinel in self.sentinels if sentinel.runs]
        return next(one for one in (self.primary, *self.replicas) if self.port_of(one) == ports[0])

    def is_settled(self) -> bool:
        """Whether all sentinels name one primary that is up, and each other server is its replica."""
        try:
            states = [self.state(sentinel) for sentinel in self.sentinels if sentinel.runs]
            primary = self.now_primary()
        except RedisError:
            return False
        info = self.info(primary)
        online = [one for name, one in info.items() if name.startswith("slave") and isinstance(one, dict)]
        return (
            {state["port"] for state in states} == {self.port_of(primary)}
            and {state["flags"] for state in states} == {"master"}
            and info.get("role") == "master"
            and [one["state"] for one in online] == ["online"] * len(self.replicas)
        )

    def fail_over(self, how: str, sentinel: int) -> None:
        """Let a replica take the primary's place: ``kill`` or ``hang`` it, or ask a sentinel to hand over.

        A killed primary is started again as the primary that it was, as its supervisor does; the sentinels
        make a replica of it.
        """
        old = self.now_primary()
        others = [one for one in (self.primary, *self.replicas) if one is not old]
        if how == "hang":
            self.freeze(old)
        elif how == "kill":
            old.kill()
        else:
            with PlainRedis(host=HOST, port=self.sentinels[sentinel].port, protocol=2) as client:
                client.execute_command("SENTINEL", "FAILOVER", NAME)
        try:
            self.wait_for_primary(*others)
        finally:
            if how == "hang":
                self.thaw(old)
            elif how == "kill":
                old.start()

    def freeze(self, server: Valkey) -> None:
        os.kill(server.pid, signal.SIGSTOP)

    def thaw(self, server: Valkey) -> None:
        os.kill(server.pid, signal.SIGCONT)

    def stop(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
        for server in (self.primary, *self.replicas):
            server.kill()


def wait_until(look: Any, seconds: float = 20.0) -> None:
    """Ask until the answer is true: other processes have no event here."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[SentinelSet]:
    """A primary, one replica, three sentinels; each test breaks its own."""
    made = SentinelSet(tmp_path / "set")
    try:
        yield made.start()
    finally:
        made.stop()
