"""Runs one subject in a process of its own against the benchmark's server, and checks what it handed on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.peers.stopwatch import ask
from benchmarks.subjects.engine import Mode
from benchmarks.subjects.entries import fill
from benchmarks.subjects.ours import MODES

if TYPE_CHECKING:
    from benchmarks.subjects.spans import Collector

ROOT: Final = Path(__file__).parents[2]
_SECONDS: Final = 60.0


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Describe something that hands entries on."""

    name: str
    """As in the results."""
    title: str
    """As in the table."""
    module: str
    entries: int
    """How many it is given: enough for a second or more of its work."""
    output: tuple[str, ...]
    """The Redis command that counts its outputs."""
    mode: str = ""
    traced: bool = False
    environment: str = ""
    """The environment of another library; '' for ours."""


class Taken(msgspec.Struct, kw_only=True):
    """Hold what one run took."""

    seconds: float
    client_seconds: float
    server_seconds: float
    entries: int = 0
    spans: int = 0

    @property
    def rate(self) -> float:
        """Return the hand-offs a second."""
        return self.entries / self.seconds

    @property
    def client(self) -> float:
        """Return the microseconds of the process's CPU per hand-off."""
        return self.client_seconds / self.entries * 1e6

    @property
    def server(self) -> float:
        """Return the microseconds of the server's CPU per hand-off."""
        return self.server_seconds / self.entries * 1e6


def run(subject: Subject, python: Path, url: str, entries: int, collector: Collector) -> Taken:
    """Fill the streams, hand everything on, count the outputs. Raises SystemExit if one is missing."""
    empty(url)
    collector.spans()
    if subject.environment:
        # each library writes entries in its own form
        _child(subject, python, "fill", url, entries, collector)
    else:
        mode = MODES.get(subject.mode, Mode())
        fill(url, entries, session=mode.sessions, sampled=mode.traced)
    taken = msgspec.json.decode(_child(subject, python, "run", url, entries, collector), type=Taken)
    outputs = int(ask(url, *subject.output))
    if outputs != entries:
        raise SystemExit(
            f"{subject.title}: {outputs} outputs of {entries} entries, the figure would be wrong"
        )
    taken.entries = entries
    taken.spans = collector.spans()
    return taken


def empty(url: str) -> None:
    """Delete everything and rewrite the append-only file, so that no subject pays for the one before it."""
    ask(url, "FLUSHALL", "SYNC")
    ask(url, "BGREWRITEAOF")
    deadline = time.monotonic() + 30
    while b"aof_rewrite_in_progress:0" not in (state := ask(url, "INFO", "persistence")) or (
        b"aof_rewrite_scheduled:0" not in state
    ):
        if time.monotonic() > deadline:
            raise SystemExit("the server did not rewrite its append-only file within 30 s")
        time.sleep(0.01)


def _child(subject: Subject, python: Path, action: str, url: str, entries: int, collector: Collector) -> str:
    words = [str(python), "-m", f"benchmarks.{subject.module}", action, url, str(entries)]
    words += ["--mode", subject.mode, "--endpoint", collector.endpoint]
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            words, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{subject.title}: {action} did not end within {_SECONDS:g} s") from None
    if done.returncode:
        raise SystemExit(f"{subject.title}: {action} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


OURS: Final = Path(sys.executable)
