"""Which system a command talks to: said where nobody chose it, and a wrong one is left alone."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from console import system
from console.running import claimed
from console.supervisor import Change
from console.up_state import UpState
from events.topology import AGENTS
from shared.operations import systems
from shared.settings import load, merged_environment
from tests.console.pipeline import KEYS, beats, dies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis import Redis as PlainRedis

    from sandbox.redis_server import Valkey
    from tests.console.conftest import Ran


def announced(redis_url: str, folder: Path, system_id: str) -> None:
    """What the agents of a system leave behind that keeps its photos in that folder."""

    async def announce() -> None:
        settings = load({"REDIS_URL": redis_url, "PHOTO_STORE_URL": str(folder), "SYSTEM_ID": system_id})
        async with Redis.from_url(redis_url, protocol=2) as redis:
            await systems.announce(redis, settings)

    asyncio.run(announce())


@pytest.mark.parametrize(
    "words",
    [
        ("pause", "photo_fetcher"),
        ("resume", "photo_fetcher"),
        ("dead", "discard", "--all", "--yes"),
        ("dead", "replay", "--all"),
        ("session", "close", "s1", "--expected", "3"),
        ("session", "forget", "s1", "--yes"),
        ("publish", "photo.jpg"),
        # it may be used for anything
        ("redis-cli", "PING"),
    ],
)
def test_what_changes_a_system_refuses_one_that_nobody_chose(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.delenv("PHOTO_STORE_URL")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    ran = erni(*words)
    assert ran.code == 2
    assert "no setting says which Redis is meant" in ran.err
    # not that `erni up` has to be started here, where there never was one
    assert "Either type the command in the folder of your `erni up`, or below it, or set" in " ".join(
        ran.err.split()
    )
    assert "set REDIS_URL=redis://localhost:6379/0" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_default_is_said_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".erni").mkdir()
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    system.load()
    assert capsys.readouterr().err == (
        "erni: Redis redis://localhost:6379/0 (the default, as REDIS_URL is not set and `erni up` does not"
        f" run in {tmp_path}), photo store ./.erni/store (the default, as PHOTO_STORE_URL is not set)\n"
    )


def test_a_folder_below_the_one_of_erni_up_finds_its_system(
    erni: Callable[..., Ran],
    client: PlainRedis,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.delenv("PHOTO_STORE_URL")
    (tmp_path / ".erni").mkdir()
    (tmp_path / ".erni" / "env").write_text(f"REDIS_URL={redis_url}\nPHOTO_STORE_URL={tmp_path}/store\n")
    (tmp_path / "photos" / "may").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "photos" / "may")
    ran = erni("pause", "photo_fetcher")
    assert ran.code == 0
    assert f"erni: Redis {redis_url} (from {tmp_path}/.erni/env), photo store {tmp_path}/store\n" in ran.err
    assert client.hdel(KEYS.paused, "photo_fetcher") == 1
    assert "REDIS_URL" not in merged_environment({}, running=False)


def test_a_redis_that_another_system_took_over_is_left_alone(
    erni: Callable[..., Ran],
    client: PlainRedis,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announced(redis_url, tmp_path / "store", "theirs")
    dies(client, "photo_fetcher", "schema.extracted")
    monkeypatch.setenv("SYSTEM_ID", "ours")
    ran = erni("dead", "discard", "--all", "--yes")
    assert ran.code == 1
    assert "belongs to another system (theirs) than the one that is meant (ours)" in ran.err
    assert client.xlen(KEYS.dead("photo_fetcher")) == 1


def test_photos_are_not_put_into_a_store_that_the_agents_do_not_read(
    erni: Callable[..., Ran], client: PlainRedis, redis_url: str, tmp_path: Path
) -> None:
    announced(redis_url, tmp_path / "elsewhere", "ours")
    beats(client, "photo_fetcher")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    ran = erni("publish", str(tmp_path / "photo.jpg"))
    assert ran.code == 1
    assert f"Set PHOTO_STORE_URL={tmp_path}/elsewhere" in ran.err
    assert client.xlen(KEYS.stream("photo.submitted")) == 0


def test_the_same_store_under_another_path_is_the_same_store(
    erni: Callable[..., Ran], client: PlainRedis, redis_url: str, tmp_path: Path
) -> None:
    announced(redis_url, tmp_path / "elsewhere", "ours")
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert erni("publish", str(tmp_path / "photo.jpg"), "--session", "s1").code == 0
    assert client.xlen(KEYS.stream("photo.submitted")) == 1


def test_a_frozen_redis_names_itself_within_five_seconds(
    erni: Callable[..., Ran], own_redis_server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", own_redis_server.url)
    monkeypatch.setattr("console.explain.PATIENCE", 0.5)
    os.kill(own_redis_server.pid, signal.SIGSTOP)
    try:
        ran = erni("status")
    finally:
        os.kill(own_redis_server.pid, signal.SIGCONT)
    assert ran.code == 1
    assert "takes connections and does not answer" in ran.err
    pid = own_redis_server.pid
    assert f"its process {pid} is stopped (SIGSTOP, or a debugger). Let it go on: kill -CONT {pid}" in ran.err


def test_a_system_that_is_starting_is_no_default_and_no_missing_agent(
    erni: Callable[..., Ran], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")
    (tmp_path / ".erni").mkdir()
    with claimed(tmp_path / ".erni" / "up.lock", "erni up"):
        ran = erni("status")
        assert ran.code == 1
        assert f"is starting in {tmp_path} and cannot be asked yet. Try again" in ran.err
        (tmp_path / ".erni" / "env").write_text(f"REDIS_URL={redis_url}\n")
        state = UpState(tmp_path / ".erni", ["redis", *AGENTS[:2], f"{AGENTS[2]}.1", *AGENTS[3:]])
        state.note(Change(name="redis", state="running", text=""))
        state.note(Change(name=AGENTS[0], state="failed", text=""))
        ran = erni("status", "--json")
        states = [agent["state"] for agent in ran.document["agents"]]
        assert (ran.code, states) == (1, ["missing", *["waiting"] * 4])
        problems = ran.document["problems"]
        assert "its log in .erni/logs say how it ended" in problems[0]
        assert problems[2] == (f"{AGENTS[2]}: `erni up` is starting its process. Wait for a moment")
        said = [
            one["sentence"] for one in erni("doctor", "--json").document["checks"] if one["part"] == "agents"
        ]
        assert said == problems
    # whoever was killed left its file behind
    assert "no process runs" in erni("status").out


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("doctor",),
        ("dead", "list"),
        ("session", "list"),
        ("session", "show", "s1"),
        ("photo", "list", "--session", "s1"),
        ("photo", "show", "a.jpg"),
        ("report", "s1"),
    ],
)
def test_looking_at_a_system_creates_nothing(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PHOTO_STORE_URL")
    monkeypatch.setenv("VISION_BACKEND", "openai")
    monkeypatch.setenv("VISION_URL", "http://127.0.0.1:1/v1")
    erni(*words)
    assert not list(tmp_path.iterdir())


def test_a_second_system_below_one_that_runs_has_to_be_asked_for(
    erni: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".erni").mkdir()
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    with claimed(tmp_path / ".erni" / "up.lock", "erni up"):
        ran = erni("up")
        assert ran.code == 1
        assert f"runs in {tmp_path}, and every erni command in this folder uses it." in ran.err
        assert "erni up --new" in ran.err
        assert not (tmp_path / "photos" / ".erni").exists()
        # asked for, it comes as far as this wrong setting
        monkeypatch.setenv("LANES", "0")
        assert "LANES" in erni("up", "--new").err


def test_the_advice_for_a_dead_redis_of_erni_up_is_no_circle(
    erni: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")
    (tmp_path / ".erni").mkdir()
    (tmp_path / ".erni" / "env").write_text("REDIS_URL=redis://127.0.0.1:1/0\n")
    assert "start `erni up` there again" in erni("status").err
    with claimed(tmp_path / ".erni" / "up.lock", "erni up"):
        said = erni("status").err
    assert "which starts it again when it ends" in said
    assert "stop `erni up` with Ctrl-C and start it again" in said
