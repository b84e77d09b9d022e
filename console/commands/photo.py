"""`erni photo list|show`: one photo's way through the agents."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

from console import durations
from console.arguments import checked, describe, subcommands, words
from console.errors import CommandError
from console.rows import fitted, one_line, padded
from events import identities, topology

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from console.output import Output
    from shared.delivery.photo_record import AgentPart, PhotoRecord
    from shared.operations.status import PipelineStatus
    from shared.settings import Settings


_COLOURS: Final = {"dead": "red", "postponed": "yellow"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni photo …`."""
    add = subcommands(
        parser,
        "Photos on their way, and those that went it in the last hours (PHOTO_RECORD_HOURS).",
        "erni photo list --session seewen-2026-05-12",
        "erni photo show IMG_2041.jpg",
    )
    listing = add("list", "the photos of a session")
    describe(
        listing,
        "The photos of a session, and how far each has come.",
        "erni photo list --session seewen-2026-05-12",
        run=list_,
    )
    listing.add_argument("--session", metavar="ID", required=True, type=checked(identities.session_id))
    showing = add("show", "one photo: agents, times, attempts, trace")
    describe(
        showing,
        "One photo's way through the agents, with times, attempts and the link to its trace.",
        "erni photo show IMG_2041.jpg",
        "erni photo show p-3f2a90c1d7e4a1b2c3d4e5f6",
        run=show,
    )
    showing.add_argument("photo", metavar="ID|FILENAME", type=words)


async def list_(options: argparse.Namespace, output: Output) -> int:
    """List a session's photos."""
    from rich.cells import cell_len

    from console import system
    from console.explain import redis_client, strange_redis
    from shared.operations import photos

    settings = system.load()
    async with redis_client(settings) as redis:
        records = await photos.of_session(redis, options.session, lanes=settings.lanes)
        strange = "" if records else await strange_redis(redis, settings)
    output.answer({"session_id": options.session, "photos": [document(settings, one) for one in records]})
    if not records:
        raise CommandError(f"no photo of {options.session} has come in yet, or its records are gone{strange}")
    if not output.as_json:
        status, last = (max(map(len, column)) for column in zip(*map(_ends, records), strict=True))
        names = [fitted(one.file_name or "-", output.width, status + last + 4) for one in records]
        wide = max(map(cell_len, names))
        for record, name in zip(records, names, strict=True):
            output.say(f"{record.status:<{status}}  {padded(name, wide)}  {record.photo_id}")
    return 0


def _ends(record: PhotoRecord) -> tuple[str, str]:
    """What stands before and behind the name in a row."""
    return record.status, record.photo_id


async def show(options: argparse.Namespace, output: Output) -> int:
    """Show one photo, or all of that file name."""
    from console import system
    from console.explain import redis_client, strange_redis
    from shared.operations import photos
    from shared.operations.status import read_status

    if not options.photo.strip():
        raise CommandError("an empty name: give a photo's id or its file name", code=2)
    settings = system.load()
    async with redis_client(settings) as redis:
        one = await photos.show(redis, options.photo, lanes=settings.lanes)
        found = [one] if one else await photos.by_file_name(redis, options.photo, lanes=settings.lanes)
        strange = "" if found else await strange_redis(redis, settings)
        moving = any(record.goes_to for record in found)
        status = (
            await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
            if moving and not output.as_json
            else None
        )
    # The newest last, where eyes are on a terminal.
    found.sort(key=lambda record: max((part.started for part in record.parts), default=0.0))
    if not found:
        raise CommandError(
            f"no photo has the id or file name {options.photo}: its record appears when the first agent is"
            f" done with it, and is kept for {settings.photo_record_hours:g} hours{strange}"
        )
    output.answer({"photos": [document(settings, record) for record in found]})
    if not output.as_json:
        for record in found:
            _tell(output, settings, record, _held_up(record, status, settings) if status else [])
    return 0


def _held_up(record: PhotoRecord, status: PipelineStatus, settings: Settings) -> list[str]:
    """Say why the agent that a photo is on its way to does not take it, in the words of `erni status`."""
    from console.agent_state import judge
    from console.up_state import agent_states

    up = agent_states(settings)
    return [
        sentence
        for agent in status.agents
        if agent.agent == record.goes_to
        for sentence in judge(agent, inf, up).problems
    ]


def document(settings: Settings, record: PhotoRecord) -> dict[str, object]:
    """The JSON of a photo."""
    return {
        "photo_id": record.photo_id,
        "session_id": record.session_id,
        "file_name": record.file_name,
        "status": record.status,
        "trace": _link(settings, record),
        "agents": record.parts,
        "unknown_fields": record.unknown_fields,
    }


def _link(settings: Settings, record: PhotoRecord) -> str:
    return f"{settings.jaeger_url.rstrip('/')}/trace/{record.trace_id}" if record.trace_id else ""


def waits(part: AgentPart) -> str:
    """Why a postponed photo waits, after how many attempts, and until when."""
    again = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(part.until))} UTC"
    attempts = f"{part.attempts} attempt{'s' if part.attempts != 1 else ''}"
    return f"postponed after {attempts} until {again}: {part.message}"


def _tell(output: Output, settings: Settings, record: PhotoRecord, held_up: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table

    style = {"dead": "bold red", "validated": "bold green"}.get(record.status, "bold")
    name = fitted(record.file_name or record.photo_id, output.width, len(record.status) + 2)
    output.console.print(f"{name}: {record.status}", style=style, markup=False)
    output.say(f"photo    {record.photo_id}")
    output.say(f"session  {record.session_id or '-'}")
    output.say(f"trace    {_link(settings, record) or '-'}")
    if record.unknown_fields:
        names = one_line(", ".join(record.unknown_fields))
        output.tell(f"ignored  {names}: its event has no such field (docs/events.md)", style="yellow")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("agent", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("started (UTC)", no_wrap=True)
    for head in ("took", "attempts", "deliveries"):
        table.add_column(head, justify="right", no_wrap=True)
    parts = {part.agent: part for part in record.parts}
    for agent in topology.AGENTS:
        part = parts.get(agent)
        if part is None:
            table.add_row(agent, "·", "", "", "", "")
            continue
        table.add_row(
            agent,
            f"[{_COLOURS.get(part.outcome, 'green')}]{part.outcome}[/]",
            durations.clock(part.started).rstrip("Z"),
            durations.short(part.seconds),
            str(part.attempts),
            str(part.deliveries),
        )
    output.console.print(table)
    for part in record.parts:
        if part.message and part.outcome != "postponed":
            output.tell(f"{part.agent}: {part.message}", style="red")
    if (part := record.postponed) is not None:
        output.tell(f"{part.agent}: {waits(part)}", style="yellow")
    for sentence in held_up:
        output.tell(f"waits: {sentence}", style="yellow")
    output.say("attempts: of the last delivery; deliveries: since a postponement or replay")
    if record.status == "dead":
        output.say(f"more:  erni dead list --photo {record.photo_id}")
    output.say()
