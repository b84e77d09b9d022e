"""Run a stack: claim its folder, start everything in order, report what happens, stop everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from console.errors import INTERRUPTED, CommandError
from console.supervisor import StartError, Supervisor
from sandbox.claims import ClaimedError, FolderClaim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

    from console.supervisor import Change
    from sandbox.stack import Stack

T = TypeVar("T")


@contextlib.contextmanager
def claimed(path: Path, what: str) -> Iterator[None]:
    """Claim a folder for one command at a time. Raises CommandError that names the present holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        claim = FolderClaim.take(path, what=f"`{what}` since {since}")
    except ClaimedError as error:
        raise CommandError(
            f"in {path.parent.resolve()} runs {error.holder} already. Use that one, or stop it first"
        ) from None
    try:
        yield
    finally:
        claim.release()


@asynccontextmanager
async def running(
    stack: Stack,
    *,
    on_change: Callable[[Change], None],
    on_line: Callable[[str, str], None] | None = None,
    on_services: Callable[[], None] = lambda: None,
    obstacle: Callable[[], str] = lambda: "",
) -> AsyncIterator[tuple[Supervisor, asyncio.Event]]:
    """Run everything inside the block; the event is set when somebody asks to stop (Ctrl-C, SIGTERM).

    `on_services` is called when the services run and the agents do not yet. `obstacle`: as `Supervisor` has
    it. A second Ctrl-C ends everything
    at once. Raises CommandError when something does not start.
    """
    supervisor = Supervisor(stack.folder / "logs", on_change=on_change, on_line=on_line, obstacle=obstacle)
    asked = asyncio.Event()

    def ask() -> None:
        if asked.is_set():
            supervisor.kill()
        asked.set()

    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, ask)
    try:
        for stage in sorted({process.stage for process in stack.processes}):
            if stage:
                on_services()
            these = [process for process in stack.processes if process.stage == stage]
            await unless(asked, supervisor.start(these))
        yield supervisor, asked
    except StartError as error:
        raise CommandError(str(error)) from None
    finally:
        await supervisor.stop()
        for number in signals:
            loop.remove_signal_handler(number)


async def unless(asked: asyncio.Event, work: Coroutine[None, None, T]) -> T:
    """Return the result of some work. Raises CommandError if somebody asks to stop before it is done."""
    working, waiting = asyncio.ensure_future(work), asyncio.create_task(asked.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise CommandError("interrupted before it was done", code=INTERRUPTED)
        return working.result()
    finally:
        await end(working, waiting)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks until they have ended, whatever their results.

    Once is not enough: asyncio.wait_for, through which redis-py sends each command, can swallow a cancel
    on Python 3.11 (https://github.com/python/cpython/issues/86296), and the task goes on.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.2)
    await asyncio.gather(*tasks, return_exceptions=True)


def write_addresses(path: Path, given: dict[str, str], *, what: str) -> None:
    """Write settings as an environment file, completely or not at all, readable by this user only."""
    lines = [f"# written by {what} (process {os.getpid()}), removed when it stops"]
    lines += [f"{name}={_quoted(value)}" for name, value in sorted(given.items())]
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
    draft.replace(path)


def _quoted(value: str) -> str:
    """Quote a value for python-dotenv, which expands nothing between single quotes."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
