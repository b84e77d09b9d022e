"""A real server per test process, what a test may not leave behind, and what could not be run."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from redis import Redis as PlainRedis
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.redis_server import Valkey, ValkeyError
from shared.settings import Settings
from tests.key_leaks import leaked_keys, open_connections
from tests.tools import TOOLS, find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_CLOSE_SECONDS: Final = 1.0
_CLIENT: Final[dict[str, Any]] = {"protocol": 2, "socket_timeout": None, "retry": Retry(NoBackoff(), 0)}
"""Replies as bytes, no command sent twice.

No time limit: redis-py would bound its writes by `asyncio.wait_for`, which on Python 3.11 can swallow the
cancellation of a task (CPython issue 86296), and the test's own limit does the same.
"""


def pytest_configure() -> None:
    """Forget what the developer's shell sets: a test must not reach a real Redis, library or collector."""
    settings = {name.upper() for name in Settings.__struct_fields__}
    for name in [name for name in os.environ if name in settings or name.startswith("OTEL_")]:
        del os.environ[name]
    chosen = os.environ.get("ERNI_TEST_REDIS")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise pytest.UsageError(f"ERNI_TEST_REDIS names {chosen!r}, which is not there")
        os.environ["ERNI_TEST_REDIS"] = path  # whole, for processes that a test starts with another PATH
        pytest.MonkeyPatch().setattr("sandbox.redis_server._candidates", lambda: [Path(path)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a mark that names a tool nobody looks for."""
    for item in items:
        for mark in item.iter_markers("needs"):
            for tool in mark.args:
                if tool not in TOOLS:
                    raise pytest.UsageError(
                        f"{item.nodeid} needs {tool!r}; tests/tools.py knows {', '.join(TOOLS)}"
                    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test whose tool is missing; with REQUIRE_ALL=1 it fails."""
    wanted = {tool for mark in item.iter_markers("needs") for tool in mark.args}
    missing = sorted(tool for tool in wanted if find(tool) is None)
    if not missing:
        return
    reason = f"needs {', '.join(missing)}"
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, which is not installed, and REQUIRE_ALL=1 is set", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests ran, and which did not for want of what."""
    stats = terminalreporter.stats
    ran = len({report.nodeid for kind in ("passed", "failed", "error") for report in stats.get(kind, [])})
    terminalreporter.write_line(f"{ran} tests ran")
    reasons = Counter(_reason(report) for report in stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"not run: {reason} ({count} test{'s' if count > 1 else ''})")


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _started(folder: Path) -> Valkey:
    # with the command `DEBUG`, which can stall, and restart from what is on disk
    options = {"enable-debug-command": "local"}
    try:
        return Valkey(folder, options=options).start()
    except ValkeyError:
        # another process may have taken the port between our look and the server's bind
        return Valkey(folder, options=options).start()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The server that all tests of this process share. Don't stop it: `own_redis_server` is for that.

    It is the one that `erni up` would take; `ERNI_TEST_REDIS` (a path, or a name on PATH) chooses another.
    """
    server = _started(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[Valkey]:
    """A server for one test alone, to kill, stop and start again."""
    server = _started(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, redis_server: Valkey) -> Iterator[str]:
    """The address of an empty Redis. Afterwards nothing may be left in it that would stay for ever.

    A test that makes other keys by purpose is marked ``leaves_keys("pattern", …)``.
    """
    with PlainRedis.from_url(redis_server.url, **_CLIENT) as client:
        client.flushall()
        client.script_flush()
        yield redis_server.url
        deadline = time.monotonic() + _CLOSE_SECONDS
        # the server may see the end of a process or of a connection a moment after its owner
        while (connections := open_connections(client)) and time.monotonic() < deadline:
            time.sleep(0.005)
        if connections:  # so that the tests after this one are not blamed
            client.client_kill_filter(skipme=True)
        allowed = [pattern for mark in request.node.iter_markers("leaves_keys") for pattern in mark.args]
        keys = leaked_keys(client, allowed)
    if connections:
        pytest.fail("the test left connections to Redis open:\n  " + "\n  ".join(connections), pytrace=False)
    if keys:
        pytest.fail(
            "the test left keys without a time to live that tests/key_leaks.py does not declare:\n  "
            + "\n  ".join(keys),
            pytrace=False,
        )


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis: replies as bytes, no command sent twice."""
    async with Redis.from_url(redis_url, **_CLIENT) as client:
        yield client


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest) -> None:
    """Fail an asynchronous test that leaves a task running. Set up first, so that it looks last."""
    if asyncio.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_tasks_of_the_loop")


@pytest.fixture
async def _tasks_of_the_loop() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    own = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() - before if task is not own and not task.done()]
    if left:
        pytest.fail("the test left tasks running:\n  " + "\n  ".join(map(repr, left)), pytrace=False)
