"""`erni doctor`: is everything there that the pipeline needs, and if not, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from console.arguments import checked, describe
from console.errors import CommandError
from shared.operations.sizing import photos_a_day

if TYPE_CHECKING:
    import argparse

    from console.checks import Check
    from console.output import Output

_BEFORE: Final = 21
"""Cells before a sentence."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni doctor`."""
    describe(
        parser,
        "Check the settings and everything they point at: Redis (version, persistence, eviction), SharePoint "
        "(sign-in, site, library, columns), the vision model, the photo store (written, read, deleted), "
        "traces.",
        "erni doctor",
        "erni doctor --json | jq '.checks[] | select(.state == \"failed\")'",
        "erni doctor --size 500000/day",
        run=doctor,
    )
    parser.add_argument(
        "--size",
        type=checked(photos_a_day),
        metavar="N/day",
        help="measure for a few seconds, and say what these photos need: processes, lanes, memory of Redis "
        "(also N/hour, N/year)",
    )


async def doctor(options: argparse.Namespace, output: Output) -> int:
    """Exit code 1 if something failed."""
    if options.size is not None:
        return await _size(options.size, output)
    from console.checks import Check, examine
    from shared import settings as settings_module

    checks: list[Check] = []

    def tell(check: Check) -> None:
        checks.append(check)
        if not output.as_json:
            _tell(output, check)

    try:
        settings = settings_module.load()
    except settings_module.SettingsError as error:
        for line in str(error).splitlines()[1:]:
            tell(Check(part="settings", state="failed", sentence=line.strip()))
    else:
        tell(Check(part="settings", state="ok", sentence="every value can be used"))
        async for check in examine(settings):
            tell(check)
    failed = sum(check.state == "failed" for check in checks)
    output.answer({"ok": not failed, "checks": checks})
    if not output.as_json:
        output.say()
        output.say(
            f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks are fine"
        )
    return 1 if failed else 0


async def _size(daily: float, output: Output) -> int:
    from console import sizing, system
    from console.explain import redis_client, redis_trouble
    from events.connection import RedisError
    from shared.photos.decoder_child import DecoderError
    from shared.retry.errors import TransientError

    settings = system.load()
    async with redis_client(settings) as redis:
        try:
            found = await sizing.measure(settings, redis, daily)
        except RedisError as error:
            raise CommandError(redis_trouble(error, settings)) from error
        except (DecoderError, TransientError) as error:
            raise CommandError(f"the speed of this machine cannot be measured: {error}") from error
    output.answer(found)
    if not output.as_json:
        for line in sizing.lines(found, settings):
            output.say(line)
    return 0


def _tell(output: Output, check: Check) -> None:
    style = {"ok": "", "failed": "bold red", "skipped": "dim"}[check.state]
    output.tell(f"{check.state:<8} {check.part:<11} {check.sentence}", style=style, hang=_BEFORE)
