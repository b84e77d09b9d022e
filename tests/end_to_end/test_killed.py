"""One agent's process is killed while photos are in flight; one started by hand finishes its work."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from events.topology import AGENTS
from tests.end_to_end import scenario
from tests.end_to_end.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PHOTOS = 20


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system in which a dead process is noticed after two seconds."""
    with System(tmp_path_factory.mktemp("fragile"), settings={"LEASE_SECONDS": "2"}) as system:
        yield system


@pytest.mark.parametrize("agent", AGENTS)
def test_a_hand_started_process_finishes_what_a_killed_one_had_in_hand(fragile: System, agent: str) -> None:
    folder = fragile.photos / agent
    names = scenario.pictures(folder, PHOTOS, seed=agent)
    # It sleeps while the photos come, so that it does not run ahead of us.
    fragile.processes[agent].send_signal(signal.SIGSTOP)
    try:
        fragile.erni("publish", str(folder), "--session", agent)
        scenario.stopped_with_work_in_hand(fragile, agent, PHOTOS)
    finally:
        fragile.end(agent, signal.SIGKILL)
        fragile.start(agent)
    outcome = fragile.wait(agent)
    assert outcome.dead == []
    scenario.all_stored(fragile, outcome, names)
