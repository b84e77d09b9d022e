"""SharePoint, then the vision service, misbehave during a run: photos wait, and all get through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import scenario
from tests.end_to_end.system import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.system import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECONDS = 3


@pytest.fixture(autouse=True)
def _healed(system: System) -> Iterator[None]:
    yield
    system.heal()


@pytest.mark.parametrize("kind", ["503", "429", "reset", "slow"])
def test_an_outage_of_sharepoint_is_waited_for(system: System, kind: str) -> None:
    folder = system.photos / f"sharepoint-{kind}"
    names = scenario.pictures(folder, 8, seed=f"sharepoint-{kind}")
    system.erni("fault", "sharepoint", kind, "--for", f"{SECONDS}s")
    system.erni("publish", str(folder), "--session", f"sharepoint-{kind}")
    outcome = system.wait(f"sharepoint-{kind}")
    assert outcome.dead == []
    scenario.all_stored(system, outcome, names)


def test_the_only_photo_there_is_outlives_an_outage_longer_than_its_attempts(system: System) -> None:
    folder = system.photos / "alone"
    names = scenario.pictures(folder, 1, seed="alone")
    # each attempt starts with one call, and three attempts are all there are
    system.fault("sharepoint", kind="503", times=3)
    system.erni("publish", str(folder), "--session", "alone")
    outcome = system.wait("alone")
    assert outcome.dead == []
    scenario.all_stored(system, outcome, names)
    assert "breaker open" in system.log("schema_extractor") + system.log("sharepoint_uploader")


def test_answers_that_are_lost_after_the_effect_make_nothing_twice(system: System) -> None:
    folder = system.photos / "lost"
    names = scenario.pictures(folder, 8, seed="lost")
    for kind in ("reset", "garbage", "503"):
        system.fault("sharepoint", kind=kind, when="after", times=3, share=0.5)
    system.erni("publish", str(folder), "--session", "lost")
    outcome = system.wait("lost")
    assert outcome.dead == []
    scenario.all_stored(system, outcome, names)


def test_what_a_vision_service_does_on_bad_days_costs_no_photo(system: System) -> None:
    folder = system.photos / "vision"
    names = scenario.pictures(folder, 12, seed="vision")
    for kind in ("503", "reset", "garbage"):
        system.fault("vision", kind=kind, times=2)
    system.fault("vision", kind="429", times=2, retry_after=1)
    system.fault("vision", kind="slow", delay=0.5, times=3)
    system.erni("publish", str(folder), "--session", "vision")
    outcome = system.wait("vision")
    assert outcome.dead == []
    scenario.all_stored(system, outcome, names)


def test_a_photo_that_the_services_filter_refuses_is_one_dead_letter(system: System) -> None:
    folder = system.photos / "filtered"
    scenario.pictures(folder, 2, seed="filtered")
    system.fault("vision", kind="400", code="content_filter", times=1)
    system.erni("publish", str(folder), "--session", "filtered")
    outcome = system.wait("filtered")
    assert len(outcome.validated) == 1
    (dead,) = outcome.dead
    assert (dead.agent, dead.reason) == ("vision_analyzer", "permanent")
    assert "content filter does not take this photo" in dead.message


def test_a_spent_budget_postpones_and_calls_nobody(system: System) -> None:
    folder = system.photos / "budget"
    names = scenario.pictures(folder, 3, seed="budget")
    calls = system.vision_calls()
    system.end("vision_analyzer")
    # money for less than a single call
    system.start("vision_analyzer", VISION_PRICE_INPUT="100", VISION_BUDGET_SESSION="0.01")
    delayed = KEYS.delayed("vision_analyzer")
    try:
        system.erni("publish", str(folder), "--session", "budget")
        while system.redis.zcard(delayed) < len(names):
            system.redis.xread({KEYS.stream("photo.fetched"): "$"}, block=100)
        assert system.vision_calls() == calls
        assert system.redis.hget(KEYS.session("budget"), "postponed") == str(len(names)).encode()
        (soonest,) = system.redis.zrange(delayed, 0, 0, withscores=True)
        seconds, _ = system.redis.time()
        assert 3000 < soonest[1] / 1000 - seconds <= 3601  # the server told whole seconds
    finally:
        system.end("vision_analyzer")
        system.start("vision_analyzer")
    # an hour later, with more money
    system.redis.zadd(delayed, dict.fromkeys(system.redis.zrange(delayed, 0, -1), 0), xx=True)
    outcome = system.wait("budget")
    assert outcome.dead == []
    scenario.all_stored(system, outcome, names)
