"""`erni doctor --size`: what a number of photos needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from console import sizing as measured
from events import topology
from shared.operations import sizing
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from tests.console.conftest import Ran

COSTS = measured.costs_of(1.0, 15e-6, 2_300.0, {}, local_model=False)
"""Those of docs/scaling.md."""


def sized(photos_a_day: float, costs: sizing.Costs = COSTS) -> sizing.Size:
    return sizing.size(photos_a_day, costs, concurrency=8, record_hours=48)


@pytest.mark.parametrize(
    ("text", "daily"),
    [
        ("500000/day", 500_000),
        ("500'000 / day", 500_000),
        ("2000/hour", 10_000),
        ("1_000_000/year", 4_000),
        ("0.5/day", 0.5),
    ],
)
def test_numbers_as_people_write_them(text: str, daily: float) -> None:
    assert sizing.photos_a_day(text) == pytest.approx(daily)


@pytest.mark.parametrize(
    "text", ["", "500", "500/week", "-5/day", "0/day", "1e5/day", "1..2/day", "9" * 14 + "/day"]
)
def test_what_is_no_number_of_photos_is_said(erni: Callable[..., Ran], text: str) -> None:
    ran = erni("doctor", f"--size={text}")
    assert ran.code == 2
    assert "write 500000/day, 2000/hour or 1000000/year" in " ".join(ran.err.split())


def test_processes_grow_with_the_photos_and_never_are_none() -> None:
    assert {one.processes for one in sized(1).agents} == {1}
    for daily in (10_000.0, 1e6, 1e8):
        small, large = sized(daily), sized(10 * daily)
        for one, more in zip(small.agents, large.agents, strict=True):
            assert one.processes <= more.processes <= 10 * one.processes
            # what they do together is enough, and one less would not be
            assert large.per_second <= more.processes * more.per_process
            assert more.processes == 1 or large.per_second > (more.processes - 1) * more.per_process
        assert large.redis_cores == pytest.approx(10 * small.redis_cores)


def test_a_process_is_limited_by_its_slots_or_by_its_cpu() -> None:
    by_agent = {one.agent: one for one in sized(500_000).agents}
    assert by_agent["vision_analyzer"].because == "slots"
    fast = measured.costs_of(1.0, 15e-6, 2_300.0, dict.fromkeys(topology.AGENTS, 0.001), local_model=True)
    assert {one.because for one in sized(500_000, fast).agents} == {"cpu"}


def test_what_is_at_its_limit_first() -> None:
    assert "SharePoint" in sizing.first_limit(sized(1_000), 1_000, cores=8)
    assert "this machine" in sizing.first_limit(sized(1_000), 1_000, cores=1 / 100)
    slow = measured.costs_of(1.0, 1.0, 2_300.0, {}, local_model=False)
    assert "Redis" in sizing.first_limit(sized(1_000, slow), 1_000, cores=8)


def test_it_measures_and_leaves_nothing_behind(erni: Callable[..., Ran], client: Redis) -> None:
    ran = erni("doctor", "--size", "500000/day")
    assert ran.code == 0, ran.err
    assert [agent for agent in topology.AGENTS if agent in ran.out] == list(topology.AGENTS)
    assert "28 a second" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 90
    assert client.keys("*") == []


def test_without_redis_it_says_so(erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    ran = erni("doctor", "--size", "10/day")
    assert ran.code != 0
    assert "REDIS_URL" in ran.err
    assert "Traceback" not in ran.err


def table() -> list[str]:
    """The table of docs/scaling.md."""
    rows = []
    for exponent in range(4, 10):
        daily = 10**exponent / sizing.DAYS_A_YEAR
        size = sized(daily)
        processes = " ".join(str(one.processes) for one in size.agents)
        rows.append(
            f"| 10^{exponent} | {daily:,.0f} | {size.per_second:.3g} | {processes} |"
            f" {max(size.cores, 0.1):.1f} | {size.redis_cores:.1%} |"
            f" {max(size.maxmemory / 1e9, 0.1):,.1f} GB |"
            f" {max(1, size.units_per_minute):,.0f} |"
        )
    return rows


def test_the_table_of_the_page_is_computed() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert re.findall(r"^\| 10\^.*$", page, re.MULTILINE) == table()
