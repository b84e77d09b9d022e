"""`erni publish`: photos of this machine, or addresses of photos, become events."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from console import photo_files
from console.arguments import checked, describe
from console.errors import INTERRUPTED, CommandError
from console.photo_files import count
from console.rows import one_line
from events import identities, submission

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from redis.asyncio import Redis

    from console.output import Output
    from console.photo_files import PhotoFile
    from console.publishing import Batch, BatchPublisher
    from console.source_libraries import Listed
    from shared.photo_store import BlobStore
    from shared.settings import Settings

_MANY = 20
"""Photos above which a bar shows how far it is."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni publish PATH|URL…`."""
    describe(
        parser,
        "Submit photos. A folder means every photo in it and below; its bytes are put into the photo store "
        "first, so that agents on other machines see them. Published again with the same --session, only "
        "what is not there yet is published. A SharePoint library means the photos in it that are new or "
        "changed since the last time.",
        "erni publish photos/",
        "erni publish photos/ --session seewen-2026-05-12 --project 'Wohnhaus Seewen'",
        "erni publish https://example.com/1234.jpg --json",
        "erni publish sharepoint:/sites/Bau/Eingang",
        run=publish,
    )
    parser.add_argument(
        "what", nargs="+", metavar="PATH|URL", help="file, folder or address (http, store, sharepoint)"
    )
    parser.add_argument(
        "--session",
        metavar="ID",
        type=checked(identities.session_id),
        help="the session they belong to (default: a new one, named after folder and day)",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="of a SharePoint library all photos, also those that were published before",
    )
    parser.add_argument(
        "--bulk",
        action="store_true",
        help="for photos that can wait, such as those of past years: while other photos wait, at most one "
        "photo in ten is one of these",
    )
    parser.add_argument("--event-id", metavar="ID", help="the event's id, for a single photo")
    hints = parser.add_argument_group("what you know about all of them")
    hints.add_argument("--project", type=_said("hints.project"), metavar="TEXT", help="building project")
    hints.add_argument(
        "--place",
        type=_said("hints.place"),
        metavar="TEXT",
        help="where they were taken, if the photos don't say",
    )
    hints.add_argument(
        "--photographer", type=_said("hints.photographer"), metavar="TEXT", help="who took them"
    )
    hints.add_argument(
        "--taken-at",
        metavar="TIME",
        type=_words(submission.taken_at, "taken_at"),
        help="when, if the photos don't say: 2026-05-12",
    )
    hints.add_argument("--text", type=_said("hints.text"), metavar="TEXT", help="anything else, in words")
    place = parser.add_argument_group("where they go (default: SHAREPOINT_SITE and SHAREPOINT_LIBRARY)")
    place.add_argument(
        "--site", type=_said("target.site"), metavar="SITE", help="such as /sites/Bau, or the site's address"
    )
    place.add_argument(
        "--library", type=_said("target.library"), metavar="NAME", help="such as Referenzfotos"
    )


def _said(name: str) -> Callable[[str], str]:
    return _words(lambda text: submission.text(text, name), name)


def _words(reader: Callable[[str], str], name: str) -> Callable[[str], str]:
    """An argument type that does not call a value by its name in the event: argparse names the argument."""

    def read(text: str) -> str:
        try:
            return reader(text)
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{name} ")) from None

    return checked(read)


async def publish(options: argparse.Namespace, output: Output) -> int:
    """Publish everything that was named; exit code 1 if something could not be read."""
    from console import system
    from console.explain import leaving_no_folder

    settings = system.load()
    # a publish that is refused leaves no store behind, which would look like a system
    with leaving_no_folder(settings):
        return await _listed(options, output, settings)


async def _listed(options: argparse.Namespace, output: Output, settings: Settings) -> int:
    """List the libraries that were named, publish, and remember what was handed over."""
    from console.explain import open_store
    from console.source_libraries import SourceLibraries

    store = open_store(settings)
    async with SourceLibraries(settings, store) as libraries:
        try:
            listed = await libraries.look(options.what, again=options.again)
        except asyncio.CancelledError:
            raise CommandError(
                "interrupted: nothing is published. The same command publishes the photos", code=INTERRUPTED
            ) from None
        if listed.libraries and not listed.photos and not listed.others:
            output.answer({"session_id": None, "published": 0, "photos": []})
            output.say("there is no photo that is new or changed since the last time (--again publishes all)")
            return 0
        code = await _publish(options, output, settings, store, listed)
        if code == 0:
            await libraries.keep()
        return code


async def _publish(
    options: argparse.Namespace, output: Output, settings: Settings, store: BlobStore, listed: Listed
) -> int:
    from console import system
    from console.explain import no_trace, redis_client, redis_trouble
    from console.publish_traces import tracing
    from console.publishing import Batch, BatchPublisher, StoreError
    from events.connection import RedisError
    from events.intake import COMMAND_SOURCE
    from events.types import Hints, Target

    found = photo_files.find(listed.others)
    found = msgspec.structs.replace(found, photos=(*listed.photos, *found.photos))
    for path in found.leading_out:
        output.warn(f"erni: {one_line(path)} is a link that leads out of the folder: skipped")
    for path, reason in found.unreadable:
        output.warn(f"erni: {one_line(path)} cannot be read: {reason}")
    for host, trouble in _not_fetched(found.photos, settings).items():
        output.warn(
            f"erni: {trouble}. The agents decide by their own SOURCE_HOSTS: where it does not allow"
            f" {one_line(host)}, its photos become dead letters"
        )
    if not found.photos:
        raise CommandError("there is no photo to publish" + _skipped(found.skipped))
    if options.event_id is not None and len(found.photos) != 1:
        raise CommandError(f"--event-id is for one photo; there are {len(found.photos)}", code=2)
    known = (options.project, options.place, options.photographer, options.taken_at, options.text)
    target = Target(site=options.site, library=options.library)
    batch = Batch(
        session_id=options.session or photo_files.new_session_id(options.what),
        event_id=options.event_id,
        bulk=options.bulk,
        hints=Hints(
            project=options.project,
            place=options.place,
            photographer=options.photographer,
            taken_at=options.taken_at,
            text=options.text,
        )
        if any(known)
        else None,
        target=target if target != Target() else None,
    )
    async with redis_client(settings) as redis:
        publisher = BatchPublisher(redis, store, settings, source=COMMAND_SOURCE)
        try:
            await system.require_chosen(redis, settings)
            await system.require_same_store(redis, settings, store)
            # asked before, since what is published is a trace of us
            strange = await no_trace(redis, settings)
            with tracing(settings) as tracer, _progress(output, len(found.photos)) as (advance, wait):
                await publisher.publish(found.photos, batch, tracer=tracer, on_photo=advance, on_wait=wait)
            dead = await _dead_before(redis, publisher, batch, settings)
        except (RedisError, StoreError) as error:
            trouble = redis_trouble(error, settings) if isinstance(error, RedisError) else str(error)
            raise CommandError(f"{trouble}\nSo far {_so_far(publisher, batch, options)}") from error
        except asyncio.CancelledError:
            so_far = _so_far(publisher, batch, options)
            raise CommandError(f"interrupted: {so_far}", code=INTERRUPTED) from None
    failed = [*found.unreadable, *publisher.failed, *publisher.reused]
    fresh = sum(submission.fresh for submission in publisher.submitted)
    output.answer(
        {
            "session_id": batch.session_id,
            "published": fresh,
            "already_published": len(publisher.submitted) - fresh,
            "skipped": found.skipped,
            "failed": [{"file": path, "reason": reason} for path, reason in failed],
            "photos": publisher.submitted,
        }
    )
    if not output.as_json:
        output.say(f"{count(fresh)} published{_skipped(found.skipped)}")
        if publisher.expected or settings.session_backend == "memory":
            output.say(f"session  {batch.session_id}")
            output.say("follow   erni status --watch")
            output.say(f"photos   erni session show {batch.session_id}")
    _warn(output, publisher, batch, strange=strange, dead=dead)
    return 1 if failed else 0


def _not_fetched(photos: Sequence[PhotoFile], settings: Settings) -> dict[str, str]:
    """Return the hosts that our own SOURCE_HOSTS does not allow, each with the reason."""
    from yarl import URL

    from shared.fetching.guard import Hosts
    from shared.retry.errors import PermanentError

    hosts = Hosts(settings.source_hosts)
    found: dict[str, str] = {}
    for photo in photos:
        if not photo.url.lower().startswith(("http:", "https:")):
            continue
        try:
            address = URL(photo.url)
            hosts.check(address)
        except PermanentError as error:
            found.setdefault(address.host or photo.url, str(error))
        except ValueError:
            # the check of the event says what is wrong with such an address
            continue
    return found


async def _dead_before(redis: Redis, publisher: BatchPublisher, batch: Batch, settings: Settings) -> int:
    """Return how many of the photos that had been published before are dead letters now."""
    from shared.operations.dead_letters import dead_of_session

    known = {submission.photo_id for submission in publisher.submitted if not submission.fresh}
    if not known:
        return 0
    letters = await dead_of_session(redis, batch.session_id, settings.lanes)
    return len(known & {letter.photo_id for letter in letters})


def _warn(output: Output, publisher: BatchPublisher, batch: Batch, *, strange: str, dead: int) -> None:
    """Print what is no failure, but perhaps not what the caller meant. `dead`: as `_dead_before` has it."""
    for path, reason in publisher.failed:
        output.warn(f"erni: {one_line(path)} could not be read any more: {reason}")
    for name, reason in publisher.reused:
        output.warn(f"erni: {one_line(name)}: {reason}")
    known = [submission for submission in publisher.submitted if not submission.fresh]
    if known and batch.event_id is not None:
        output.warn(
            f"erni: the event id {batch.event_id} was published before (as entry {known[0].entry_id}):"
            " nothing was done now. Another photo needs another event id"
        )
    elif known:
        output.warn(
            f"erni: {len(known)} of {count(len(publisher.submitted))} had been published into"
            f" {batch.session_id} before: nothing was done for {'it' if len(known) == 1 else 'them'}"
        )
        if dead:
            output.warn(
                f"erni: {dead} of them {'is a dead letter' if dead == 1 else 'are dead letters'}. Look at the"
                f" cause (erni dead list --session {batch.session_id}), then replay: erni dead replay"
                f" --session {batch.session_id}"
            )
    counted = len(publisher.submitted)
    if publisher.expected > counted:
        output.warn(
            f"erni: {batch.session_id} expects {count(publisher.expected)} since an earlier publish and waits"
            f" for all of them; if there are no more, close it: erni session close {batch.session_id}"
        )
    elif 0 < publisher.expected < counted and len(known) < counted:
        output.warn(
            f"erni: {batch.session_id} expects {count(publisher.expected)} since an earlier publish: its"
            " report is written again when the others have ended"
        )
    if strange:
        output.warn(f"erni: {strange}. The photos wait there for agents")


def _skipped(number: int) -> str:
    return f"; {number} other file{'' if number == 1 else 's'} skipped" if number else ""


def _so_far(publisher: BatchPublisher, batch: Batch, options: argparse.Namespace) -> str:
    number = len(publisher.submitted)
    open_ = publisher.unanswered
    # those without an answer may have come in
    most = number or open_
    known = f"{count(most)} {'is' if most == 1 else 'are'}" if most else "nothing is"
    if open_:
        known = f"at least {known}" if number else f"at most {known}"
    same = "The same command" + ("" if options.session else f" with --session {batch.session_id}")
    return (
        f"{known} published. {same} publishes the others, and none"
        " twice"
        + (f"; if there are none, `erni session close {batch.session_id}` ends it" if most else "")
        + "."
    )


@contextmanager
def _progress(output: Output, total: int) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """A bar for many photos on a terminal; what to call after each photo, and with a reason to wait."""
    if total <= _MANY or not output.console.is_terminal:
        seen: set[str] = set()

        def say_once(text: str) -> None:
            if text not in seen:
                seen.add(text)
                output.warn(f"erni: waiting: {text}")

        yield lambda: None, say_once
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=output.console,
    ) as bar:
        task = bar.add_task("publishing", total=total)

        def advance() -> None:
            bar.update(task, advance=1, description="publishing")

        yield advance, lambda _: bar.update(task, description="waiting for room")
