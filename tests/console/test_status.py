"""`erni status`: what stands where, and what is wrong."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from rich.console import Console

from console.output import Output
from console.running import claimed
from console.status_watch import watch
from console.supervisor import Change
from console.up_state import UpState
from events import topology
from shared.retry.call_times import SlowCalls
from tests.console.pipeline import KEYS, beats, dies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.redis_server import Valkey
    from tests.console.conftest import Ran


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks at once: nothing moves in these tests."""
    monkeypatch.setattr("console.commands.status._BEAT", 0.0)


@pytest.fixture
def running(client: Redis) -> Redis:
    for agent in topology.AGENTS:
        beats(client, agent)
    return client


def test_all_is_well_when_every_agent_has_a_process(erni: Callable[..., Ran], running: Redis) -> None:
    ran = erni("status", "--json")
    assert ran.code == 0
    assert [agent["agent"] for agent in ran.document["agents"]] == list(topology.AGENTS)
    assert ran.document["problems"] == []


def test_in_flight_and_backlog_are_counted_apart(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "vision_analyzer", "vm-2-b", in_hand=3)
    for _ in range(4):
        running.xadd(KEYS.stream("photo.fetched"), {"data": "{}"})
    running.xgroup_create(KEYS.stream("photo.fetched"), "vision_analyzer", "0")
    running.xreadgroup("vision_analyzer", "vm-2-b", {KEYS.stream("photo.fetched"): ">"}, count=3)
    dies(running, "vision_analyzer", "photo.fetched")
    agent = erni("status", "--json").document["agents"][2]
    assert len(agent["processes"]) == 2
    assert (agent["in_hand"], agent["backlog"], agent["dead"], agent["postponed"]) == (3, 4, 1, 0)
    text = erni("status").out
    row = next(line for line in text.splitlines() if "vision_analyzer" in line)
    assert row.split()[:4] == ["vision_analyzer", "2", "3", "1"]
    assert row.split()[-2:] == ["1", "ok"]
    assert "why: erni dead list" in text
    # the public streams keep the event of a failure that was replayed: it is no number of failed photos
    assert re.search(r"^events kept: photo.validated \d+, photo.failed \d+, ", text, re.MULTILINE)


def test_it_fits_80_columns(
    erni: Callable[..., Ran], running: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    running.hset(KEYS.paused, "vision_analyzer", "1")
    running.zadd(KEYS.delayed("vision_analyzer"), {str(number): 1e12 for number in range(12_345)})
    text = erni("status").out
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith("vision_analyzer"))
    assert row.split()[-3:] == ["12k", "·", "paused"]
    running.delete(KEYS.delayed("vision_analyzer"))
    running.hdel(KEYS.paused, "vision_analyzer")


def test_a_full_disk_of_the_photo_store_is_wrong_before_a_photo_meets_it(
    erni: Callable[..., Ran], running: Redis, tmp_path: Path, nearly_no_room: Callable[[int], None]
) -> None:
    (tmp_path / "store").mkdir()
    nearly_no_room(0)
    ran = erni("status", "--json")
    assert ran.code == 1
    assert ran.document["problems"] == [
        (
            f"the disk of {tmp_path}/store is full: 0.0 MB of 40.0 MB are free. Free some space there, or"
            " move the folder to a larger disk. Photos wait meanwhile, none is lost, and all goes on by"
            " itself"
        )
    ]


def test_a_missing_agent_is_wrong(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "photo_fetcher", ago=60)
    ran = erni("status")
    assert ran.code == 1
    assert "photo_fetcher: no process runs. Start one: python -m consumers photo_fetcher" in ran.out


def test_an_open_breaker_is_wrong(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "sharepoint_uploader", breakers_open=["sharepoint"])
    ran = erni("status", "--json")
    assert ran.code == 1
    assert "sharepoint_uploader: SharePoint cannot be used now" in ran.document["problems"][0]


def test_a_library_that_refuses_every_photo_is_named_with_its_answer(
    erni: Callable[..., Ran], running: Redis
) -> None:
    library = "sharepoint/sites/Bau/Fotos"
    why = "SharePoint answered 403: grant the app write access"
    beats(
        running, "sharepoint_uploader", breakers_open=[library], breaker_reasons={library: why}, recent="xxxx"
    )
    dies(running, "sharepoint_uploader", "photo.analyzed")
    ran = erni("status", "--json")
    assert ran.code == 1
    assert ran.document["agents"][3]["state"] == "waiting"
    [problem] = ran.document["problems"]
    assert problem.startswith(
        f"sharepoint_uploader: every photo for sites/Bau/Fotos fails ({why}). Its photos"
    )


def test_processes_with_the_same_trouble_share_one_sentence(erni: Callable[..., Ran], running: Redis) -> None:
    for consumer in ("vm-1-a", "vm-1-b"):
        beats(running, "vision_analyzer", consumer, unwell="the disk is full")
    problems = erni("status", "--json").document["problems"]
    assert problems == ["vision_analyzer: 2 processes are unhealthy: the disk is full"]
    running.hdel(KEYS.processes("vision_analyzer"), "vm-1-b")


def test_an_agent_whose_entries_die_is_failing_and_says_why(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "sharepoint_uploader", recent="....xxxx", done=8)
    dies(running, "sharepoint_uploader", "photo.analyzed", message="SharePoint refused (HTTP 403)")
    ran = erni("status", "--json")
    assert ran.code == 1
    assert ran.document["agents"][3]["state"] == "failing"
    assert ran.document["problems"] == [
        (
            "sharepoint_uploader: 4 of the last 8 entries died: SharePoint refused (HTTP 403). Look at them:"
            " erni dead list --agent sharepoint_uploader"
        )
    ]


@pytest.mark.parametrize(("messages", "state"), [(["one"] * 5, "failing"), (["one"] * 4 + ["two"], "ok")])
def test_five_deaths_in_a_row_of_one_cause_are_failing_whatever_went_well_before(
    erni: Callable[..., Ran], running: Redis, messages: list[str], state: str
) -> None:
    beats(running, "sharepoint_uploader", recent="............xxxxx", done=12)
    for message in messages:
        dies(running, "sharepoint_uploader", "photo.analyzed", message=message)
    ran = erni("status", "--json")
    assert (ran.document["agents"][3]["state"], ran.code) == (state, state == "failing")
    if state == "failing":
        assert ran.document["problems"][0].startswith(
            "sharepoint_uploader: the last 5 entries died of the same cause: one. Look at them"
        )


def test_three_deaths_after_twelve_good_entries_are_photos_and_no_failing_agent(
    erni: Callable[..., Ran], running: Redis
) -> None:
    beats(running, "sharepoint_uploader", recent="............xxx", done=12)
    for _ in range(3):
        dies(running, "sharepoint_uploader", "photo.analyzed")
    assert erni("status", "--json").document["agents"][3]["state"] == "ok"


def test_an_agent_that_works_again_is_not_failing_any_more(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "sharepoint_uploader", recent="xxxxxxxx...", done=3)
    dies(running, "sharepoint_uploader", "photo.analyzed")
    ran = erni("status", "--json")
    assert ran.code == 0
    assert ran.document["agents"][3]["state"] == "ok"


def test_a_few_bad_photos_among_many_are_no_failing_agent(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "photo_fetcher", recent="..x..x..x...", done=12)
    dies(running, "photo_fetcher", "schema.extracted")
    ran = erni("status", "--json")
    assert ran.code == 0
    assert ran.document["agents"][1]["state"] == "ok"


def test_a_killed_process_does_not_count_as_running(erni: Callable[..., Ran], running: Redis) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    beats(running, "vision_analyzer", "vm-2-b", ago=4.0, pid=gone.pid)
    ran = erni("status", "--json")
    assert ran.code == 0
    assert len(ran.document["agents"][2]["processes"]) == 1
    assert f"vision_analyzer: process {gone.pid} was killed (no heartbeat for " in " ".join(
        erni("status").out.split()
    )
    running.hdel(KEYS.processes("vision_analyzer"), "vm-1-a")
    ran = erni("status", "--json")
    assert (ran.code, ran.document["agents"][2]["state"]) == (1, "missing")


def test_a_stopped_process_is_frozen_and_named_with_its_remedy(
    erni: Callable[..., Ran], running: Redis
) -> None:
    words = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)", "consumers"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            # within five seconds, though the lease is not over
            beats(running, "vision_analyzer", ago=4, pid=process.pid)
            ran = erni("status", "--json")
        finally:
            process.kill()
    assert ran.code == 1
    assert ran.document["agents"][2]["state"] == "frozen"
    assert f"kill -CONT {process.pid}" in ran.document["problems"][0]
    assert "no heartbeat for" in ran.document["problems"][0]


def test_a_frozen_gateway_is_named_with_its_remedy(
    erni: Callable[..., Ran], running: Redis, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / ".erni").mkdir()
    (tmp_path / ".erni" / "env").write_text(f"REDIS_URL={redis_url}\n")
    words = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]
    with (
        claimed(tmp_path / ".erni" / "up.lock", "erni up"),
        subprocess.Popen(words, stdout=subprocess.PIPE) as process,
    ):
        try:
            assert process.stdout is not None
            process.stdout.readline()
            state = UpState(tmp_path / ".erni", ["gateway"])
            state.note(Change(name="gateway", state="running", text="ready", pid=process.pid))
            assert erni("status").code == 0
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            ran = erni("status", "--json")
            checks = erni("doctor", "--json").document["checks"]
        finally:
            process.kill()
    said = (
        f"gateway: process {process.pid} is stopped by SIGSTOP or a debugger, so that the web console and"
        f" publishing over HTTP do not answer. Let it go on: kill -CONT {process.pid}"
    )
    assert (ran.code, ran.document["problems"]) == (1, [said])
    assert [one["sentence"] for one in checks if one["part"] == "gateway"] == [said]


def test_what_is_postponed_says_until_when(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "sharepoint_uploader", breakers_open=["sharepoint"])
    running.zadd(KEYS.delayed("sharepoint_uploader"), {"one": 1_795_856_400_000, "two": 1_795_856_460_000})
    ran = erni("status", "--json")
    assert ran.document["agents"][3]["state"] == "waiting"
    assert ran.document["problems"][0].endswith("2 entries are postponed, the first until 09:00:00Z")
    running.delete(KEYS.delayed("sharepoint_uploader"))


def test_a_slow_part_is_said_and_is_no_failure(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "sharepoint_uploader", seconds_now=1.1, seconds_usual=0.06)
    slow = "1.1s an entry where 60ms is usual; SharePoint or this machine answers slowly"
    ran = erni("status", "--json")
    assert ran.code == 0
    assert ran.document["notes"] == [f"sharepoint_uploader: slow: {slow}"]


def test_a_part_whose_calls_are_slow_is_named_with_both_durations(
    erni: Callable[..., Ran], running: Redis
) -> None:
    calls = {"sharepoint": SlowCalls(method="GET", seconds_now=1.02, seconds_usual=0.05)}
    beats(running, "sharepoint_uploader", slow_parts=calls, seconds_now=4.1, seconds_usual=0.2)
    ran = erni("status", "--json")
    assert (ran.code, ran.document["agents"][3]["state"]) == (0, "slow")
    assert ran.document["notes"] == [
        (
            "sharepoint_uploader: SharePoint answers slowly: a call (GET) takes 1.0s, usually 50ms. Photos go"
            " on, more slowly"
        )
    ]


def test_a_part_that_does_not_answer_is_wrong_and_not_called_slow(
    erni: Callable[..., Ran], running: Redis
) -> None:
    calls = {"sharepoint": SlowCalls(method="GET", seconds_now=7.02, seconds_usual=0.05, answers=False)}
    beats(running, "sharepoint_uploader", slow_parts=calls)
    ran = erni("status", "--json")
    assert (ran.code, ran.document["agents"][3]["state"]) == (1, "waiting")
    assert ran.document["problems"] == [
        (
            "sharepoint_uploader: SharePoint does not answer: a call (GET) has waited for 7.0s, usually it"
            " takes 50ms. Photos wait, none is lost; the agent tries again by itself"
        )
    ]
    # when the breaker opens, its reason says more
    beats(
        running,
        "sharepoint_uploader",
        slow_parts=calls,
        breakers_open=["sharepoint"],
        breaker_reasons={"sharepoint": "no answer"},
    )
    ran = erni("status", "--json")
    assert len(ran.document["problems"]) == 1
    assert "SharePoint cannot be used now (no answer)" in ran.document["problems"][0]
    assert ran.document["notes"] == []


def test_a_pause_is_an_exit_code_of_one(erni: Callable[..., Ran], running: Redis) -> None:
    erni("pause", "photo_fetcher")
    ran = erni("status", "--json")
    assert ran.code == 1
    assert ran.document["agents"][1]["state"] == "paused"
    assert "erni resume photo_fetcher" in ran.document["problems"][0]
    erni("resume", "photo_fetcher")


async def test_a_watch_follows_a_redis_that_moves(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("console.status_watch._SECONDS", 0.01)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("REDIS_URL", raising=False)
    (tmp_path / ".erni").mkdir()
    (tmp_path / ".erni" / "env").write_text("REDIS_URL=redis://127.0.0.1:1/0\n")
    shown = io.StringIO()
    output = Output(as_json=False)
    monkeypatch.setattr(output, "_console", Console(file=shown, force_terminal=True, width=200))
    watching = asyncio.create_task(watch(output, 600))
    async with asyncio.timeout(20):
        while "does not answer" not in shown.getvalue():  # noqa: ASYNC110 - a screen sends no signal
            await asyncio.sleep(0.01)
        (tmp_path / ".erni" / "env").write_text(f"REDIS_URL={redis_url}\n")
        while f"Redis moved from redis://127.0.0.1:1/0 to {redis_url}" not in shown.getvalue():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    watching.cancel()
    assert await watching == 1


def test_an_unhealthy_process_is_wrong(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "photo_fetcher", unwell="No space left on device")
    ran = erni("status", "--json")
    assert ran.code == 1
    assert ran.document["problems"] == [
        "photo_fetcher: the process vm-1-a is unhealthy: No space left on device"
    ]


def test_an_old_backlog_is_wrong_and_a_pause_is_named_as_its_cause(
    erni: Callable[..., Ran], running: Redis
) -> None:
    running.xadd(KEYS.stream("photo.submitted"), {"data": "{}"}, id="1000-0")
    assert erni("pause", "schema_extractor").code == 0
    ran = erni("status", "--json")
    assert ran.code == 1
    assert "the oldest entry has waited" in ran.document["problems"][0]
    assert "erni resume schema_extractor" in ran.document["problems"][0]
    assert "waited" not in erni("status", "--max-age", "52000w").out
    assert erni("resume", "schema_extractor", "--json").document["was_paused"]
    assert erni("resume", "schema_extractor").out == "schema_extractor was not paused\n"


def test_the_rate_is_what_was_done_between_two_looks(
    erni: Callable[..., Ran], running: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from console.commands import status

    look, looks = status._look, 0

    async def working(*arguments: object) -> object:
        nonlocal looks
        looks += 1
        beats(running, "photo_fetcher", done=100 * looks)
        return await look(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(status, "_look", working)
    agents = erni("status", "--json").document["agents"]
    assert agents[1]["rate_per_second"] > 0
    assert agents[0]["rate_per_second"] == 0


def test_watching_and_json_exclude_each_other(erni: Callable[..., Ran]) -> None:
    ran = erni("status", "--watch", "--json")
    assert ran.code == 2
    assert "JSON is one document" in ran.document["error"]


def test_a_redis_full_of_dead_letters_says_so_and_what_fills_it(
    erni: Callable[..., Ran], own_redis_server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", own_redis_server.url)
    with Redis.from_url(own_redis_server.url, protocol=2) as client:
        for agent in topology.AGENTS:
            beats(client, agent)
        for _ in range(50):
            dies(client, "photo_fetcher", "schema.extracted", fields={"data": os.urandom(20_000).hex()})
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1000)
    ran = erni("status", "--json")
    assert ran.code == 1
    assert (
        "and at the limit publishing is refused; the dead letters of photo_fetcher take about"
        in (ran.document["problems"][-1])
    )
    assert "erni dead discard --for-good" in ran.document["problems"][-1]
    checks = erni("doctor", "--json").document["checks"]
    assert any("publishing is refused" in check["sentence"] for check in checks if check["state"] == "failed")
