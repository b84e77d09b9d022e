"""A sample of the crash points (all: `python -m tests.crashpoints --all`), and bugs the checker must see."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from events import topology
from tests.crashpoints import series
from tests.crashpoints.coordinates import Coordinates
from tests.crashpoints.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_SECONDS_PER_AGENT = 7.0
_SAMPLE = 40
"""Per agent; what does not fit into the seconds is left out."""
_SEED = int(os.environ.get("CRASHPOINTS_SEED") or time.time())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("crashpoints"), slots=12, lease=1.0) as world:
        yield world


@pytest.mark.parametrize("agent", topology.AGENTS)
def test_wherever_a_process_fails_the_photo_is_handed_off_once(world: World, agent: str) -> None:
    runs = series.sample(series.all_runs(world, [agent]), _SAMPLE, _SEED)
    results = series.run_all(world, runs, seconds=_SECONDS_PER_AGENT)
    reached = sum(result.reached for result in results)
    assert reached > len(results) / 2, f"only {reached} of {len(results)} faults struck: is the trap set?"
    wrong = [result for result in results if result.wrong]
    assert not wrong, f"CRASHPOINTS_SEED={_SEED}\n" + "\n".join(
        f"python -m tests.crashpoints --at '{result.coordinates}'\n  " + "\n  ".join(result.wrong)
        for result in wrong
    )


@pytest.mark.parametrize(
    ("mutation", "call", "point", "fault"),
    [
        ("no_fence", "redis EVALSHA settle#1", "before", "stall"),
        ("output_first", "redis XADD#1", "after", "crash"),
        ("ack_first", "redis XADD#1", "before", "crash"),
        ("client_retries", "redis XADD#1", "no_reply", "cut"),
        ("throw_away_consumer", "redis XREADGROUP#1", "no_reply", "stop"),
    ],
)
def test_a_protocol_bug_does_not_go_unnoticed(
    world: World, mutation: str, call: str, point: str, fault: str
) -> None:
    run = Coordinates.parse(f"schema_extractor|{call}|{point}|{fault}")
    [healthy] = series.run_all(world, [run]) if "XADD" not in call else [None]
    assert healthy is None or not healthy.wrong
    [result] = series.run_all(world, [run], mutation=mutation, longest=4.0)
    assert result.reached
    assert result.wrong
