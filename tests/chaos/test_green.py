"""Whole runs as `make chaos` makes them: light agents for the numbers, the real ones for the truth."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.chaos import checker
from tests.chaos.nemesis import Nemesis
from tests.chaos.run import Plan, on_several, run
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.several import SEVERAL
from tests.chaos.submitter import Mix

if TYPE_CHECKING:
    from tests.chaos.checker import Verdict

pytestmark = [pytest.mark.chaos, pytest.mark.needs("gcc"), pytest.mark.timeout(300)]


def must_be_green(plan: Plan) -> Verdict:
    """Run and look."""
    verdict = checker.check(asyncio.run(run(plan)))
    problems = [f"{c.name}: {problem}" for c in verdict.checks for problem in c.problems[:3]]
    assert verdict.green, problems
    return verdict


def test_every_kind_of_trouble_with_light_agents_loses_and_doubles_nothing() -> None:
    verdict = must_be_green(Plan(seed=1, duration=60.0))
    assert verdict.figures.photos > 500
    assert {"SIGKILL", "SIGSTOP past the lease", "Redis SIGKILL", "power cut", "network strike"} <= (
        verdict.figures.faults.keys()
    )


def test_every_end_is_delivered_to_a_web_hook_that_fails_now_and_then_and_to_one_that_was_dead() -> None:
    verdict = must_be_green(Plan(seed=4, duration=20.0, hooks=True))
    [notices] = [check for check in verdict.checks if check.name == "notices"]
    assert int(notices.looked_at.split()[0]) > 200


def test_the_real_agents_upload_each_picture_once() -> None:
    verdict = must_be_green(
        Plan(
            seed=2,
            duration=12.0,
            lease=2.0,
            real=True,
            kinds=("kills", "redis_kills", "outside"),
            calm=False,
            mix=Mix(die=0, refuse=0),
            ahead=60,
        )
    )
    assert verdict.figures.validated > 0


def test_the_real_agents_leave_one_whole_trace_per_photo_when_nobody_is_killed() -> None:
    must_be_green(
        Plan(
            seed=3,
            duration=4.0,
            lease=2.0,
            real=True,
            kinds=("zombies",),
            calm=False,
            mix=Mix(die=0, refuse=0),
            ahead=60,
        )
    )


@pytest.mark.parametrize("topology", SEVERAL)
def test_fail_overs_lose_nothing_that_was_waited_for_and_double_nothing(topology: str) -> None:
    plan = Plan(seed=7, duration=12.0, per_agent=1, calm=False)
    # a kill of agents beside each fail-over, and at least one move or cut
    verdict = must_be_green(
        on_several(plan, topology, wait_replicas=1, kinds=("fail_overs", "cuts", "kills"))
    )
    assert verdict.figures.photos > 40
    assert {"SIGKILL", "cut off"} <= verdict.figures.faults.keys()
    assert any(what.startswith("fail-over") for what in verdict.figures.faults)


def test_a_seed_repeats_its_schedule_and_a_minute_holds_every_kind_of_trouble() -> None:
    one, again, other = (schedule(seed, 60.0, lease=1.5, places=10) for seed in (5, 5, 6))
    assert one == again
    assert one.actions != other.actions
    assert {period.kind for period in one.periods} == {"calm", *KINDS}
    calm = sum(period.length for period in one.periods if period.kind == "calm")
    assert calm / one.duration == pytest.approx(0.25, abs=0.06)
    several = {kind for servers in SEVERAL.values() for kind in servers.kinds}
    more = schedule(5, 60.0, lease=1.5, places=10, kinds=tuple(several))
    assert all(hasattr(Nemesis, f"_{action.what}") for action in one.actions + more.actions)
