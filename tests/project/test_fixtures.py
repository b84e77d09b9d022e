"""The test frame itself: what its fixtures give, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from redis import Redis as PlainRedis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey

INNER = """\
import asyncio, os, pytest
from redis.asyncio import Redis

kept = []

async def test_leaves_a_key(redis):
    await redis.set("erni:forgotten", 1)

async def test_leaves_a_connection(redis_url):
    kept.append(Redis.from_url(redis_url, client_name="lost"))
    await kept[-1].ping()

async def test_leaves_a_task():
    kept.append(asyncio.create_task(asyncio.Event().wait()))

async def test_leaves_a_key_with_a_time_to_live(redis):
    await redis.set("erni:marker:x", 1, ex=60)

async def test_leaves_streams_of_the_topology(redis):
    await redis.xadd("erni:photo.submitted", {"data": "{}"})
    await redis.xadd("erni:{3}:dead:photo_fetcher", {"raw": "x"})

@pytest.mark.leaves_keys("erni:own:.*")
async def test_leaves_a_key_and_says_so(redis):
    await redis.set("erni:own:x", 1)

def test_sees_no_setting_of_the_developer():
    assert "REDIS_URL" not in os.environ and "OTEL_SDK_DISABLED" not in os.environ

@pytest.mark.needs("gcc")
def test_compiles(): pass
"""


def run(folder: Path, source: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one test file with this project's conftest, in a process of its own that finds no tool."""
    (folder / "test_inner.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={folder}"]
    return subprocess.run(
        [
            *command,
            "-rA",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "test_inner.py",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere", "REQUIRE_ALL": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What pytest prints of all the tests of INNER, line by line."""
    result = run(
        tmp_path_factory.mktemp("inner"),
        INNER,
        REDIS_URL="redis://production:6379/0",
        OTEL_SDK_DISABLED="true",
    )
    assert result.returncode == 1, result.stderr
    return result.stdout.splitlines()


async def test_each_test_gets_an_empty_server_that_writes_everything_to_disk_and_evicts_nothing(
    redis: Redis,
) -> None:
    assert await redis.dbsize() == 0
    settings = await redis.config_get("appendonly", "appendfsync", "save", "maxmemory-policy")
    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    await redis.set("erni:marker:x", b"\xff", ex=60)
    assert await redis.get("erni:marker:x") == b"\xff"


def test_a_killed_server_has_its_data_after_the_restart_at_the_same_address(own_redis_server: Valkey) -> None:
    url = own_redis_server.url
    with PlainRedis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        client.set("kept", 1)
        own_redis_server.kill()
        with pytest.raises(RedisConnectionError):
            client.get("kept")
        own_redis_server.start()
        assert own_redis_server.url == url
        assert client.get("kept") == b"1"


@pytest.mark.parametrize(
    ("left", "said"),
    [("key", "erni:forgotten"), ("connection", "name=lost"), ("task", "the test left tasks running")],
)
def test_what_a_test_leaves_behind_fails_it(left: str, said: str, told: list[str]) -> None:
    assert any(line.startswith(f"ERROR test_inner.py::test_leaves_a_{left}") for line in told)
    assert any(said in line for line in told)


@pytest.mark.parametrize(
    "name",
    ["leaves_a_key_with_a_time_to_live", "leaves_streams_of_the_topology", "leaves_a_key_and_says_so"],
)
def test_what_may_stay_fails_nothing(name: str, told: list[str]) -> None:
    assert f"PASSED test_inner.py::test_{name}" in told
    assert not any(line.startswith(f"ERROR test_inner.py::test_{name}") for line in told)


def test_the_developers_own_settings_do_not_reach_the_tests(told: list[str]) -> None:
    assert "PASSED test_inner.py::test_sees_no_setting_of_the_developer" in told


def test_the_summary_says_how_many_tests_ran_and_which_did_not_for_want_of_what(told: list[str]) -> None:
    assert "7 tests ran" in told
    assert "not run: needs gcc (1 test)" in told
    assert told[-1].startswith("7 passed, 1 skipped, 3 errors")


def test_with_require_all_a_missing_tool_is_a_failure(tmp_path: Path) -> None:
    source = 'import pytest\n@pytest.mark.needs("gcc")\ndef test_it(): pass\n'
    result = run(tmp_path, source, REQUIRE_ALL="1")
    assert result.returncode == 1
    assert "needs gcc, which is not installed, and REQUIRE_ALL=1 is set" in result.stdout


def test_a_tool_that_nobody_looks_for_is_refused(tmp_path: Path) -> None:
    source = 'import pytest\n@pytest.mark.needs("sextant")\ndef test_it(): pass\n'
    result = run(tmp_path, source)
    assert result.returncode != 0
    assert "needs 'sextant'" in result.stdout + result.stderr
