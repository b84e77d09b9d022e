"""The checker is checked: each bug, a mistake easily made, must turn it red; without one it stays green."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import pytest

from tests.chaos import bugs, checker
from tests.chaos.run import Plan, run
from tests.chaos.submitter import Mix

pytestmark = [pytest.mark.chaos, pytest.mark.needs("gcc"), pytest.mark.timeout(300)]

_ROUNDS: Final = 3
"""Runs at most: whether trouble meets the bug in a few seconds is a matter of luck on a busy machine."""
QUIET: Final = Mix(die=0, refuse=0, nonsense=0, given_up=0)
"""Only good photos: what goes wrong is the bug's doing."""


def plan(
    bug: str,
    kind: str,
    seconds: float = 4.0,
    *,
    mix: Mix = QUIET,
    lease: float = 1.5,
    hooks: bool = False,
) -> Plan:
    """A run in which one kind of trouble meets the bug."""
    return Plan(
        seed=11,
        duration=seconds,
        kinds=(kind,),
        calm=False,
        strikes=False,
        mix=mix,
        bug=bug,
        lease=lease,
        hooks=hooks,
        stuck_seconds=8.0,
    )


# bug → the run that meets it, and the checks of which one at least must be red
CASES: Final = {
    "ack_before_add": (plan("ack_before_add", "kills"), {"lost"}),
    "no_fence": (plan("no_fence", "zombies", 6.0), {"duplicated", "hand-offs once"}),
    "unchecked_claim": (plan("unchecked_claim", "calm"), {"the living keep theirs"}),
    "maxlen": (plan("maxlen", "kills", 3.0), {"lost"}),
    "delconsumer_at_exit": (plan("delconsumer_at_exit", "terms"), {"lost", "drained"}),
    "group_at_dollar": (plan("group_at_dollar", "calm", 2.0), {"lost", "drained"}),
    "suspects_together": (plan("suspects_together", "calm", 6.0, mix=Mix(die=60)), {"fates"}),
    "stillness_across_an_outage": (
        plan("stillness_across_an_outage", "long_outages", 8.0, lease=3.0),
        {"the living keep theirs"},
    ),
    "notice_apart": (plan("notice_apart", "kills", hooks=True), {"notices"}),
    "notice_renamed": (plan("notice_renamed", "calm", 2.0, hooks=True), {"notices"}),
    "client_retries": (plan("client_retries", "network", 6.0), {"duplicated", "hand-offs once"}),
    "synced_every_second": (plan("synced_every_second", "power_cuts"), {"lost"}),
    "torn_log_left": (plan("torn_log_left", "power_cuts", 10.0), {"duplicated", "hand-offs once"}),
}


@pytest.mark.parametrize("bug", [*bugs.PLANT, *bugs.ELSEWHERE])
def test_the_bug_turns_the_checker_red(bug: str) -> None:
    what, expected = CASES[bug]
    seen: list[str] = []
    for again in range(_ROUNDS):
        verdict = checker.check(asyncio.run(run(msgspec.structs.replace(what, seed=what.seed + again))))
        if expected & set(verdict.red):
            return
        seen += verdict.red
    pytest.fail(f"the checker did not see {bug} in {_ROUNDS} runs; red: {', '.join(seen) or 'nothing'}")


@pytest.mark.parametrize("kind", ["zombies", "long_outages", "power_cuts", "terms"])
def test_the_same_run_without_the_bug_is_green(kind: str) -> None:
    verdict = checker.check(asyncio.run(run(plan("", kind, 4.0))))
    problems = [problem for check in verdict.checks for problem in check.problems]
    assert verdict.green, problems[:10]
