"""`erni pause` and `erni resume`: all processes of an agent stop and start reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.arguments import describe
from events import topology

if TYPE_CHECKING:
    import argparse

    from console.output import Output


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni pause|resume AGENT`."""
    if parser.prog.endswith("pause"):
        describe(
            parser,
            "All processes of an agent stop reading until `erni resume`. They finish the entries in flight; "
            "new entries wait.",
            "erni pause sharepoint_uploader",
            run=pause,
        )
    else:
        describe(parser, "A paused agent reads again.", "erni resume sharepoint_uploader", run=resume)
    names = topology.CONSUMERS
    parser.add_argument("agent", metavar="AGENT", choices=names, help=", ".join(names))


async def pause(options: argparse.Namespace, output: Output) -> int:
    """Pause; doing it twice is as good as once."""
    from console import system
    from console.person import person
    from shared.operations import pauses

    async with system.changing() as (redis, settings):
        await pauses.pause(redis, options.agent, lanes=settings.lanes, by=person())
    output.answer({"agent": options.agent, "paused": True})
    if not output.as_json:
        output.tell(f"{options.agent} stops reading within a second; `erni resume {options.agent}` undoes it")
    return 0


async def resume(options: argparse.Namespace, output: Output) -> int:
    """Resume; not paused is said and is no failure."""
    from console import system
    from console.person import person
    from shared.operations import pauses

    async with system.changing() as (redis, settings):
        was_paused = await pauses.resume(redis, options.agent, lanes=settings.lanes, by=person())
    output.answer({"agent": options.agent, "paused": False, "was_paused": was_paused})
    if not output.as_json:
        output.say(f"{options.agent} {'reads again' if was_paused else 'was not paused'}")
    return 0
