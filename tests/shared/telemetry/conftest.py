"""A receiver that takes spans over real gRPC, asked through Jaeger's API; and managers that send to it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import structlog

from shared.settings import Settings
from shared.telemetry.logs import configure_logging
from shared.telemetry.manager import TelemetryManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Traces:
    """What arrived at the receiver."""

    def __init__(self, endpoint: str, url: str) -> None:
        self.endpoint = endpoint
        self.url = url

    def _data(self, path: str) -> list[dict[str, Any]]:
        with urlopen(self.url + path, timeout=10) as answer:  # noqa: S310  # loopback
            data = json.loads(answer.read())["data"]
            assert isinstance(data, list)
            return data

    def tagged(self, service: str = "erni-photo-fetcher", **tags: str) -> list[dict[str, Any]]:
        """The traces with a span of the service that has all of these tags; ``__`` stands for a dot."""
        wanted = json.dumps({name.replace("__", "."): value for name, value in tags.items()})
        return self._data(f"/api/traces?service={service}&limit=100&tags={quote(wanted)}")

    def spans_of(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of one trace, the earliest first."""
        found = self._data(f"/api/traces/{trace_id}")
        spans: list[dict[str, Any]] = found[0]["spans"]
        for span in spans:
            span["process"] = found[0]["processes"][span["processID"]]
        return spans


def tags(thing: dict[str, Any]) -> dict[str, Any]:
    """The tags of a span or a process, or the fields of a log, as a dict."""
    return {tag["key"]: tag["value"] for tag in thing.get("tags", thing.get("fields", []))}


def parent_of(span: dict[str, Any]) -> str | None:
    """The id of a span's parent."""
    return next((ref["spanID"] for ref in span["references"] if ref["refType"] == "CHILD_OF"), None)


def links_of(span: dict[str, Any]) -> list[str]:
    """The ids of the spans a span links to."""
    return [ref["spanID"] for ref in span["references"] if ref["refType"] == "FOLLOWS_FROM"]


@pytest.fixture(scope="session")
def traces() -> Iterator[Traces]:
    """One receiver for all tests of this process; each test looks for ids of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox.traces", "--otlp-port", "0", "--http-port", "0"],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield Traces(ready["otlp_endpoint"], ready["url"])
        process.terminate()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start reads `.env` of the current folder: not the developer's."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photo_id() -> str:
    """A photo no other test has."""
    return f"p-{uuid.uuid4().hex}"


@pytest.fixture
def start(traces: Traces) -> Iterator[Callable[..., TelemetryManager]]:
    """Starts a manager that sends to the receiver (or where `settings` say)."""
    started: list[TelemetryManager] = []
    before = set(threading.enumerate())

    def starter(agent: str = "photo_fetcher", **settings: Any) -> TelemetryManager:
        settings.setdefault("otlp_endpoint", traces.endpoint)
        manager = TelemetryManager(
            Settings(**settings), agent=agent, consumer=f"bau-1-{uuid.uuid4().hex[:8]}"
        )
        manager.start()
        started.append(manager)
        return manager

    yield starter
    for manager in started:
        manager.shutdown()
    # One that gives up on its collector counts and logs that, which is not the next test's.
    for thread in set(threading.enumerate()) - before:
        if "Batch" in thread.name:
            thread.join(10)


class Lines(io.BytesIO):
    """Takes what is logged."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines so far, decoded."""
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def logged() -> Iterator[Lines]:
    """What this process logs as JSON while the test runs."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = Lines()
    configure_logging(Settings(log_format="json"), agent="photo_fetcher", consumer="bau-1-7", stream=stream)
    yield stream
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
