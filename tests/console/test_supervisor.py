"""The supervisor: starts in order, restarts what died, gives up on what cannot live, leaves nobody behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from console import supervisor as module
from console.supervisor import Change, StartError, Supervisor
from sandbox.stack import Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_SLEEP = "import time; print('up', flush=True); time.sleep(600)"
_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True);"
    " time.sleep(600)"
)
_WITH_CHILD = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True); time.sleep(600)"
)


class _Watched:
    """A supervisor, what it told, and a way to wait for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes: list[Change] = []
        self.lines: list[tuple[str, str]] = []
        self._news = asyncio.Condition()
        self.obstacle = ""
        self.it = Supervisor(
            folder / "logs",
            on_change=self._changed,
            on_line=self._wrote,
            obstacle=lambda: self.obstacle,
        )

    def _changed(self, change: Change) -> None:
        self.changes.append(change)
        self._announce()

    def _wrote(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._announce()

    def _announce(self) -> None:
        async def announce() -> None:
            async with self._news:
                self._news.notify_all()

        self._task = asyncio.create_task(announce())

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(happened)

    def process(self, name: str, code: str, **more: Any) -> Process:
        return Process(
            name=name,
            command=(sys.executable, "-c", code),
            environment=dict(os.environ),
            folder=self.folder,
            **more,
        )

    def pid(self, name: str) -> int:
        pid = self.it.children[name].pid
        assert pid is not None
        return pid

    def told(self, name: str, state: str) -> list[str]:
        return [change.text for change in self.changes if (change.name, change.state) == (name, state)]


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Watched]:
    monkeypatch.setattr(module, "BACKOFF", (0.0, 0.05, 0.05))
    watched = _Watched(tmp_path)
    yield watched
    await watched.it.stop()
    await watched._task


async def test_a_process_is_ready_when_its_check_says_so(watched: _Watched) -> None:
    sign = watched.folder / "sign"
    code = f"import pathlib, time; pathlib.Path({str(sign)!r}).touch(); time.sleep(600)"
    await watched.it.start([watched.process("one", code, ready=lambda _: sign.exists())])
    assert sign.exists()
    assert watched.it.children["one"].state == "running"


async def test_what_died_is_started_again_and_the_count_is_kept(watched: _Watched) -> None:
    await watched.it.start([watched.process("one", _SLEEP)])
    first = watched.pid("one")
    os.kill(first, signal.SIGKILL)
    await watched.until(lambda: len(watched.told("one", "running")) == 2)
    assert watched.pid("one") != first
    assert watched.it.children["one"].restarts == 1
    assert watched.told("one", "waiting") == ["was ended by SIGKILL; starts again at once"]


async def test_a_crash_loop_ends_with_a_sentence(watched: _Watched) -> None:
    await watched.it.start([watched.process("one", "raise SystemExit(3)")])
    await watched.until(lambda: bool(watched.told("one", "failed")))
    (text,) = watched.told("one", "failed")
    assert "ended with exit code 3, 4 times in a row" in text
    assert str(watched.folder / "logs" / "one.log") in text
    assert len(watched.told("one", "starting")) == 4


async def test_what_ends_because_of_an_obstacle_waits_for_its_end_and_does_not_fail(
    watched: _Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OBSTACLE_SECONDS", 0.01)
    full = watched.folder / "full"
    code = f"import pathlib, time\nwhile not pathlib.Path({str(full)!r}).exists(): time.sleep(0.01)"
    await watched.it.start([watched.process("one", code)])
    watched.obstacle = "the disk is full"
    full.touch()
    await watched.until(lambda: bool(watched.told("one", "waiting")))
    assert watched.told("one", "waiting") == ["ended with exit code 0: the disk is full"]
    full.unlink()
    watched.obstacle = ""
    await watched.until(lambda: len(watched.told("one", "running")) == 2)
    assert watched.told("one", "failed") == []


async def test_wrong_usage_is_not_tried_again(watched: _Watched) -> None:
    await watched.it.start([watched.process("one", "raise SystemExit(2)")])
    await watched.until(lambda: bool(watched.told("one", "failed")))
    assert len(watched.told("one", "starting")) == 1


async def test_a_process_that_never_was_ready_fails_the_start_with_its_last_words(watched: _Watched) -> None:
    with pytest.raises(StartError, match=r"one did not start\. Its log is .*(?s:.*)no room here"):
        await watched.it.start(
            [watched.process("one", "print('no room here'); raise SystemExit(1)", ready=lambda _: False)]
        )
    assert len(watched.told("one", "starting")) == 1


async def test_a_process_that_is_not_ready_in_time_is_killed(watched: _Watched) -> None:
    with pytest.raises(StartError, match="one did not start"):
        await watched.it.start(
            [watched.process("one", _SLEEP, ready=lambda _: False, start_seconds=0.3)],
        )
    assert watched.it.children["one"].pid is None
    assert "was not ready within" in watched.told("one", "failed")[0]


async def test_a_program_that_does_not_exist_fails_the_start(watched: _Watched) -> None:
    wrong = Process(name="one", command=("/no/such/program",), environment={}, folder=watched.folder)
    with pytest.raises(StartError, match="one did not start"):
        await watched.it.start([wrong])
    assert "cannot be started" in watched.told("one", "failed")[0]


async def test_stop_ends_later_stages_first(watched: _Watched) -> None:
    await watched.it.start([watched.process("redis", _SLEEP)])
    await watched.it.start([watched.process("agent", _SLEEP, stage=1)])
    await watched.it.stop()
    ends = [(c.name, c.state) for c in watched.changes if c.state in ("stopping", "stopped")]
    assert ends == [
        ("agent", "stopping"),
        ("agent", "stopped"),
        ("redis", "stopping"),
        ("redis", "stopped"),
    ]


async def test_who_does_not_stop_within_the_grace_is_killed(watched: _Watched) -> None:
    await watched.it.start([watched.process("one", _STUBBORN, grace=0.2)])
    await watched.until(lambda: ("one", "up") in watched.lines)
    process = psutil.Process(watched.pid("one"))
    await watched.it.stop()
    assert not process.is_running()
    assert watched.told("one", "stopping")[-1] == "has not stopped within 0 s: killed"


async def test_what_a_process_started_itself_ends_with_it(watched: _Watched) -> None:
    await watched.it.start([watched.process("one", _WITH_CHILD)])
    await watched.until(lambda: len(watched.lines) == 1)
    grandchild = psutil.Process(int(watched.lines[0][1]))
    os.kill(watched.pid("one"), signal.SIGKILL)
    await watched.until(lambda: len(watched.told("one", "running")) == 2)
    _, alive = psutil.wait_procs([grandchild], timeout=5)
    assert not alive


async def test_stop_during_a_wait_for_the_restart_does_not_wait(
    watched: _Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF", (600.0,))
    await watched.it.start([watched.process("one", "raise SystemExit(1)")])
    await watched.until(lambda: bool(watched.told("one", "waiting")))
    async with asyncio.timeout(5):
        await watched.it.stop()
    assert watched.it.children["one"].state == "stopped"


async def test_output_goes_to_the_log_and_line_by_line_to_who_listens(watched: _Watched) -> None:
    code = (
        "import sys, time; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); time.sleep(600)"
    )
    await watched.it.start([watched.process("one", code)])
    await watched.until(lambda: len(watched.lines) == 2)
    assert watched.lines == [("one", "out"), ("one", "err")]
    assert (watched.folder / "logs" / "one.log").read_text() == "out\nerr\n"


async def test_a_log_that_cannot_be_written_holds_nobody_up_and_is_said_once(watched: _Watched) -> None:
    log = watched.folder / "logs" / "one.log"
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    # more than a pipe holds: a process that nobody listens to would stand still
    code = "for number in range(5000): print(f'{number:0100}', flush=True)\nraise SystemExit(2)"
    await watched.it.start([watched.process("one", code)])
    await watched.until(lambda: bool(watched.told("one", "failed")))
    assert len(watched.lines) == 5000
    (text,) = [change.text for change in watched.changes if "cannot be written" in change.text]
    assert text == f"{log} cannot be written (No space left on device): its lines are dropped"


async def test_a_full_log_is_turned_over(watched: _Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 1000)
    sign = watched.folder / "sign"
    code = (
        "import pathlib, time\n"
        "for n in range(50): print(n, 'x' * 40, flush=True)\n"
        f"while not pathlib.Path({str(sign)!r}).exists(): time.sleep(0.01)\n"
        "print('the rest', flush=True); time.sleep(600)"
    )
    await watched.it.start([watched.process("one", code)])
    await watched.until(lambda: len(watched.lines) == 50)
    sign.touch()
    await watched.until(lambda: len(watched.lines) == 51)
    log = watched.folder / "logs" / "one.log"
    # Where it was turned over depends on how the lines came.
    both = log.with_name("one.log.old").read_text() + log.read_text()
    assert both.endswith(f"48 {'x' * 40}\n49 {'x' * 40}\nthe rest\n")
    assert len(log.read_text()) < len(both)


async def test_a_line_without_end_does_not_fill_the_memory(watched: _Watched) -> None:
    code = "import sys, time; sys.stdout.write('x' * 1_000_000); sys.stdout.flush(); time.sleep(600)"
    await watched.it.start([watched.process("one", code)])
    await watched.until(lambda: sum(len(line) for _, line in watched.lines) > 900_000)
    assert max(len(line) for _, line in watched.lines) < 200_000


_SUPERVISED = """
import asyncio, os, pathlib, sys
from console.supervisor import Supervisor
from sandbox.stack import Process

async def main():
    folder = pathlib.Path(sys.argv[1])
    it = Supervisor(folder)
    await it.start([Process(name="one", command=(sys.executable, "-c", sys.argv[2]),
                            environment=dict(os.environ), folder=folder)])
    print(it.children["one"].pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_no_child_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SUPERVISED, str(tmp_path), _STUBBORN], stdout=subprocess.PIPE
    ) as keeper:
        assert keeper.stdout
        child = os.pidfd_open(int(keeper.stdout.readline()))
        keeper.send_signal(signal.SIGKILL)
        assert select.select([child], [], [], 10)[0]
        os.close(child)
