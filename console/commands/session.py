"""`erni session list|show|close|forget`: submission batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from console import durations
from console.arguments import checked, describe, subcommands, whole
from console.errors import CommandError
from console.photo_files import count
from console.rows import fitted, one_line
from events import identities, topology
from events.types import MAX_EXPECTED

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from console.output import Output
    from console.sessions import SessionView
    from shared.delivery.photo_record import AgentPart, PhotoRecord
    from shared.sessions.store import SessionStats

_CELL: Final = 6
"""Characters of a number in the list."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni session …`."""
    add = subcommands(
        parser,
        'Submission batches: what people mean by "the photos of project Seewen, 12 May".',
        "erni session list",
        "erni session show seewen-2026-05-12",
    )
    listing = add("list", "the sessions that were used last")
    describe(
        listing, "The sessions that were used last, newest first.", "erni session list --limit 10", run=list_
    )
    listing.add_argument("--limit", metavar="N", type=whole(1), default=30, help="how many (default: 30)")
    showing = add("show", "one session: its counters and its photos")
    describe(
        showing,
        "One session: how many photos have come how far, and each of its photos.",
        "erni session show seewen-2026-05-12",
        run=show,
    )
    closing = add("close", "say how many photos it has")
    describe(
        closing,
        "Say how many photos were published into a session, whatever was said before. When all of them have "
        "ended the session completes and its report is written.",
        "erni session close seewen-2026-05-12 --expected 84",
        run=close,
    )
    closing.add_argument(
        "--expected",
        metavar="N",
        type=whole(1, MAX_EXPECTED),
        help="photos published (default: as many as have come in)",
    )
    forgetting = add("forget", "remove everything that is kept about it")
    describe(
        forgetting,
        "Remove a session: its counters, photo records, dead letters, public events and reports, and the "
        "photos, previews and answers in the store that no other session needs. What is in SharePoint stays. "
        "Published again, its photos are new.",
        "erni session forget seewen-2026-05-12",
        run=forget,
    )
    forgetting.add_argument("--yes", action="store_true", help="do not ask")
    for command in (showing, closing, forgetting):
        command.add_argument("session", metavar="SESSION", type=checked(identities.session_id))


async def list_(options: argparse.Namespace, output: Output) -> int:
    """List sessions."""
    from console import sessions, system
    from console.explain import redis_client, strange_redis

    settings = system.load()
    async with redis_client(settings) as redis:
        views, stats = await sessions.newest(redis, settings, most=options.limit)
        strange = "" if views else await strange_redis(redis, settings)
    total = stats.sessions
    output.answer({"total": total, "sessions": views, "statistics": stats})
    if output.as_json:
        return 0
    if not views:
        output.say(f"there is no session yet; `erni publish PATH` makes one{strange}")
        return 0
    _tell_all(output, views)
    if total > len(views):
        output.say(f"{total - len(views)} more; --limit shows more of them")
    output.say(_numbers(stats))
    return 0


def _tell_all(output: Output, views: Sequence[SessionView]) -> None:
    """Print the table. A table of rich takes a millisecond for each row, and there may be 10,000."""
    heads = ("photos", "valid", "dead", "moving")
    used = [durations.clock(view.last_accessed).rstrip("Z") for view in views]
    wide = max(len("session"), *(len(view.session_id) for view in views))
    column = max(map(len, (*used, "last used (UTC)")))
    if output.width is not None:
        wide = max(len("session"), min(wide, output.width - column - len(_cells(heads)) - 2))
    rows = [f"{'session':<{wide}} {'last used (UTC)':<{column}} " + _cells(heads)]
    for view, when in zip(views, used, strict=True):
        name = one_line(view.session_id)
        name = name if len(name) <= wide else name[: wide - 1] + "…"
        numbers = (view.photos, view.validated, view.dead or "·", view.in_flight or "·")
        rows.append(f"{name:<{wide}} {when:<{column}} " + _cells(numbers))
    if output.console.color_system is None:
        output.say("\n".join(rows))
    else:
        _print_coloured(output, rows, views)


def _print_coloured(output: Output, rows: Sequence[str], views: Sequence[SessionView]) -> None:
    """Print the rows with what needs a look in colour: the last two cells."""
    from rich.text import Text

    text = Text("\n".join(rows))
    text.stylize("bold", 0, len(rows[0]))
    end = len(rows[0])
    for row, view in zip(rows[1:], views, strict=True):
        end += 1 + len(row)
        if view.dead:
            text.stylize("red", end - 2 * _CELL - 1, end - _CELL - 1)
        if view.in_flight:
            text.stylize("cyan", end - _CELL, end)
    output.console.print(text, soft_wrap=True)


def _cells(words: Sequence[str | int]) -> str:
    return " ".join(f"{word:>{_CELL}}" for word in words)


def _numbers(stats: SessionStats) -> str:
    """What there is and what has become of all there were."""
    return (
        f"{stats.sessions} sessions, {stats.open} with photos on their way\nso far {stats.created} created,"
        f" {stats.expired} expired, {stats.evicted} evicted, {stats.errors} corrupt"
    )


async def show(options: argparse.Namespace, output: Output) -> int:
    """Show one session and its photos."""
    from console import sessions, system
    from console.explain import redis_client, strange_redis
    from shared.operations import photos

    settings = system.load()
    async with redis_client(settings) as redis:
        view = await sessions.read(redis, options.session, settings)
        if view is None:
            raise _unknown(options.session, await strange_redis(redis, settings))
        records = await photos.of_session(redis, options.session, lanes=settings.lanes)
        people = await sessions.needing_person(redis, options.session, settings)
    output.answer(
        {
            "session": view,
            "needs_person": people,
            "photos": [
                {"photo_id": record.photo_id, "file_name": record.file_name, "status": record.status}
                for record in records
            ],
        }
    )
    if output.as_json:
        return 0
    output.say(f"session    {view.session_id}")
    output.say(f"status     {_state(view)}")
    output.say(f"created    {durations.clock(view.created_at)}")
    output.say(f"last used  {durations.clock(view.last_accessed)}")
    output.say("through    " + "   ".join(f"{_short(a)} {view.counters.get(a, 0)}" for a in topology.AGENTS))
    for sentence in _postponed(records):
        output.tell(f"postponed  {sentence}", style="yellow", hang=11)
    if people:
        need = "1 photo needs" if people == 1 else f"{people} photos need"
        output.say(f"people     {need} a person, by the last report:  erni report {view.session_id}")
    output.say()
    wide = max((len(record.status) for record in records), default=0)
    for record in records:
        name = fitted(record.file_name or record.photo_id, output.width, wide + 4)
        output.say(f"  {record.status:<{wide}}  {name}")
    if view.dead:
        output.say()
        output.say(f"why they are dead:  erni dead list --session {view.session_id}")
    return 0


def _postponed(records: Sequence[PhotoRecord]) -> list[str]:
    """Say for each agent how many photos wait, until when, and why the first of them waits."""
    from console.agent_state import without_request

    waiting: dict[str, list[AgentPart]] = {}
    for record in records:
        if (part := record.postponed) is not None:
            waiting.setdefault(part.agent, []).append(part)
    said: list[str] = []
    for agent, parts in waiting.items():
        first = min(parts, key=lambda part: part.until)
        photos = "1 photo waits" if len(parts) == 1 else f"{len(parts)} photos wait"
        why, until = without_request(first.message), durations.clock(first.until)
        said.append(f"{photos} before {agent}, the first until {until}: {why}")
    return said


def _short(agent: str) -> str:
    return agent.rpartition("_")[2]


def _state(view: SessionView) -> str:
    ended = f"{view.validated} validated, {view.dead} dead"
    if view.status == "completed":
        if view.completion > 1:
            return (
                f"completed {view.completion} times: {ended}\n           (replays, or photos that came in"
                " later, complete it again)"
            )
        return f"completed: {ended}"
    if not view.expected:
        return f"open: {ended}, {view.in_flight} on their way; nobody has said how many photos it has"
    return f"open: {ended} of {view.photos}"


async def close(options: argparse.Namespace, output: Output) -> int:
    """Tell how many photos the session has."""
    from console import sessions, system
    from console.explain import redis_client, strange_redis
    from console.person import person
    from events.publisher import Publisher
    from shared.operations import activity

    settings = system.load()
    async with redis_client(settings) as redis:
        await system.require_chosen(redis, settings)
        view = await sessions.read(redis, options.session, settings)
        if view is None:
            raise _unknown(options.session, await strange_redis(redis, settings))
        expected = options.expected or view.received
        if not expected:
            raise CommandError(
                f"no photo of {options.session} has come in yet: say how many with --expected N"
            )
        publisher = Publisher(
            redis,
            lanes=settings.lanes,
            session_ttl=settings.session_ttl,
            wait_replicas=settings.wait_replicas,
        )
        counts = await publisher.close_session(options.session, expected=expected)
        if counts:
            await activity.note(redis, person(), "close session", f"{options.session}: {counts}")
    output.answer({"session_id": options.session, "expected": counts, "received": view.received})
    if not counts:
        raise CommandError(
            f"what stands in the place of {options.session} is no session: see docs/sessions.md"
        )
    if not output.as_json:
        ended = "has ended" if counts == 1 else "have ended"
        output.say(f"{options.session} is complete when {count(counts)} {ended}{_beside(view, counts)}")
    return 0


def _beside(view: SessionView, expected: int) -> str:
    """How many photos have come in, where that is another number than was said."""
    if expected == view.received:
        return ""
    come = f"{count(view.received)} {'has' if view.received == 1 else 'have'} come in"
    if expected > view.received:
        return f": {come}, it waits for {expected - view.received} more"
    return f", though {come}: if all of them count, say --expected {view.received}"


async def forget(options: argparse.Namespace, output: Output) -> int:
    """Remove the session and what only it needs."""
    from console import sessions, system
    from console.asking import sure
    from console.explain import open_store, redis_client, strange_redis
    from console.person import person
    from shared.operations import forgetting

    settings = system.load()
    async with redis_client(settings) as redis:
        await system.require_chosen(redis, settings)
        store = open_store(settings)
        await system.require_same_store(redis, settings, store)
        view = await sessions.read(redis, options.session, settings)
        if view is not None and view.in_flight:
            raise CommandError(
                f"{options.session} has {count(view.in_flight)} on the way: forget it when all have ended"
                f" (erni session show {options.session})"
            )
        plan = await forgetting.look(redis, store, options.session, lanes=settings.lanes)
        if view is None and plan.empty:
            raise _unknown(options.session, await strange_redis(redis, settings))
        output.warn(f"{options.session}: {plan.sentence}; what is in SharePoint stays")
        if not options.yes and not sure("Remove all of it?"):
            raise CommandError("nothing was removed")
        everything = sessions.shared(redis, settings)
        await forgetting.forget(redis, store, plan, everything, lanes=settings.lanes, by=person())
    output.answer(
        {
            "session_id": options.session,
            "photos": len(plan.photos),
            "dead_letters": len(plan.letters) + len(plan.archived),
            "blobs": len(plan.blobs),
            "public_events": len(plan.public),
            "event_ids": len(plan.markers),
        }
    )
    if not output.as_json:
        output.say(f"{options.session} is forgotten")
    return 0


def _unknown(session_id: str, strange: str) -> CommandError:
    return CommandError(
        f"there is no session {session_id} (any more): `erni session list` shows those there are; a finished"
        f" one is forgotten SESSION_TTL after its last use{strange}"
    )
