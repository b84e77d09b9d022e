"""`erni demo`: sample photos go through the five agents, each a process of its own, all on this machine."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from console.arguments import called_as, describe, whole
from console.errors import CommandError

if TYPE_CHECKING:
    import argparse

    from console.demo_run import Result
    from console.output import Output
    from console.supervisor import Change

FOLDER: Final = Path(".erni") / "demo"
"""Keeps everything of the last demo, for people to look at; the next demo replaces it."""

_MOST: Final = 10_000
"""Photos: they are some 0.4 MB each, three times (photo, store, library), and a demo ends."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni demo`."""
    describe(
        parser,
        "See it work: a Redis-compatible server, a stand-in for SharePoint, a trace receiver and the five "
        "agents start on this machine; sample photos (and three broken ones) go through them. Needs no "
        "account and touches nothing outside ./.erni/demo, where report and library stay afterwards.",
        "erni demo",
        "erni demo --photos 200",
        "erni demo --json > demo.json",
        run=demo,
    )
    parser.add_argument(
        "--photos",
        metavar="N",
        type=whole(1, _MOST),
        default=12,
        help="good photos, beside the three broken (default: 12)",
    )


def demo(options: argparse.Namespace, output: Output) -> int:
    """Run it once; exit code 1 if a good photo did not get through, or a broken one did."""
    from console.running import claimed

    with claimed(FOLDER.with_suffix(".lock"), "erni demo"):
        return asyncio.run(_demo(options, output))


async def _demo(options: argparse.Namespace, output: Output) -> int:
    from console.demo_run import run
    from console.explain import redis_client
    from console.running import running, unless
    from sandbox import samples
    from sandbox.sample_sources import SamplesError
    from sandbox.stack import plan_demo
    from shared.settings import cache_folder, merged_environment

    began = time.monotonic()
    if FOLDER.exists():
        await asyncio.to_thread(shutil.rmtree, FOLDER)
    stack = plan_demo(merged_environment(), FOLDER)
    cache = cache_folder(stack.settings)
    with output.busy("sample photos are made ready"):
        try:
            photos = await asyncio.to_thread(
                samples.prepare,
                stack.folder / "photos",
                cache=cache,
                photos=options.photos,
            )
        except SamplesError as error:
            raise CommandError(str(error)) from error
    async with AsyncExitStack() as open_now:
        with output.busy("a Redis-compatible server, a SharePoint stand-in and five agents start"):
            supervisor, asked = await open_now.enter_async_context(
                running(stack, on_change=_Starting(output).tell)
            )
        redis = await open_now.enter_async_context(redis_client(stack.settings))
        result = await unless(asked, run(redis, stack, photos.folder, output))
        restarts = sum(child.restarts for child in supervisor.children.values())
        seconds = round(time.monotonic() - began, 1)
        output.answer({**msgspec.structs.asdict(result), "total_seconds": seconds, "restarts": restarts})
        if not output.as_json:
            _tell(output, result, restarts)
    return 0 if (result.validated, result.dead) == (len(photos.good), len(photos.broken)) else 1


class _Starting:
    """Tells only what goes wrong: a process that does not start, or dies."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def tell(self, change: Change) -> None:
        """Say what is worth saying."""
        if change.state in ("failed", "waiting"):
            self._output.warn(f"erni: {change.name} {change.text}")


def _tell(output: Output, result: Result, restarts: int) -> None:
    from rich.table import Table
    from rich.text import Text

    people = f" ({result.needs_person} for a person to look at)" if result.needs_person else ""
    say = output.console.print
    say()
    say(
        Text.assemble(
            (f"{result.validated} validated", "bold green"),
            people,
            ", ",
            (f"{result.dead} dead", "bold red" if result.dead else ""),
            f" of {result.submitted} in {result.seconds:.0f} s",
            f", {restarts} restarts" if restarts else "",
        )
    )
    grid = Table.grid(padding=(0, 1))
    for photo in result.dead_photos:
        grid.add_row(Text("  ✗", "red"), Text(photo["file"]), Text(photo["reason"]))
    say(grid)
    say()
    for what, where in (("report", result.report), ("library", result.library)):
        say(Text(f"{what:<9}{where}"), soft_wrap=True)
    say()
    erni = called_as()
    say(f"next: `{erni} up` keeps it running, `{erni} publish PATH` sends it your photos")
