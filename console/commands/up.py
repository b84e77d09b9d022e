"""Run everything on this machine until Ctrl-C: `erni up`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from console.arguments import checked, describe, whole
from events import topology

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from console.output import Output
    from console.supervisor import Change, Supervisor
    from console.up_state import UpState
    from sandbox.stack import Stack

FOLDER: Final = Path(".erni")
"""The folder for data, logs and addresses, below the current directory."""
_SERVICES: Final = frozenset({"redis", "sharepoint"})
"""Nothing works without these, so their failure ends everything."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments of `erni up`."""
    describe(
        parser,
        "Run everything on this machine until Ctrl-C: a Redis-compatible server, a stand-in for SharePoint, "
        "a trace receiver (each only if no setting names a real one), the five agents and the gateway. Data "
        "is kept in ./.erni; a process that dies is started again. Every erni command in this folder finds "
        "it.",
        "erni up",
        "erni up --processes vision_analyzer=3",
        run=up,
    )
    parser.add_argument(
        "--processes",
        metavar="AGENT=N",
        action="append",
        default=[],
        type=checked(_number_of),
        help="how many processes of an agent (default: as many as keep the cores busy); may be repeated",
    )
    parser.add_argument(
        "--redis-port",
        metavar="PORT",
        type=whole(1, 65_535),
        help="the port of Redis (default: the one of the last start, at first 6379, if it is free)",
    )
    parser.add_argument(
        "--new", action="store_true", help="start a second system here, below the folder of one that runs"
    )
    parser.add_argument("--logs", action="store_true", help="show what the processes write")


def _number_of(text: str) -> tuple[str, int]:
    agent, given, number = text.partition("=")
    if agent not in topology.CONSUMERS:
        raise ValueError(f"{agent[:40]!r} is no agent; there are {', '.join(topology.CONSUMERS)}")
    if not given:
        raise ValueError(f"how many? Write {agent}=3, for example")
    return agent, whole(1, 64)(number)


def up(options: argparse.Namespace, output: Output) -> int:
    """Run until somebody asks to stop. Returns 1 if a process failed for good."""
    from console.disk_state import full_disk
    from console.errors import CommandError
    from console.running import claimed

    _look_above(output, new=options.new)
    # before anything is written there
    if full := full_disk(FOLDER):
        raise CommandError(full)
    with claimed(FOLDER / "up.lock", "erni up"):
        return asyncio.run(_up(options, output))


def _look_above(output: Output, *, new: bool) -> None:
    """Refuse a second system that nobody asked for. Raises CommandError.

    Every command in this folder talks to the nearest system above, so `erni up` has to mean that one too.
    """
    from console.errors import CommandError
    from sandbox.claims import holder_of
    from shared.settings import erni_folder

    above, here = erni_folder(Path.cwd()), FOLDER.absolute()
    if above is None or above == here:
        return
    if (holder := holder_of(above / "up.lock")) and not new:
        raise CommandError(
            f"{holder} runs in {above.parent}, and every erni command in this folder uses it. Use that one,"
            " or start a second system here: erni up --new"
        )
    if not holder:
        output.warn(f"erni: this starts a new system in {here}; the one in {above} is stopped and stays so")


async def _up(options: argparse.Namespace, output: Output) -> int:
    from console import news
    from console.commands.console import link_for
    from console.disk_state import full_disk
    from console.explain import redis_client
    from console.running import end, running, write_addresses
    from console.up_state import UpState, given_settings
    from sandbox.stack import plan_up
    from shared.settings import merged_environment

    addresses = FOLDER / "env"
    # A killed `erni up` leaves this file behind; it must not be read as settings.
    addresses.unlink(missing_ok=True)
    environ = merged_environment(running=False)
    stack = plan_up(
        environ,
        FOLDER,
        processes=dict(options.processes),
        redis_port=options.redis_port,
    )
    kept = given_settings(environ, stack.settings) | stack.given
    if not stack.settings.sharepoint_site:
        output.warn(
            "erni: SHAREPOINT_SITE is not set: photos need a site, so that each whose event names none"
            " becomes a dead letter. Set SHAREPOINT_SITE to host:/sites/Name"
        )
    changes = _Changes(output, UpState(FOLDER, [process.name for process in stack.processes]))
    if "REDIS_URL" not in stack.given:
        # The agents would wait for Redis silently and for ever, while somebody waits for this command.
        async with redis_client(stack.settings) as redis:
            await redis.ping()
    try:
        async with (
            running(
                stack,
                on_change=changes.report,
                on_line=_shown(output) if options.logs else None,
                on_services=lambda: write_addresses(addresses, kept, what="`erni up`"),
                obstacle=lambda: full_disk(stack.folder, stack.settings),
            ) as (supervisor, asked),
            redis_client(stack.settings) as redis,
        ):
            link = "" if output.as_json else await link_for(redis, stack.settings, "admin")
            _tell_addresses(output, stack, supervisor, link)
            changes.asked = asked
            telling = asyncio.create_task(
                news.tell(redis, stack.settings, lambda text: output.say(f"{_now()}  {text}"))
            )
            telling.add_done_callback(lambda task: _no_more_news(task, output))
            try:
                await asked.wait()
            finally:
                await end(telling)
            output.say("stopping after the photos in flight are finished (Ctrl-C again: stop at once)")
    finally:
        addresses.unlink(missing_ok=True)
    return 1 if changes.failed else 0


def _no_more_news(telling: asyncio.Task[None], output: Output) -> None:
    """Report a mistake of ours in printing news; it must not end the pipeline, nor be silent."""
    if not telling.cancelled() and (error := telling.exception()):
        output.warn(f"erni: no more news is shown because of {error!r}; the pipeline continues")


class _Changes:
    """Report what happens to the processes; ask to stop when the pipeline cannot continue."""

    def __init__(self, output: Output, state: UpState) -> None:
        self._output = output
        self._state = state
        self.asked: asyncio.Event | None = None
        """The event that stops everything; None while everything starts."""
        self.failed = False

    def report(self, change: Change) -> None:
        """Write a change down, and print it if people want to know it."""
        self._state.note(change)
        failed = change.state == "failed"
        self.failed = self.failed or failed
        if failed and change.name in _SERVICES and self.asked is not None:
            self.asked.set()
        orderly = change.state in ("starting", "stopping", "stopped") and "killed" not in change.text
        if not orderly:
            self._output.say(f"{_now()}  {change.name:<20} {change.text}")


def _now() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())


def _shown(output: Output) -> Callable[[str, str], None]:
    return lambda name, line: output.say(f"{name:<20} | {line}")


def sample_photo(folder: Path) -> Path:
    """Return a photo that is there to be published; it is written at the first call."""
    from PIL import Image

    path = folder / "sample.jpg"
    if not path.is_file():
        Image.radial_gradient("L").resize((1200, 900)).convert("RGB").save(path, "JPEG")
    return path


def _tell_addresses(output: Output, stack: Stack, supervisor: Supervisor, link: str) -> None:
    output.answer(
        {
            "folder": str(stack.folder),
            "addresses": {address.what: address.where for address in stack.addresses},
            "processes": [
                {"name": child.spec.name, "pid": child.pid, "log": str(child.log)}
                for child in supervisor.children.values()
            ],
        }
    )
    if output.as_json:
        return
    output.say()
    for address in stack.addresses:
        output.say(f"  {address.what:<30} {address.where}")
    output.say(f"  {'logs':<30} {stack.folder / 'logs'}")
    output.say()
    output.say(f"console (signs in once; another link: erni console)\n  {link}")
    output.say()
    if "SOURCE_ROOTS" in stack.given:
        event = f'{{"source_url": "{sample_photo(stack.folder).as_uri()}"}}'
        output.say(f"by hand: erni redis-cli XADD erni:photo.submitted '*' data '{event}'")
    output.say("publish: erni publish PATH     look: erni status --watch     stop: Ctrl-C")
    output.say()
