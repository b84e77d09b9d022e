"""Which system a command talks to: said where nobody chose it, and a wrong one is left alone."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from redis.asyncio import Redis
from rich.console import Console

from console import system
from console.output import Output
from console.running import claimed
from console.status_watch import watch
from console.supervisor import Change
from console.up_state import UpState
from events.topology import AGENTS
from shared import settings as settings_module
from shared.operations import joining
from shared.settings import Settings, load, merged_environment
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
            await joining.announce(redis, settings)

    asyncio.run(announce())


@pytest.fixture
def running(client: PlainRedis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's agents at the default address."""
    load_as_it_is = settings_module.load

    def load_with_somebody_there(*given: Any, **named: Any) -> Settings:
        settings = load_as_it_is(*given, **named)
        there = settings.redis_url == Settings().redis_url
        return msgspec.structs.replace(settings, redis_url=redis_url) if there else settings

    monkeypatch.setattr(settings_module, "load", load_with_somebody_there)
    for agent in AGENTS:
        beats(client, agent)
    monkeypatch.delenv("REDIS_URL")


def left_by_up(folder: Path, *, port: int) -> None:
    """What an `erni up` leaves in its folder when it has ended."""
    (folder / ".erni" / "ports").mkdir(parents=True)
    (folder / ".erni" / "ports" / "redis").write_text(f"{port}\n")


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
        "erni: Redis redis://localhost:6379/0 (the default, as REDIS_URL is not set), photo store"
        " ./.erni/store (the default, as PHOTO_STORE_URL is not set)\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "--json"),
        ("dead", "list"),
        ("session", "list"),
        ("photo", "list", "--session", "s1"),
        ("key", "list"),
        ("webhook", "list"),
        ("report", "s1"),
        ("gateway",),
        ("redis-cli", "PING"),
        ("pause", "photo_fetcher"),
        ("fault", "sharepoint", "503"),
    ],
)
def test_where_erni_up_has_ended_no_other_system_is_shown(
    erni: Callable[..., Ran],
    running: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
) -> None:
    left_by_up(tmp_path, port=7401)
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    ran = erni(*words)
    assert ran.code == 1
    assert (
        f"`erni up` does not run in {tmp_path} (its Redis was redis://127.0.0.1:7401/0). Start `erni up`"
        " there; to ask another system, set REDIS_URL"
    ) in ran.err
    assert "schema_extractor" not in ran.out


def test_an_erni_up_that_writes_its_address_nowhere_is_not_said_to_have_ended(
    erni: Callable[..., Ran], running: None, tmp_path: Path
) -> None:
    left_by_up(tmp_path, port=7401)
    # it has an address with a password, which stays in the shell that started it
    (tmp_path / ".erni" / "env").write_text("PHOTO_STORE_URL=/photos\n")
    with claimed(tmp_path / ".erni" / "up.lock", "erni up"):
        ran = erni("status")
    assert ran.code == 1
    assert f"runs in {tmp_path} with an address of Redis that it does not write down" in ran.err
    assert "Start `erni up`" not in ran.err


def test_the_doctor_of_a_system_that_has_ended_looks_at_no_other_redis(
    erni: Callable[..., Ran], running: None, tmp_path: Path
) -> None:
    left_by_up(tmp_path, port=7401)
    found = {one["part"]: one for one in erni("doctor", "--json").document["checks"]}
    assert found["redis"]["state"] == "failed"
    assert f"`erni up` does not run in {tmp_path}" in found["redis"]["sentence"]
    assert "agents" not in found


def test_an_address_that_was_chosen_wins_over_a_system_that_has_ended(
    erni: Callable[..., Ran],
    running: None,
    client: PlainRedis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    left_by_up(tmp_path, port=7401)
    monkeypatch.setenv("REDIS_URL", redis_url)
    assert erni("status").code == 0


async def test_a_watch_says_that_erni_up_has_ended_and_follows_the_next_one(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setattr("console.status_watch._SECONDS", 0.01)
    left_by_up(tmp_path, port=7401)
    (tmp_path / ".erni" / "env").write_text(f"REDIS_URL={redis_url}\n")
    shown = io.StringIO()
    output = Output(as_json=False)
    monkeypatch.setattr(output, "_console", Console(file=shown, force_terminal=True, width=300))
    watching = asyncio.create_task(watch(output, 600))

    async def says(what: str) -> None:
        shown.truncate(0)
        while what not in shown.getvalue():  # noqa: ASYNC110 - a screen sends no signal
            await asyncio.sleep(0.01)

    async with asyncio.timeout(20):
        await says("schema_extractor")
        (tmp_path / ".erni" / "env").unlink()
        await says("`erni up` does not run in")
        (tmp_path / ".erni" / "env").write_text(f"REDIS_URL={redis_url}\n")
        await says("schema_extractor")
    watching.cancel()
    await watching
    assert "redis://localhost:6379" not in shown.getvalue()


def test_a_demo_leaves_no_system_that_has_to_run(
    erni: Callable[..., Ran], running: None, tmp_path: Path
) -> None:
    (tmp_path / ".erni" / "demo").mkdir(parents=True)
    (tmp_path / ".erni" / "demo.lock").touch()
    assert erni("status").code == 0


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


def test_what_only_looks_does_not_show_the_system_that_took_over_either(
    erni: Callable[..., Ran],
    client: PlainRedis,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announced(redis_url, tmp_path / "store", "theirs")
    beats(client, "photo_fetcher")
    monkeypatch.setenv("SYSTEM_ID", "ours")
    for words in (("status",), ("dead", "list"), ("session", "list")):
        ran = erni(*words)
        assert (ran.code, ran.out) == (1, "")
        assert "belongs to another system (theirs) than the one that is meant (ours)" in ran.err
    said = [one["sentence"] for one in erni("doctor", "--json").document["checks"] if one["part"] == "redis"]
    assert len(said) == 1
    assert "belongs to another system (theirs)" in said[0]


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


def test_the_advice_for_a_dead_redis_on_a_full_disk_is_the_disk(
    erni: Callable[..., Ran],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nearly_no_room: Callable[[int], None],
) -> None:
    monkeypatch.delenv("REDIS_URL")
    (tmp_path / ".erni").mkdir()
    (tmp_path / ".erni" / "env").write_text("REDIS_URL=redis://127.0.0.1:1/0\n")
    nearly_no_room(0)
    with claimed(tmp_path / ".erni" / "up.lock", "erni up"):
        said = erni("status").err
    assert f"the disk of {tmp_path}/.erni is full: 0.0 MB of 40.0 MB are free. Free some space there" in said
    assert "start it again" not in said


def test_erni_up_refuses_a_full_disk_with_what_to_do(
    erni: Callable[..., Ran], tmp_path: Path, nearly_no_room: Callable[[int], None]
) -> None:
    nearly_no_room(0)
    ran = erni("up")
    assert ran.code == 1
    assert f"the disk of {tmp_path} is full: 0.0 MB of 40.0 MB are free. Free some space there" in ran.err
    assert not (tmp_path / ".erni").exists()


def test_erni_up_without_a_target_site_says_so_at_its_start(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("GRAPH_URL", "http://127.0.0.1:1/v1.0")
    monkeypatch.delenv("SHAREPOINT_SITE", raising=False)
    assert "erni: SHAREPOINT_SITE is not set: photos need a site" in erni("up").err
    monkeypatch.setenv("SHAREPOINT_SITE", "host:/sites/Name")
    assert "SHAREPOINT_SITE" not in erni("up").err


def test_no_report_is_made_from_a_store_that_the_agents_do_not_use(
    erni: Callable[..., Ran], client: PlainRedis, redis_url: str, tmp_path: Path
) -> None:
    announced(redis_url, tmp_path / "elsewhere", "ours")
    dies(client, "photo_fetcher", "schema.extracted", session="s1")
    ran = erni("report", "s1")
    assert (ran.code, ran.out) == (1, "")
    assert f"the photo store {tmp_path}/store is not the one that the agents on {redis_url} use" in ran.err
    assert f"Set PHOTO_STORE_URL={tmp_path}/elsewhere" in ran.err
    assert not list((tmp_path / "store").rglob("*.html"))


def test_the_command_line_of_redis_says_in_our_words_that_redis_is_away(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr("os.execve", lambda *_: pytest.fail("it became the program"))
    ran = erni("redis-cli", "PING")
    assert ran.code == 1
    assert "Redis at redis://127.0.0.1:1/0 does not answer" in ran.err
