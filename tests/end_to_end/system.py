"""The whole system as processes: a server, the two stand-ins, a trace receiver and the five agents.

Everything is reached as an operator or an upstream team reaches it: by `erni`, by HTTP, by Redis. No agent is
under supervision here, so what a test kills stays dead until it starts another one.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from redis import Redis

from events.keys import Keys
from events.topology import AGENTS
from events.types import PhotoValidated, SessionReported
from sandbox.children import end_with_parent
from sandbox.redis_server import Valkey
from sandbox.sharepoint.model import Effect, Item
from sandbox.stack import _registered
from shared.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

ROOT: Final = Path(__file__).resolve().parents[2]
LIBRARY: Final = "Referenzfotos"
VISION_MODEL: Final = "stand-in"
KEYS: Final = Keys()
_START_SECONDS: Final = 60.0


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as `erni dead list --json` tells it."""

    agent: str
    reason: str
    message: str
    file_name: str | None = None
    error_type: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended."""

    validated: list[PhotoValidated]
    """One entry each; a photo that was validated twice is in it twice."""
    dead: list[Dead]
    counters: dict[str, str]
    reported: SessionReported

    @property
    def names(self) -> list[str]:
        """The files of the validated photos, in order."""
        return sorted(photo.file_name or "" for photo in self.validated)


class System:
    """Start it, publish, `wait` for a session's end, look. A context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        graph: Sequence[str] = (),
        vision: bool = True,
        traces: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`graph`: arguments of the Graph stand-in, such as ``--strict``.

        `vision`: photos are described by the stand-in of an OpenAI service, else inside the agent.
        """
        self.folder = folder
        self._graph_arguments = graph
        self._with_vision = vision
        self._with_traces = traces
        self._extra = dict(settings or {})
        self._redis_server = Valkey(folder / "redis")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.graph: dict[str, str] = {}
        self.vision: dict[str, str] = {}
        self.traces: dict[str, str] = {}
        self._seen = "0-0"
        """Up to where `session.reported` was read."""

    def __enter__(self) -> Self:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self._redis_server.start()
            # Any: what redis-py answers depends on the client, and its types allow for every kind
            self.redis: Any = Redis.from_url(self._redis_server.url, protocol=2)
            self._start_stand_ins()
            self.start(*AGENTS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if hasattr(self, "redis"):
            self.redis.close()
        self._redis_server.stop()

    @property
    def store(self) -> Path:
        """The photo store's folder."""
        return self.folder / "store"

    @property
    def photos(self) -> Path:
        """Where `file:` sources may be."""
        return self.folder / "photos"

    @property
    def environment(self) -> dict[str, str]:
        """What the agents and `erni` run with."""
        inherited = {name: value for name, value in os.environ.items() if name.upper() not in _SETTINGS_NAMES}
        return {
            **inherited,
            "REDIS_URL": self._redis_server.url,
            "PHOTO_STORE_URL": str(self.store),
            "SOURCE_ROOTS": str(self.photos),
            "METRICS_PORT": "0",
            "LOG_FORMAT": "json",
            "ENABLE_TRACING": "1" if self._with_traces else "0",
            **({"OTLP_ENDPOINT": self.traces["otlp_endpoint"]} if self.traces else {}),
            **({"JAEGER_URL": self.traces["url"]} if self.traces else {}),
            "GRAPH_URL": self.graph["url"],
            "AZURE_AUTHORITY": self.graph["authority"],
            "AZURE_TENANT_ID": self.graph["tenant_id"],
            "AZURE_CLIENT_ID": self.graph["client_id"],
            "AZURE_CLIENT_SECRET": self.graph["client_secret"],
            "SHAREPOINT_SITE": self.graph["site"],
            "SHAREPOINT_LIBRARY": LIBRARY,
            **(
                {
                    "VISION_BACKEND": "openai",
                    "VISION_URL": self.vision["url"],
                    "VISION_MODEL": VISION_MODEL,
                }
                if self.vision
                else {}
            ),
            **self._extra,
        }

    def settings(self) -> Settings:
        """The same as a process of ours sees it."""
        return load(self.environment, folder=self.folder)

    def start(self, *agents: str, **changed: str) -> None:
        """Start agents, with some settings changed, and wait until each reads."""
        for agent in agents:
            self._spawn(
                agent,
                [sys.executable, "-m", "consumers", agent],
                {**self.environment, **changed},
            )
        settings = self.settings()
        for agent in agents:
            reads, process = _registered(settings, agent), self.processes[agent]
            self._until(lambda process=process, reads=reads: reads(process.pid), agent)

    def end(self, agent: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End an agent's process: asked (the default), or at once by SIGKILL."""
        process = self.processes.pop(agent)
        process.send_signal(number)
        process.wait(40)

    def erni(self, *words: str, code: int = 0) -> Any:
        """Type a command; its JSON document."""
        done = subprocess.run(
            [sys.executable, "-m", "console.main", *words, "--json"],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, (
            f"erni {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return json.loads(done.stdout)

    def wait(self, session: str, seconds: float = 100.0) -> Outcome:
        """The session's end: all its photos, those that got through and those that did not."""
        reported = self._reported(session, time.monotonic() + seconds)
        validated = [
            photo
            for _, fields in self.redis.xrange(KEYS.stream("photo.validated"))
            if fields.get(b"sessionid") == session.encode()
            for photo in [msgspec.json.decode(fields[b"data"], type=PhotoValidated)]
        ]
        groups = self.erni("dead", "list", "--session", session)["groups"]
        counters = self.redis.hgetall(KEYS.session(session))
        return Outcome(
            validated=validated,
            dead=msgspec.convert([letter for group in groups for letter in group["letters"]], list[Dead]),
            counters={name.decode(): value.decode() for name, value in counters.items()},
            reported=reported,
        )

    def _reported(self, session: str, deadline: float) -> SessionReported:
        stream = KEYS.stream("session.reported")
        while (left := deadline - time.monotonic()) > 0:
            for name, process in self.processes.items():
                code = process.poll()
                assert code is None, f"{name} ended with {code}:\n{self.log(name)[-3000:]}"
            replies = self.redis.xread({stream: self._seen}, block=max(1, int(min(left, 2.0) * 1000)))
            for _, entries in replies or ():
                for entry_id, fields in entries:
                    self._seen = entry_id.decode()
                    said = msgspec.json.decode(fields[b"data"], type=SessionReported)
                    if said.session_id == session:
                        return said
        raise AssertionError(f"session {session} did not end in time.\n{self._state(session)}")

    def items(self, library: str = LIBRARY) -> list[Item]:
        """The library's files as they lie in the stand-in's folder, fields included."""
        folder = self.folder / "graph" / "state"
        lists = {
            found["id"]
            for path in (folder / "lists").iterdir()
            if (found := json.loads(path.read_bytes()))["display_name"] == library
        }
        found_items = [
            msgspec.json.decode(path.read_bytes(), type=Item) for path in (folder / "items").glob("*.json")
        ]
        return [
            item for item in found_items if item.kind == "file" and not item.deleted and item.list_id in lists
        ]

    def effects(self, after: int = 0) -> list[Effect]:
        """What took place in SharePoint, from behind that number."""
        lines = (self.folder / "graph" / "effects.jsonl").read_bytes().splitlines(keepends=True)
        every = (msgspec.json.decode(line, type=Effect) for line in lines if line.endswith(b"\n"))
        return [effect for effect in every if effect.seq > after]

    def uploads(self, after: int = 0) -> list[Effect]:
        """The effects that brought bytes."""
        return [
            effect
            for effect in self.effects(after)
            if effect.effect in ("upload", "session_created", "session_finished")
        ]

    @property
    def sequence(self) -> int:
        """The number of the last effect."""
        return max((effect.seq for effect in self.effects()), default=0)

    def vision_calls(self) -> int:
        """How many completions were asked for."""
        return int(self.ask("GET", self.vision["admin"])["asked"])

    def edit(self, item: Item, fields: Mapping[str, object]) -> None:
        """Change values in the browser, as a person does."""
        self.ask("POST", f"{self.graph['admin']}/edit", {"item_id": item.id, "fields": dict(fields)})

    def fault(self, part: str, **order: object) -> None:
        """Have a stand-in misbehave; the order is a `FaultOrder`."""
        self.ask("POST", f"{(self.graph if part == 'sharepoint' else self.vision)['admin']}/fault", order)

    def heal(self) -> None:
        """All misbehaviour ends."""
        for part in (self.graph, self.vision):
            if part:
                self.ask("DELETE", f"{part['admin']}/fault")

    @staticmethod
    def ask(method: str, url: str, body: object = None) -> Any:
        """One request to a stand-in's administrator."""
        parts = urlsplit(url)
        link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        try:
            link.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), json.dumps(body))
            answer = link.getresponse()
            said = answer.read()
            assert answer.status < 300, (method, url, answer.status, said)
            return json.loads(said)
        finally:
            link.close()

    def log(self, name: str) -> str:
        """Everything a process wrote."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def _start_stand_ins(self) -> None:
        self.photos.mkdir(exist_ok=True)
        python = [sys.executable, "-m"]
        folder = self.folder / "graph"
        self._spawn(
            "graph",
            [*python, "sandbox.sharepoint", "--folder", str(folder), *self._graph_arguments],
            _plain(),
            hear=True,
        )
        if self._with_vision:
            self._spawn(
                "vision",
                [*python, "sandbox.vision", "--folder", str(self.folder / "vision")],
                _plain(),
                hear=True,
            )
        if self._with_traces:
            self._spawn(
                "traces",
                [*python, "sandbox.traces", "--otlp-port", "0", "--port", "0"],
                _plain(),
                hear=True,
            )
        self.graph = self._heard("graph")
        self.vision = self._heard("vision") if self._with_vision else {}
        self.traces = self._heard("traces") if self._with_traces else {}

    def _spawn(self, name: str, words: list[str], environment: dict[str, str], *, hear: bool = False) -> None:
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if hear else log,
                stderr=log,
                preexec_fn=end_with_parent(),  # noqa: PLW1509  # one prctl call, looked up before the fork
            )

    def _heard(self, name: str) -> dict[str, str]:
        """The line of JSON that a stand-in says when it is ready."""
        said = self.processes[name].stdout
        assert said is not None
        line = said.readline()
        assert line, f"{name} did not start:\n{self.log(name)}"
        heard: dict[str, str] = json.loads(line)
        said.close()
        return heard

    def _until(self, so: Any, name: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not so():
            process = self.processes[name]
            assert process.poll() is None, (
                f"{name} ended with {process.returncode}:\n{self.log(name)[-3000:]}"
            )
            assert time.monotonic() < deadline, f"{name} does not read:\n{self.log(name)[-3000:]}"
            # the registry has no signal: a process is there once its first beat is
            time.sleep(0.02)

    def _state(self, session: str) -> str:
        """Where everything stands, for a failed test."""
        counters = self.redis.hgetall(KEYS.session(session))
        with suppress(Exception):
            status = self.erni("status", code=1)
            return json.dumps({"counters": str(counters), "status": status}, indent=1)[:6000]
        return str(counters)


def _plain() -> dict[str, str]:
    """The environment without a setting of ours, but for where models are kept."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in _SETTINGS_NAMES or name == "CACHE_DIR"
    }


_SETTINGS_NAMES: Final = frozenset(name.upper() for name in Settings.__struct_fields__)
