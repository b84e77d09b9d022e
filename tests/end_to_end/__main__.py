"""``python -m tests.end_to_end --photos 500``: the large run, with times. Exit code 1 if anything is wrong.

Many photos against the strictest mode, all of them a second time, and then, with `--killed` photos, each
agent killed once in the middle of its work and started again by hand.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from events.topology import AGENTS, stage_of
from sandbox import samples
from shared.settings import Settings
from tests.end_to_end import scenario
from tests.end_to_end.system import KEYS, System

_SECONDS = 1800.0


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


def _strict(folder: Path, photos: int, seed: int) -> None:
    with System(folder, graph=("--strict", "--seed", str(seed))) as system:
        cache = Path(Settings().cache_dir).expanduser()
        written = samples.prepare(system.photos, cache=cache, photos=photos)
        names = [path.name for path in written.good]
        _say(f"{photos} photos and {len(written.broken)} broken files are ready")
        for session in ("first", "second"):
            calls, sequence, began = system.vision_calls(), system.sequence, time.monotonic()
            system.erni("publish", str(system.photos), "--session", session, "--project", "Wohnhaus Seewen")
            outcome = system.wait(session, _SECONDS)
            scenario.all_stored(system, outcome, names)
            assert {dead.file_name for dead in outcome.dead} == {path.name for path in written.broken}
            assert len(system.items()) == photos
            calls, uploads = system.vision_calls() - calls, len(system.uploads(sequence))
            if session == "second":
                assert (calls, uploads) == (0, 0)
                assert {photo.item.outcome for photo in outcome.validated} == {"unchanged"}
            _say(
                f"{session}: {len(outcome.validated)} validated, {len(outcome.dead)} dead, {calls} vision"
                f" calls, {uploads} uploads, in {time.monotonic() - began:.0f} s"
            )


def _killed(folder: Path, photos: int) -> None:
    with System(folder, settings={"LEASE_SECONDS": "3"}) as system:
        names = scenario.pictures(system.photos / "killed", photos, seed="killed")
        began = time.monotonic()
        # All sleep until it is their turn, so that each is killed with everything before it.
        for agent in AGENTS:
            system.processes[agent].send_signal(signal.SIGSTOP)
        system.erni("publish", str(system.photos / "killed"), "--session", "killed")
        for agent in AGENTS:
            scenario.stopped_with_work_in_hand(system, agent, photos, "killed")
            in_hand = system.redis.xpending(KEYS.stream(stage_of(agent).reads[0]), agent)["pending"]
            system.end(agent, signal.SIGKILL)
            _say(f"{agent} was killed with {in_hand} entries in its hands")
            system.start(agent)
        outcome = system.wait("killed", _SECONDS)
        assert outcome.dead == []
        scenario.all_stored(system, outcome, names)
        _say(
            f"killed: {len(outcome.validated)} validated, one item each, in {time.monotonic() - began:.0f} s"
        )


def main() -> int:
    """Run both; what is wrong ends in a traceback."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end", description=__doc__)
    parser.add_argument("--photos", type=int, default=500, help="against the strictest mode (default: 500)")
    parser.add_argument("--killed", type=int, default=200, help="while agents are killed (default: 200)")
    parser.add_argument("--seed", type=int, default=5, help="of the daily troubles")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="erni-end-to-end-") as folder:
        if options.photos:
            _strict(Path(folder) / "strict", options.photos, options.seed)
        if options.killed:
            _killed(Path(folder) / "killed", options.killed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
