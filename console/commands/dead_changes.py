"""`erni dead replay|discard|restore`: what changes dead letters, as operations that the console shows too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from console.errors import CommandError
from console.person import person

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from console.output import Output
    from shared.operations.bulk import Bulk, Kind, Selection
    from shared.operations.dead_letters import DeadFilter
    from shared.settings import Settings

NOTHING: Final = ": nothing matches (erni dead list shows what there is)"

_TAKEN: Final = "another process works on this operation already: see the console's page Activity"


def changing(options: argparse.Namespace, verb: str) -> DeadFilter:
    """Return the filter of a command that changes something: none at all must be meant."""
    from console.commands.dead import filter_of

    wanted = filter_of(options)
    if wanted.empty and not options.all:
        raise CommandError(
            f"without a filter this would {verb} every dead letter: give one (see --help), or --all", code=2
        )
    if not wanted.empty and options.all:
        raise CommandError("--all and a filter exclude each other", code=2)
    return wanted


def bulk_of(redis: Redis, settings: Settings) -> Bulk:
    """Return what runs operations on many dead letters."""
    from shared.operations.bulk import Bulk

    return Bulk(
        redis,
        lanes=settings.lanes,
        session_ttl=settings.session_ttl,
        archive_days=settings.archive_days,
    )


async def replay(options: argparse.Namespace, output: Output) -> int:
    """Replay what matches; exit code 1 if one of them cannot be."""
    from console import system
    from console.commands.dead import count
    from console.explain import redis_client

    wanted = changing(options, "replay")
    settings = system.load()
    async with redis_client(settings) as redis:
        bulk = bulk_of(redis, settings)
        if options.dry_run:
            return await _dry_run(bulk, wanted, output)
        await system.require_chosen(redis, settings)
        selection = await bulk.select(wanted, "replay")
        outcomes, refused = await _run(redis, bulk, "replay", selection, output, rate=options.rate)
    output.answer(
        {
            "dry_run": False,
            **{name: outcomes[name] for name in ("replayed", "gone", "refused")},
            "refusals": refused,
        }
    )
    if not output.as_json:
        gone = f"; {outcomes['gone']} were gone: somebody else was faster" if outcomes["gone"] else ""
        nothing = "" if any(outcomes.values()) else NOTHING
        output.say(f"{count(outcomes['replayed'])} replayed{gone}{nothing}")
    return 1 if refused else 0


async def _run(
    redis: Redis,
    bulk: Bulk,
    kind: Kind,
    selection: Selection,
    output: Output,
    *,
    rate: float | None = None,
    for_good: bool = False,
) -> tuple[Mapping[str, int], list[dict[str, str]]]:
    """Run an operation here; return how many had which outcome, and the refusals."""
    from console.commands.dead import count
    from events.connection import RedisError
    from shared.operations.bulk_runner import LEASE_SECONDS, LeaseLostError, lease
    from shared.operations.scripts import OvertakenError

    outcomes = dict.fromkeys(("replayed", "discarded", "restored", "deleted", "gone", "refused"), 0)
    refused: list[dict[str, str]] = []
    if not selection.upto:
        return outcomes, refused
    who = person()
    operation = await bulk.start(kind, selection, who, rate=rate, driver="command", for_good=for_good)
    done = {"replay": "replayed", "discard": "discarded", "restore": "restored", "delete": "deleted"}[kind]
    try:
        async with lease(redis, operation.id) as mine:
            if not mine:
                raise CommandError(_TAKEN)
            async for result in bulk.run(operation):
                outcomes[result.outcome] += 1
                if result.outcome == "refused":
                    refused.append({"id": result.letter.id, "message": result.message})
                    output.warn(f"erni: {result.letter.id}: {result.message}")
    except (LeaseLostError, OvertakenError):
        raise CommandError(
            f"{count(outcomes[done])} {done} so far, then another process took over, or Redis did not answer"
            f" for {LEASE_SECONDS:g} s; the others are where they were: run the command again, or resume the"
            " operation on the console's page Activity"
        ) from None
    except (asyncio.CancelledError, RedisError) as error:
        if any(outcomes.values()):
            output.warn(f"{count(outcomes[done])} {done} so far; the others are where they were")
        if isinstance(error, asyncio.CancelledError):
            await bulk.stop(operation.id, who)
        raise
    return outcomes, refused


async def _dry_run(bulk: Bulk, wanted: DeadFilter, output: Output) -> int:
    from console.commands.dead import count, name_of
    from console.rows import fitted

    letters = [letter async for letter in bulk.letters.find(wanted)]
    output.answer({"dry_run": True, "would_replay": len(letters), "letters": letters})
    if not output.as_json:
        for letter in letters:
            output.say(f"{letter.id:<20} {letter.agent:<20} {fitted(name_of(letter), output.width, 42)}")
        output.say(
            f"{count(len(letters))} would be replayed{'; nothing was changed' if letters else NOTHING}"
        )
    return 0


async def discard(options: argparse.Namespace, output: Output) -> int:
    """Move what matches into the archive, or delete it, after asking."""
    from console import system
    from console.asking import sure
    from console.commands.dead import count
    from console.explain import redis_client

    wanted = changing(options, "discard")
    settings = system.load()
    days = 0 if options.for_good else settings.archive_days
    async with redis_client(settings) as redis:
        await system.require_chosen(redis, settings)
        bulk = bulk_of(redis, settings)
        selection = await bulk.select(wanted, "discard")
        if selection.count and not options.yes:
            fate = _fate(days, for_good=options.for_good)
            output.warn(f"{count(selection.count)} will be {fate}, with the entries in them")
            if not sure("Discard them?"):
                raise CommandError("nothing was discarded")
        outcomes, _ = await _run(redis, bulk, "discard", selection, output, for_good=options.for_good)
    output.answer({"discarded": outcomes["discarded"]})
    if not output.as_json:
        back = "; back with: erni dead restore" if days and outcomes["discarded"] else ""
        nothing = "" if any(outcomes.values()) else NOTHING
        output.say(f"{count(outcomes['discarded'])} discarded{back}{nothing}")
    return 0


def _fate(days: int, *, for_good: bool) -> str:
    if days:
        return f"moved into the archive for {days} days"
    return f"deleted for good ({'--for-good' if for_good else 'ARCHIVE_DAYS=0'})"


async def restore(options: argparse.Namespace, output: Output) -> int:
    """Move what matches back out of the archive."""
    from console import system
    from console.commands.dead import count
    from console.explain import redis_client

    wanted = changing(options, "restore")
    settings = system.load()
    async with redis_client(settings) as redis:
        await system.require_chosen(redis, settings)
        bulk = bulk_of(redis, settings)
        selection = await bulk.select(wanted, "restore")
        outcomes, _ = await _run(redis, bulk, "restore", selection, output)
    output.answer({"restored": outcomes["restored"]})
    if not output.as_json:
        nothing = "" if any(outcomes.values()) else ": nothing matches (erni dead archive list shows them)"
        output.say(f"{count(outcomes['restored'])} restored{nothing}")
    return 0


async def delete(options: argparse.Namespace, output: Output) -> int:
    """Delete what matches in the archive for good, after asking."""
    from console import system
    from console.asking import sure
    from console.commands.dead import count
    from console.explain import redis_client

    wanted = changing(options, "delete")
    settings = system.load()
    async with redis_client(settings) as redis:
        await system.require_chosen(redis, settings)
        bulk = bulk_of(redis, settings)
        selection = await bulk.select(wanted, "delete")
        if selection.count and not options.yes:
            output.warn(f"{count(selection.count)} in the archive will be deleted for good")
            if not sure("Delete them?"):
                raise CommandError("nothing was deleted")
        outcomes, _ = await _run(redis, bulk, "delete", selection, output)
    output.answer({"deleted": outcomes["deleted"]})
    if not output.as_json:
        nothing = "" if any(outcomes.values()) else ": nothing matches (erni dead archive list shows them)"
        output.say(f"{count(outcomes['deleted'])} deleted{nothing}")
    return 0
