"""Many runs at once: most of a run is waiting for a lease to pass, so several share the processors."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from tests.crashpoints.coordinates import TAKEN, Coordinates, every
from tests.crashpoints.slot import LONGEST, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.crashpoints.coordinates import Call
    from tests.crashpoints.slot import Result
    from tests.crashpoints.world import World


def calls_of(world: World, agent: str, *, mutation: str = "") -> tuple[Call, ...]:
    """The calls of an agent, from runs in which nothing happens."""
    with Slot(world, 0, agent, mutation=mutation) as slot:
        slot.calls()  # scripts are known to the server from here on
        calls = slot.calls()
        return calls + tuple(call for call in slot.calls(waiting=True) if call.label == TAKEN)


def run_all(
    world: World,
    runs: Sequence[Coordinates],
    *,
    mutation: str = "",
    tell: Callable[[Result], None] = lambda _: None,
    seconds: float = float("inf"),
    longest: float = LONGEST,
) -> list[Result]:
    """Do the runs, agent by agent, as many at once as the world has slots.

    A slot begins none after its first `seconds`, and at least one. What does not happen within `longest`
    seconds counts as stuck.
    """
    results: list[Result] = []
    for agent in dict.fromkeys(run.agent for run in runs):
        waiting: SimpleQueue[Coordinates] = SimpleQueue()
        mine = [run for run in runs if run.agent == agent]
        for run in mine:
            waiting.put(run)

        def work(number: int, agent: str = agent, waiting: SimpleQueue[Coordinates] = waiting) -> None:
            with Slot(world, number, agent, mutation=mutation, longest=longest) as slot:
                # from here: on a busy machine its processes may need longer than that to start
                deadline, first = time.monotonic() + seconds, True
                while first or time.monotonic() < deadline:
                    first = False
                    try:
                        at = waiting.get_nowait()
                    except Empty:
                        return
                    result = slot.run(at)
                    results.append(result)
                    tell(result)

        with ThreadPoolExecutor(min(world.slots, len(mine))) as pool:
            for done in [pool.submit(work, number) for number in range(1, min(world.slots, len(mine)) + 1)]:
                done.result()
    return results


def sample(runs: Sequence[Coordinates], count: int, seed: int) -> list[Coordinates]:
    """Some of the runs, in their order."""
    chosen = set(random.Random(seed).sample(range(len(runs)), min(count, len(runs))))
    return [run for index, run in enumerate(runs) if index in chosen]


def all_runs(world: World, agents: Sequence[str], *, mutation: str = "") -> list[Coordinates]:
    """Every run of these agents."""
    return [run for agent in agents for run in every(agent, calls_of(world, agent, mutation=mutation))]
