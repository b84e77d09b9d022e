"""The first second of a process: signals, a store that cannot be opened, a user without a home."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from redis import Redis

from events import topology
from events.keys import all_lanes
from shared.photo_store import BlobStore, StoreUnhealthyError
from shared.retry.classify import Kind, classify
from shared.settings import Settings, SettingsError, cache_folder, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
AGENT: Final = ("consumers", "photo_fetcher")
READING: Final = "agent reads"
"""What an agent logs once it reads."""


def run(*words: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "imported"), [(AGENT, "structlog"), (("console.main", "gateway"), "aiohttp")]
)
def test_a_signal_during_the_imports_ends_the_process_even_as_the_first_of_a_container(
    words: tuple[str, ...], imported: str, tmp_path: Path
) -> None:
    # Without a handler it would be ended by the signal here, and not at all where it is process 1.
    (tmp_path / f"{imported}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)\n"
    )
    ended = run(*words, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert ended.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("url", ["file:///proc/nix", "foo://x"])
def test_a_store_that_cannot_be_opened_is_one_sentence(url: str) -> None:
    ended = run(*AGENT, PHOTO_STORE_URL=url)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"photo_fetcher does not start: the photo store {url} cannot be used (")
    with pytest.raises(StoreUnhealthyError) as raised:
        BlobStore(url)
    assert classify(raised.value) is Kind.UNHEALTHY


@pytest.mark.parametrize(
    ("agent", "variables", "said"),
    [
        ("photo_fetcher", {"PHOTO_STORE_URL": "azure://photos"}, "AZURE_STORAGE_ACCOUNT_NAME"),
        ("sharepoint_uploader", {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"}, "AZURE_CLIENT_SECRET"),
        ("schema_extractor", {"AZURE_CREDENTIAL": "workload"}, "AZURE_TENANT_ID and AZURE_CLIENT_ID"),
    ],
)
def test_a_setting_that_is_missing_is_one_sentence_that_names_it(
    agent: str, variables: dict[str, str], said: str, redis_url: str, tmp_path: Path
) -> None:
    there = {"PHOTO_STORE_URL": str(tmp_path / "store"), "REDIS_URL": redis_url, "ENABLE_TRACING": "false"}
    ended = run("consumers", agent, folder=ROOT, **{"LOG_LEVEL": "error"} | there | variables)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{agent} does not start: ")
    assert said in line


def test_a_user_without_a_home_is_told_to_name_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(SettingsError, match="this user has no home folder; name a folder"):
        cache_folder(Settings())
    assert cache_folder(Settings(cache_dir="/var/cache/erni")) == Path("/var/cache/erni")


def test_a_value_in_env_is_taken_literally(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('REDIS_PASSWORD=a${HOME}b$c\nAZURE_CLIENT_SECRET="x${NIX}y"\n')
    settings = load({}, folder=tmp_path)
    assert str(settings.redis_password) == "a${HOME}b$c"
    assert str(settings.azure_client_secret) == "x${NIX}y"


def test_what_is_stored_is_for_its_user_alone(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    store = tmp_path / "store"
    words = ("console.main", "publish", "a.jpg", "--session", "s1")
    variables = {"REDIS_URL": redis_url, "PHOTO_STORE_URL": f"file://{store}", "PYTHONPATH": str(ROOT)}
    ended = run(*words, folder=tmp_path, **variables)
    assert ended.returncode == 0, ended.stderr
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (store, *store.rglob("*"))}
    assert modes == {True: 0o700, False: 0o600}


def test_output_that_is_not_utf8_is_no_traceback(tmp_path: Path) -> None:
    ended = run(
        "console.main",
        "publish",
        "Küsnacht.jpg",
        folder=tmp_path,
        PYTHONIOENCODING="ascii",
        PYTHONPATH=str(ROOT),
    )
    assert "Traceback" not in ended.stderr
    assert "there is no such file" in ended.stderr


# --- whose photos an agent reads ----------------------------------------------------------------------------


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2, decode_responses=True) as found:
        yield found


@contextlib.contextmanager
def started(folder: Path, *agents: str, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Agents as somebody starts them by hand in a folder: without settings but those that are given."""
    own = ("PHOTO_STORE_URL", "SYSTEM_ID")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"PYTHONPATH": str(ROOT), "METRICS_PORT": "0", "ENABLE_TRACING": "0"} | variables
    environment |= {"ALLOW_VOLATILE_REDIS": "1", "LOG_FORMAT": "json"}
    environment |= {f"AZURE_{name}": "none" for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")}
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as ends:
        processes = []
        for agent in agents:
            process = subprocess.Popen(
                [sys.executable, "-m", "consumers", agent],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            ends.callback(process.communicate, timeout=60)
            ends.callback(process.terminate)
            processes.append(process)
        yield processes


def outcome(process: subprocess.Popen[str]) -> str:
    """The line with which an agent reads, or else all that it said until it ended."""
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        if READING in line:
            return READING
        said.append(line)
    return "".join(said)


def marks(store: Path) -> list[str]:
    return [path.name for path in store.glob("systems/*")]


def test_an_agent_in_a_strange_folder_does_not_read_the_photos_of_others(
    tmp_path: Path, redis_url: str, client: Redis
) -> None:
    ours, strange = tmp_path / "ours", tmp_path / "strange"
    store = str(ours / "photos")
    with started(ours, "photo_fetcher", REDIS_URL=redis_url, PHOTO_STORE_URL=store) as (agent,):
        assert outcome(agent) == READING
        for given, address in (
            ({}, strange / ".erni" / "store"),
            ({"PHOTO_STORE_URL": str(tmp_path / "other")}, tmp_path / "other"),
        ):
            with started(strange, "schema_extractor", REDIS_URL=redis_url, **given) as (stranger,):
                assert outcome(stranger) == (
                    f"schema_extractor does not start: the photo store {address} is not the one that the"
                    f" agents on {redis_url} use, {store}: nothing was read. Set PHOTO_STORE_URL={store} to"
                    " join them, or REDIS_URL to a Redis of your own\n"
                )
                assert stranger.wait() == 1
            assert marks(address) == []
            assert client.exists(all_lanes(1)[0].processes("schema_extractor")) == 0
    # the default store is nobody's choice, even while the others do not run
    with started(strange, "schema_extractor", REDIS_URL=redis_url) as (stranger,):
        assert "is not the one that the agents on" in outcome(stranger)
    assert client.hget("erni:system", "store") == store


def test_an_agent_that_means_another_system_does_not_read(
    tmp_path: Path, redis_url: str, client: Redis
) -> None:
    client.hset("erni:system", mapping={"id": "theirs", "store": str(tmp_path / "photos")})
    given = {"REDIS_URL": redis_url, "PHOTO_STORE_URL": str(tmp_path / "photos"), "SYSTEM_ID": "ours"}
    with started(tmp_path, "schema_extractor", **given) as (agent,):
        assert (
            "belongs to another system (theirs) than the one that is meant (ours): nothing was read"
            in outcome(agent)
        )
        assert agent.wait() == 1
    assert marks(tmp_path / "photos") == []


def test_all_agents_of_a_new_system_start_at_once_and_wherever_its_store_is_mounted(
    tmp_path: Path, redis_url: str, client: Redis
) -> None:
    agents = [agent for agent in topology.CONSUMERS if agent != "vision_analyzer"]
    with started(tmp_path / "a", *agents, REDIS_URL=redis_url) as processes:
        assert [outcome(process) for process in processes] == [READING] * len(agents)
        (tmp_path / "mounted").symlink_to(tmp_path / "a" / ".erni" / "store")
        given = {"REDIS_URL": redis_url, "PHOTO_STORE_URL": str(tmp_path / "mounted")}
        with started(tmp_path / "b", "photo_fetcher", **given) as (agent,):
            assert outcome(agent) == READING
    assert marks(tmp_path / "mounted") == [client.hget("erni:system", "id")]


def test_a_store_moves_agent_by_agent_once_it_is_copied_and_without_a_copy_while_none_runs(
    tmp_path: Path, redis_url: str
) -> None:
    old, new, empty = tmp_path / "old", tmp_path / "new", tmp_path / "empty"
    with started(tmp_path, "photo_fetcher", REDIS_URL=redis_url, PHOTO_STORE_URL=str(old)) as (agent,):
        assert outcome(agent) == READING
        shutil.copytree(old, new)
        with started(tmp_path, "photo_fetcher", REDIS_URL=redis_url, PHOTO_STORE_URL=str(new)) as (second,):
            assert outcome(second) == READING
    with started(tmp_path, "photo_fetcher", REDIS_URL=redis_url, PHOTO_STORE_URL=str(empty)) as (agent,):
        assert outcome(agent) == READING
    assert marks(empty) == marks(old)
