"""One demo: publish, watch the photos move, and say how it ended."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from console import photo_files
from console.board import Column, Picture, Row, draw, plain_line
from console.errors import CommandError
from console.news import Reported
from console.places import place_of
from console.publish_traces import tracing
from console.publishing import Batch, BatchPublisher
from events.types import Hints
from shared.operations import photos
from shared.operations.status import read_status
from shared.photo_store import BlobStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from console.output import Output
    from events.types import SessionReported
    from sandbox.stack import Stack

_HINTS: Final = Hints(project="Wohnüberbauung Seewen")
_LOOK_SECONDS: Final = 0.2
_LINE_SECONDS: Final = 2.0
"""Between two lines where nothing can be redrawn."""
_PATIENCE: Final = 180.0
"""Seconds without any change after which something must be broken."""
_REPORT_PATIENCE: Final = 30.0
"""Likewise when all photos have ended and only the report is missing."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a demo ended."""

    session_id: str
    submitted: int
    validated: int
    dead: int
    needs_person: int
    seconds: float
    """From the first publish to the session's report."""
    report: str
    library: str
    dead_photos: list[dict[str, str]]
    """File name and reason of each."""


async def run(redis: Redis, stack: Stack, folder: Path, output: Output) -> Result:
    """Publish every photo of a folder and watch until the session's report is there."""
    began = time.monotonic()
    found = photo_files.find([str(folder)])
    session = photo_files.new_session_id(["demo"])
    publisher = BatchPublisher(
        redis, BlobStore(stack.settings.photo_store_url), stack.settings, source="erni:demo"
    )
    reported = Reported(redis, lanes=stack.settings.lanes)
    await reported.skip()
    with tracing(stack.settings) as tracer:
        await publisher.publish(found.photos, Batch(session_id=session, hints=_HINTS), tracer=tracer)
    names = {one.photo_id: one.file for one in sorted(publisher.submitted, key=lambda one: one.file)}
    with _screen(output) as show:
        changed, last = time.monotonic(), None
        while True:
            looked = time.monotonic()
            end = await _ended(reported, session)
            picture = await _picture(redis, stack, session, names, looked - began)
            show(picture)
            if end is not None:
                break
            state = [row.outcomes for row in picture.rows]
            changed, last = (looked, state) if state != last else (changed, last)
            through = picture.validated + picture.dead == len(picture.rows)
            if looked - changed > (_REPORT_PATIENCE if through else _PATIENCE):
                raise CommandError(
                    f"nothing moves any more ({plain_line(picture)}); the agents' logs are in"
                    f" {stack.folder / 'logs'}"
                )
            # A big session takes longer to look at: the look must not become the load.
            await asyncio.sleep(max(_LOOK_SECONDS, 3 * (time.monotonic() - looked)))
    return Result(
        session_id=session,
        submitted=len(publisher.submitted),
        validated=end.validated,
        dead=end.dead,
        needs_person=len(end.needs_person),
        seconds=round(time.monotonic() - began, 1),
        report=place_of(stack.settings, end.report_ref),
        library=str(stack.folder / "sharepoint" / "library" / stack.settings.sharepoint_library),
        dead_photos=[
            {"file": photo.file_name or photo.photo_id or "(unreadable)", "reason": photo.reason}
            for photo in sorted(end.dead_photos, key=lambda photo: photo.file_name or "")
        ],
    )


async def _ended(reported: Reported, session: str) -> SessionReported | None:
    return next((event for event in await reported.new() if event.session_id == session), None)


async def _picture(
    redis: Redis, stack: Stack, session: str, names: dict[str, str], seconds: float
) -> Picture:
    lanes = stack.settings.lanes
    records = {one.photo_id: one.parts for one in await photos.of_session(redis, session, lanes=lanes)}
    status = await read_status(redis, lanes=lanes, alive_within=stack.settings.lease_seconds)
    rows = []
    for photo_id, name in names.items():
        parts = records.get(photo_id, [])
        dead = next((part for part in parts if part.outcome == "dead"), None)
        rows.append(
            Row(
                name=name,
                outcomes={part.agent: part.outcome for part in parts},
                reason=dead.message if dead else "",
            )
        )
    columns = [
        Column(
            agent=agent.agent,
            waiting=max(agent.depth.backlog - agent.depth.pending, 0),
            in_flight=agent.depth.pending,
            postponed=agent.depth.delayed,
            dead=agent.depth.dead,
            trouble=", ".join(agent.breakers_open),
        )
        for agent in status.agents
    ]
    return Picture(title="Erni Foto Agency", rows=rows, columns=columns, seconds=seconds)


@contextmanager
def _screen(output: Output) -> Iterator[Callable[[Picture], None]]:
    """Shows pictures: one drawn over the other on a terminal, else now and then a line."""
    console = output.console
    if not console.is_terminal:
        last_line, at = "", 0.0

        def line(picture: Picture) -> None:
            nonlocal last_line, at
            text, now = plain_line(picture), time.monotonic()
            all_ended = picture.validated + picture.dead == len(picture.rows)
            if text.partition("   ")[2] != last_line and (all_ended or now - at >= _LINE_SECONDS):
                last_line, at = text.partition("   ")[2], now
                output.say(text)

        yield line
        return
    from rich.live import Live

    unicode = console.encoding.lower().startswith("utf")
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield lambda picture: live.update(
            draw(picture, width=console.width, height=console.height, unicode=unicode), refresh=True
        )
