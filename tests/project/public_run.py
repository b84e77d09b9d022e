"""One run of the whole system that shows every name other systems see, looked at from outside.

The agents are real processes. What they do in Redis is read with MONITOR, so that a key that lives for a
moment is seen too; the rest is read from HTTP, from the logs and from the documents of `erni --json`.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import msgspec

from console.main import main
from events.topology import AGENTS
from tests.end_to_end import scenario
from tests.end_to_end.system import LIBRARY, System
from tests.project.redis_monitor import Command, Monitor
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SESSION: Final = "names-session"
FIXED_IDS: Final = {
    SESSION: "<session>",
    "names-refused": "<event>",
    # a photo is looked up by its file's name too
    "names_000.jpg": "<photo>",
    "names_001.jpg": "<photo>",
    "broken.jpg": "<photo>",
}
"""What this run calls its things, and what stands for each in the list."""
_PUBLISH: Final = ROOT / "events" / "lua" / "publish.lua"
_INTAKE: Final = "erni:photo.submitted"
_UPLOADER: Final = "sharepoint_uploader"
_ANALYZER: Final = "vision_analyzer"
_SETTINGS: Final = {
    "LEASE_SECONDS": "3",
    "GRACE_SECONDS": "0.2",
    "STORE_RETENTION_DAYS": "30",
    "VISION_BUDGET_DAY": "1000",
    "VISION_BUDGET_SESSION": "1000",
    "VISION_PRICE_INPUT": "1",
    "VISION_PRICE_OUTPUT": "1",
}
_SECONDS: Final = 30.0
"""The longest wait for anything."""


class Seen(msgspec.Struct, kw_only=True):
    """What the run showed."""

    commands: list[Command] = []
    """Every command that Redis ran."""
    consumers: set[str] = set()
    """The consumers that a group has and that are no process."""
    metrics: list[str] = []
    """The text of each agent's /metrics."""
    documents: dict[str, list[Any]] = {}
    """By command or address: the JSON documents it answered."""
    log: list[dict[str, Any]] = []
    """The lines that the agents logged."""
    agent_help: str = ""
    """What `python -m consumers --help` says."""
    traces: list[dict[str, Any]] = []
    """The traces, in Jaeger's shape."""


class _Watched(System):
    """The system, with a monitor that is there before the agents are."""

    monitor: Monitor | None = None

    def start(self, *agents: str, **changed: str) -> None:
        if self.monitor is None:
            self.monitor = Monitor(self.redis)
        super().start(*agents, **changed)


def run(folder: Path) -> Seen:
    """Start everything below `folder`, make every kind of ending happen, and stop. Some 20 seconds."""
    seen = Seen()
    system = _Watched(folder, traces=True, settings=_SETTINGS)
    with system:
        assert system.monitor is not None
        try:
            _Run(system, seen).all()
        finally:
            seen.commands = system.monitor.stop()
    return seen


class _Run:
    """The steps, in their order."""

    def __init__(self, system: System, seen: Seen) -> None:
        self._system = system
        self._redis = system.redis
        self._seen = seen

    def all(self) -> None:
        self._session_with_one_of_each()
        self._scrape()
        self._ask_for_documents()
        self._replay()
        self._refuse_a_publish()
        self._give_one_back_and_take_it_again()
        self._erni("session", "forget", SESSION, "--yes")
        self._read_logs_and_traces()

    def _session_with_one_of_each(self) -> None:
        """One photo is postponed, one needs a second attempt; one is dead, as is an entry without data."""
        folder = self._system.photos / "names"
        scenario.pictures(folder, 2, seed="names")
        (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
        self._redis.xadd(_INTAKE, {"id": "names-undecodable"})
        # longer than an agent waits for in a handler
        self._system.fault("vision", kind="429", times=1, retry_after=600)
        self._system.fault("vision", kind="503", times=1)
        place = ("--site", self._system.graph["site"], "--library", LIBRARY)
        self._erni("publish", str(folder), "--session", SESSION, "--project", "Seewen", *place)
        delayed = f"erni:delayed:{_ANALYZER}"
        _until(f"{delayed} has an entry", lambda: self._redis.zcard(delayed))
        # its time has come
        self._redis.zadd(delayed, dict.fromkeys(self._redis.zrange(delayed, 0, -1), 1), xx=True)
        # while the second attempt is waited for
        self._gateway()
        self._seen.agent_help = subprocess.check_output(
            [sys.executable, "-m", "consumers", "--help"], cwd=ROOT, text=True, timeout=20
        )
        self._system.wait(SESSION, _SECONDS)
        letters = "erni:dead:schema_extractor"
        _until(f"{letters} has a letter", lambda: self._redis.xlen(letters))

    def _scrape(self) -> None:
        for agent in AGENTS:
            (said,) = self._redis.hvals(f"erni:processes:{agent}")
            address = json.loads(said[said.index(b"{") :])["metrics_address"]
            self._seen.metrics.append(_get(address, "/metrics"))
            for path in ("/health", "/ready"):
                self._note(f"agent {path}", json.loads(_get(address, path)))

    def _gateway(self) -> None:
        environment = {**self._system.environment, "HTTP_PORT": "0", "PYTHONPATH": str(ROOT)}
        gateway = subprocess.Popen(
            [sys.executable, "-m", "console.main", "gateway", "--json"],
            cwd=self._system.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert gateway.stdout is not None
            said = json.loads(b"".join(iter(gateway.stdout.readline, b"}\n")) + b"}")
            self._note("erni gateway", said)
            for path in ("/health", "/ready", "/metrics/targets"):
                self._note(f"gateway {path}", json.loads(_get(f"127.0.0.1:{said['port']}", path)))
        finally:
            gateway.terminate()
            gateway.communicate(timeout=20)

    def _ask_for_documents(self) -> None:
        self._erni("status", code=None)
        self._erni("doctor", code=None)
        self._erni("session", "list")
        self._erni("session", "show", SESSION)
        self._erni("session", "close", SESSION, "--expected", "3")
        self._erni("photo", "list", "--session", SESSION)
        for name in ("names_000.jpg", "names_001.jpg", "broken.jpg"):
            self._erni("photo", "show", name)
        self._erni("report", SESSION)
        self._erni("key", "add", "names", "--role", "publisher", "--source", "urn:names")
        self._erni("key", "list")
        self._erni("key", "remove", "names")
        self._erni("dead", "list")
        for agent in ("schema_extractor", "photo_fetcher"):
            for letter in self._letters(agent):
                self._erni("dead", "show", letter)

    def _replay(self) -> None:
        """The broken photo comes back and dies once more; what is no event is thrown away."""
        self._erni("dead", "replay", "--all", "--dry-run")
        before = self._letters("photo_fetcher")
        self._erni("dead", "replay", "--agent", "photo_fetcher")
        _until("the letter is back", lambda: self._letters("photo_fetcher") not in ([], before))
        self._erni("dead", "discard", "--agent", "schema_extractor", "--yes")

    def _refuse_a_publish(self) -> None:
        """Another system publishes by the script while the first agent is paused; its second is refused."""
        self._erni("pause", "schema_extractor")
        folder = self._system.photos / "late"
        scenario.pictures(folder, 1, seed="late")
        data = json.dumps({"source_url": f"file:{folder / 'late_000.jpg'}", "photo_id": "late-photo"})
        trace = ("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate", "camera=1")
        # together: a read that was under way when the pause came may still take the first one
        with self._redis.pipeline(transaction=True) as both:
            for name, limit in (("names-taken", 100), ("names-refused", 1)):
                both.eval(
                    _PUBLISH.read_text(),
                    3,
                    *(_INTAKE, f"erni:published:{name}", "erni:refused", 86_400_000, limit, "id", name),
                    *(*trace, "data", data),
                )
            answers = both.execute()
        assert [answer[0] for answer in answers] == [b"OK", b"FULL"]

    def _give_one_back_and_take_it_again(self) -> None:
        """The uploader is asked to stop in the middle of an upload; the next one finishes it."""
        self._system.fault("sharepoint", kind="slow", delay=60, match="content")
        self._erni("resume", "schema_extractor")
        stream, done = "erni:photo.analyzed", self._redis.xlen("erni:photo.validated")
        _until(f"{stream} is read", lambda: self._redis.xpending(stream, _UPLOADER)["pending"])
        self._system.end(_UPLOADER, signal.SIGTERM)
        own = {name.decode() for name in self._redis.hkeys(f"erni:processes:{_UPLOADER}")}
        names = {one["name"].decode() for one in self._redis.xinfo_consumers(stream, _UPLOADER)}
        self._seen.consumers |= names - own
        # as if it had not been given back but left behind, which counts as a delivery
        for left in self._redis.xpending_range(stream, _UPLOADER, "-", "+", 10):
            self._redis.xclaim(
                stream, _UPLOADER, left["consumer"], 0, [left["message_id"]], retrycount=1, justid=True
            )
        self._system.heal()
        self._system.start(_UPLOADER)
        _until("erni:photo.validated has one more", lambda: self._redis.xlen("erni:photo.validated") > done)

    def _read_logs_and_traces(self) -> None:
        """The processes end first, so that each has sent what it has."""
        for agent in AGENTS:
            self._system.end(agent)
            for line in self._system.log(agent).splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    self._seen.log.append(json.loads(line))
        address = self._system.traces["url"].removeprefix("http://")
        for service in json.loads(_get(address, "/api/services"))["data"]:
            found = json.loads(_get(address, f"/api/traces?service={service}&limit=100"))
            self._seen.traces += found["data"]

    def _letters(self, agent: str) -> list[str]:
        return [entry_id.decode() for entry_id, _ in self._redis.xrange(f"erni:dead:{agent}")]

    def _erni(self, *words: str, code: int | None = 0) -> None:
        """Type a command, in this process because that is faster; `code` None: any exit code will do."""
        said = io.StringIO()
        environment = {**self._system.environment, "ENABLE_TRACING": "0"}
        with (
            patch.dict(os.environ, environment, clear=True),
            contextlib.chdir(self._system.folder),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(io.StringIO()) as complaints,
        ):
            ended = main([*words, "--json"])
        assert code in (None, ended), f"erni {' '.join(words)}: {ended}\n{complaints.getvalue()}"
        below = words[1:2] if words[0] in ("session", "photo", "dead", "key") else ()
        name = " ".join(("erni", words[0], *below, *(word for word in words if word == "--dry-run")))
        self._note(name, json.loads(said.getvalue()))

    def _note(self, name: str, document: Any) -> None:
        self._seen.documents.setdefault(name, []).append(document)


def _get(address: str, path: str) -> str:
    link = http.client.HTTPConnection(address, timeout=10)
    try:
        link.request("GET", path)
        return link.getresponse().read().decode()
    finally:
        link.close()


def _until(what: str, so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not so():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {_SECONDS:.0f} s in vain until {what}: was a name changed?")
        time.sleep(0.02)  # other processes' work has no event here
