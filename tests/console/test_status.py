"""`erni status`: what stands where, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events import topology
from tests.console.pipeline import KEYS, beats, dies

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

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


def test_each_agents_numbers_are_told(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "vision_analyzer", "vm-2-b", in_hand=3)
    for _ in range(4):
        running.xadd(KEYS.stream("photo.fetched"), {"data": "{}"})
    dies(running, "vision_analyzer", "photo.fetched")
    agent = erni("status", "--json").document["agents"][2]
    assert len(agent["processes"]) == 2
    assert (agent["in_hand"], agent["backlog"], agent["dead"], agent["postponed"]) == (3, 4, 1, 0)
    text = erni("status").out
    row = next(line for line in text.splitlines() if "vision_analyzer" in line)
    assert row.split()[:4] == ["vision_analyzer", "2", "3", "4"]
    assert row.split()[-2:] == ["1", "ok"]


def test_it_fits_80_columns(
    erni: Callable[..., Ran], running: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    running.hset(KEYS.paused, "vision_analyzer", "1")
    text = erni("status").out
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    running.hdel(KEYS.paused, "vision_analyzer")


def test_a_missing_agent_is_wrong(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "photo_fetcher", ago=60)
    ran = erni("status")
    assert ran.code == 1
    assert "photo_fetcher: no process runs. Start one: python -m consumers photo_fetcher" in ran.out


def test_an_open_breaker_is_wrong(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "sharepoint_uploader", breakers_open=["sharepoint"])
    ran = erni("status", "--json")
    assert ran.code == 1
    assert "sharepoint_uploader: sharepoint fails, or throttles us" in ran.document["problems"][0]


def test_an_unwell_process_is_wrong(erni: Callable[..., Ran], running: Redis) -> None:
    beats(running, "photo_fetcher", unwell="No space left on device")
    ran = erni("status", "--json")
    assert ran.code == 1
    assert ran.document["problems"] == [
        "photo_fetcher: the process vm-1-a is unwell: No space left on device"
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
    assert erni("status", "--max-age", "52000w").code == 0
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
