"""`erni report`: the HTML report of a session, made from what is there now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.arguments import checked, describe
from console.errors import CommandError
from events import identities, topology

if TYPE_CHECKING:
    import argparse

    from console.output import Output
    from shared.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni report SESSION`."""
    describe(
        parser,
        "Write the HTML report of a session as it stands now, complete or not, and say where it is. A "
        "session that completes gets one by itself.",
        "erni report seewen-2026-05-12",
        run=report,
    )
    parser.add_argument("session", metavar="SESSION", type=checked(identities.session_id))


async def report(options: argparse.Namespace, output: Output) -> int:
    """Write the report again."""
    from console import system
    from console.explain import leaving_no_folder

    settings = system.load()
    with leaving_no_folder(settings):
        return await _report(options, output, settings)


async def _report(options: argparse.Namespace, output: Output, settings: Settings) -> int:
    from console import sessions, system
    from console.explain import open_store, redis_client, strange_redis
    from console.places import place_of
    from shared.operations import photos
    from shared.operations.dead_letters import dead_of_session
    from shared.reports.facts import PostponedPhoto, SessionFacts
    from shared.reports.session_report import write_session_report

    store = open_store(settings)
    async with redis_client(settings) as redis:
        await system.require_same_store(redis, settings, store)
        view = await sessions.read(redis, options.session, settings)
        letters = await dead_of_session(redis, options.session, settings.lanes)
        waiting = await photos.postponed_of_session(redis, options.session, lanes=settings.lanes)
        strange = "" if view or letters else await strange_redis(redis, settings)
    # The session's own completion may be a dead letter too; it is no photo.
    dead = [letter for letter in letters if letter.stream != topology.COMPLETED]
    facts = SessionFacts(session_id=options.session)
    if view is not None:
        completed = view.status == "completed"
        facts = SessionFacts(
            session_id=options.session,
            completion=view.completion if completed else 0,
            expected=view.expected or None,
            counters={
                "received": view.received,
                "validated": view.validated,
                "dead": view.dead,
                "postponed": view.postponed,
            },
            postponed=[
                PostponedPhoto(
                    name=record.file_name or record.photo_id,
                    agent=part.agent,
                    reason=part.message,
                    attempts=part.attempts,
                    until=part.until,
                )
                for record, part in waiting
            ],
            created_at=view.created_at,
            completed_at=view.last_accessed if completed else None,
        )
    written = await write_session_report(store, facts, dead, jaeger_url=settings.jaeger_url)
    if view is None and not written.validated and not written.dead:
        await store.delete(written.report_ref)
        raise CommandError(f"nothing is known of a session {options.session} (any more){strange}")
    where = place_of(settings, written.report_ref)
    output.answer(
        {
            "session_id": options.session,
            "report": where,
            "validated": written.validated,
            "dead": written.dead,
            "needs_person": written.needs_person,
        }
    )
    if not output.as_json:
        people = f", {len(written.needs_person)} for a person to look at" if written.needs_person else ""
        output.say(f"{written.validated} validated{people}, {written.dead} dead")
        output.say(f"report  {where}")
    return 0
