"""Plan what `erni demo` and `erni up` run: which processes, with which settings.

This is a description only; `console.supervisor` runs it. A setting that is given wins: with REDIS_URL no
server of ours is started, with GRAPH_URL no emulator, with OTLP_ENDPOINT no trace receiver.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from events import keys, topology
from events.connection import RedisError, call, connect
from sandbox import redis_server as valkey
from shared.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PREFERRED: Final = {"redis": 6379, "sharepoint": 8086, "traces": 16686, "otlp": 4317, "gateway": 8085}
"""The port of each service if it is free, so that links in old reports work after the next start."""
_ANSWER_SECONDS: Final = 2.0
"""How long Redis may take to say which processes there are: whoever stops the stack waits for that."""
_PASSED_ON: Final = frozenset(
    {"ENABLE_TRACING", "OTLP_ENDPOINT", "JAEGER_URL", "ENVIRONMENT", "CACHE_DIR", "LOG_LEVEL", "CONCURRENCY"}
)
"""Settings that a demo takes from outside. It takes no others, because it must not touch a real Redis,
library or model."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one process of the stack."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    """All of it, the inherited variables included."""
    folder: Path
    """Where it runs."""
    ready: Callable[[int], bool] | None = None
    """Whether the process of that pid is ready to work; asked again and again. None: as soon as it runs."""
    stage: int = 0
    """Later stages are started after, and stopped before, earlier ones."""
    grace: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    start_seconds: float = 60.0
    """How long it may take to be ready."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Name the address of a part of the stack."""

    what: str
    where: str


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the processes to run, and the settings with which all parts find each other."""

    folder: Path
    processes: tuple[Process, ...]
    given: dict[str, str]
    """The settings we chose; the others come from the environment as ever."""
    settings: Settings
    """All settings, as the processes see them."""
    addresses: tuple[Address, ...]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sized(settings: Settings, cores: int) -> dict[str, int]:
    """Return how many processes of each agent keep so many cores busy.

    Per photo, preview and classifier take about five times the CPU of any other agent (`python -m
    benchmarks.pipeline`), and one vision process works on one picture at a time. A remote model leaves it the
    preview, which is less than half of that. Each process takes some 200 MB, so there are at most 8.
    """
    vision = cores if settings.vision_backend == "local" else cores // 2
    numbers = dict.fromkeys(topology.AGENTS, max(1, min(cores // 8, 2)))
    return numbers | {
        "schema_extractor": 1,
        "vision_analyzer": max(1, min(vision, 8)),
        topology.NOTIFIER.agent: 1,
    }


def plan_up(
    environ: Mapping[str, str],
    folder: Path,
    *,
    processes: Mapping[str, int] | None = None,
    redis_port: int | None = None,
) -> Stack:
    """Plan everything for `erni up`: data below `folder`, the same ports at every start if they are free.

    `environ`: the environment and `.env`; `processes`: how many of an agent, `sized` for the others;
    `redis_port`: the port that Redis must have. Raises SettingsError, ValkeyError.
    """
    kept = {name: port for name in _PORTS if (port := kept_port(folder, name))}
    preferred = {**_PREFERRED, **kept}
    if redis_port is not None:
        if not valkey.port_is_free(redis_port):
            raise valkey.ValkeyError(
                f"port {redis_port} is taken on {valkey.HOST} by another process: choose another"
                " --redis-port, or leave it out to take a free one"
            )
        preferred["redis"] = redis_port
    stack = _Plan(environ, folder, preferred=preferred, where=Path.cwd()).make(processes or {}, gateway=True)
    _keep_ports(folder, stack.given)
    return stack


def plan_demo(
    environ: Mapping[str, str], folder: Path, *, processes: Mapping[str, int] | None = None
) -> Stack:
    """Plan one run without the gateway, on free ports, with no setting that leads outside this machine."""
    ours = {name.upper() for name in Settings.__struct_fields__} - _PASSED_ON
    inherited = {name: value for name, value in environ.items() if name not in ours}
    return _Plan(inherited, folder, preferred={}, where=folder).make(processes or {}, gateway=False)


class _Plan:
    """Collect processes and settings, part by part."""

    def __init__(
        self, environ: Mapping[str, str], folder: Path, *, preferred: Mapping[str, int], where: Path
    ) -> None:
        self._environ = dict(environ)
        self._folder = folder.absolute()
        self._preferred = preferred
        self._where = where.absolute()
        self._given: dict[str, str] = {}
        self._drawn: set[int] = set()
        self._processes: list[Process] = []
        self._addresses: list[Address] = []

    def make(self, numbers: Mapping[str, int], *, gateway: bool) -> Stack:
        self._redis()
        self._graph()
        self._traces()
        self._store()
        if gateway:
            self._gateway()
        settings = self._settings()
        numbers = sized(settings, cores()) | dict(numbers)
        # a web hook can only be registered at a system that stays
        for agent in topology.CONSUMERS if gateway else topology.AGENTS:
            number = numbers[agent]
            for index in range(1, number + 1):
                self._agent(agent, agent if number == 1 else f"{agent}.{index}", settings)
        environment = {**self._environ, **self._given}
        return Stack(
            folder=self._folder,
            processes=tuple(msgspec.structs.replace(p, environment=environment) for p in self._processes),
            given=self._given,
            settings=settings,
            addresses=tuple(self._addresses),
        )

    def _settings(self) -> Settings:
        # No folder's files: `.env` is in the environ already, and `.erni/env` may be that of an earlier run.
        return load({**self._environ, **self._given}, folder=self._folder / "no-files")

    def _redis(self) -> None:
        if "REDIS_URL" in self._environ or "SESSION_REDIS_URL" in self._environ:
            return
        binary, port, data = valkey.find_server(), self._port("redis"), self._folder / "redis"
        data.mkdir(parents=True, exist_ok=True)
        self._given["REDIS_URL"] = f"redis://{valkey.HOST}:{port}/0"
        self._given["SYSTEM_ID"] = _kept(data / "system", lambda: secrets.token_hex(8))
        self._addresses.append(Address(what="redis", where=self._given["REDIS_URL"]))
        words = valkey.command(binary, folder=data, port=port)
        self._service("redis", words, lambda _: valkey.ping(port))

    def _graph(self) -> None:
        real = ("GRAPH_URL", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "SHAREPOINT_SITE")
        if any(name in self._environ for name in real):
            return
        from sandbox.sharepoint import shipped, tokens

        port, data = self._port("sharepoint"), self._folder / "sharepoint"
        base = f"http://{valkey.HOST}:{port}"
        self._given |= {
            "GRAPH_URL": f"{base}/v1.0",
            "AZURE_AUTHORITY": base,
            "AZURE_TENANT_ID": tokens.TENANT_ID,
            "AZURE_CLIENT_ID": tokens.CLIENT_ID,
            "AZURE_CLIENT_SECRET": tokens.CLIENT_SECRET,
            "SHAREPOINT_SITE": f"{shipped.HOST}:/{shipped.SITE_PATH}",
        }
        self._addresses.append(Address(what="sharepoint (a local stand-in)", where=base))
        words = (sys.executable, "-m", "sandbox.sharepoint", "--folder", str(data), "--port", str(port))
        self._service("sharepoint", words, _answers(port, "/"))

    def _traces(self) -> None:
        given = ("OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        if not self._settings().enable_tracing or any(name in self._environ for name in given):
            return
        otlp, pages = self._port("otlp"), self._port("traces")
        self._given["OTLP_ENDPOINT"] = f"http://{valkey.HOST}:{otlp}"
        self._given["JAEGER_URL"] = f"http://{valkey.HOST}:{pages}"
        self._addresses.append(Address(what="traces", where=self._given["JAEGER_URL"]))
        ports = ("--otlp-port", str(otlp), "--port", str(pages))
        kept = ("--file", str(self._folder / "traces" / "spans"))
        words = (sys.executable, "-m", "sandbox.traces", *ports, *kept)
        self._service("traces", words, _answers(pages, "/api/services"))

    def _store(self) -> None:
        if "PHOTO_STORE_URL" not in self._environ:
            self._given["PHOTO_STORE_URL"] = str(self._folder / "store")
            self._addresses.append(Address(what="photos and reports", where=self._given["PHOTO_STORE_URL"]))
        if "SOURCE_ROOTS" not in self._environ:
            self._given["SOURCE_ROOTS"] = str(self._where)

    def _gateway(self) -> None:
        asked = self._settings().http_port if "HTTP_PORT" in self._environ else None
        port = asked or (valkey.free_port() if asked == 0 else self._port("gateway"))
        self._given["HTTP_PORT"] = str(port)
        self._addresses.append(Address(what="health and metrics", where=f"http://{valkey.HOST}:{port}"))
        words = (sys.executable, "-m", "console.main", "gateway")
        self._processes.append(
            Process(
                name="gateway",
                command=words,
                environment={},
                folder=self._where,
                ready=_answers(port, "/health"),
                stage=1,
            )
        )

    def _service(self, name: str, words: Sequence[str], ready: Callable[[int], bool]) -> None:
        """Add a process that the agents need; it starts before them and stops after them."""
        self._processes.append(
            Process(name=name, command=tuple(words), environment={}, folder=self._where, ready=ready)
        )

    def _agent(self, agent: str, name: str, settings: Settings) -> None:
        self._processes.append(
            Process(
                name=name,
                command=(sys.executable, "-m", "consumers", agent),
                environment={},
                folder=self._where,
                ready=_registered(settings, agent),
                stage=1,
                grace=settings.grace_seconds + 5,
                # The very first start converts the vision model's weights.
                start_seconds=180,
            )
        )

    def _port(self, name: str) -> int:
        wanted = self._preferred.get(name)
        if wanted and valkey.port_is_free(wanted):
            return wanted
        port = valkey.free_port()
        while port in self._drawn:
            port = valkey.free_port()
        self._drawn.add(port)
        return port


_PORTS: Final = {
    "redis": "REDIS_URL",
    "sharepoint": "GRAPH_URL",
    "traces": "JAEGER_URL",
    "otlp": "OTLP_ENDPOINT",
}
"""The setting that names the port of each service."""


def kept_port(folder: Path, name: str) -> int | None:
    """Return the port that a service had at the last start, if it was ours."""
    try:
        return int((folder / "ports" / name).read_text())
    except (OSError, ValueError):
        return None


def _keep_ports(folder: Path, given: Mapping[str, str]) -> None:
    """Write down the ports of this start, so that links and clients of today work after the next one."""
    for name, setting in _PORTS.items():
        if port := urlsplit(given.get(setting, "")).port:
            path = folder / "ports" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{port}\n")


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What the file says; at first what `make` returns. Beside the data, it is gone when they are."""
    if not path.is_file():
        path.write_text(make() + "\n")
    return path.read_text().strip()


def _answers(port: int, path: str) -> Callable[[int], bool]:
    """Return a check whether anything answers HTTP on a loopback port."""

    def asked(_: int) -> bool:
        link = http.client.HTTPConnection(valkey.HOST, port, timeout=2)
        try:
            link.request("GET", path)
            link.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            link.close()
        return True

    return asked


def _registered(settings: Settings, agent: str) -> Callable[[int], bool]:
    """Return a check whether the process sends a heartbeat in every lane, which means that it reads."""

    def asked(pid: int) -> bool:
        try:
            # in a thread of its own, which has no loop
            lanes = asyncio.run(_records(settings, agent))
        except (RedisError, OSError):
            return False
        return all(pid in _pids(records) for records in lanes)

    return asked


async def _records(settings: Settings, agent: str) -> list[list[bytes]]:
    """Return what the processes of an agent report about themselves in each lane."""
    async with connect(
        settings.redis_url, password=str(settings.redis_password), client_name="", timeout=_ANSWER_SECONDS
    ) as client:
        return [await call(client, "HVALS", lane.processes(agent)) for lane in keys.all_lanes(settings.lanes)]


def _pids(records: Iterable[bytes]) -> set[int]:
    """Return the process ids on this host among an agent's records (time, space, JSON)."""
    here = socket.gethostname()
    processes = (msgspec.json.decode(record.partition(b" ")[2], type=_Process) for record in records)
    return {process.pid for process in processes if process.host == here}


class _Process(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    pid: int
