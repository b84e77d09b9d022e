"""`erni webhook add|list|remove|rotate|disable|enable`: who is notified over HTTP of the ends of photos."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from console import durations
from console.arguments import checked, describe, subcommands, words
from console.errors import CommandError
from shared.webhooks.endpoints import SIGNATURES
from shared.webhooks.notices import EVENTS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from console.output import Output
    from shared.operations.webhooks import Registered
    from shared.webhooks.endpoints import Endpoint

_NOBODY: Final = "there is no web hook {}: `erni webhook list` shows those there are"


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni webhook …`."""
    add = subcommands(
        parser,
        "Web hooks: the notifier posts a signed notice when a photo is validated or failed, or when a session"
        " is reported.",
        "erni webhook add https://example.com/hooks --source urn:camera-app",
        "erni webhook list",
    )
    adding = add("add", "register an address and print its secret once")
    describe(
        adding,
        "Register an address. It hears of the ends of the photos that the source submitted, from two seconds "
        "after this command on. The secret, with which the receiver checks the signature, is shown this one "
        "time.",
        "erni webhook add https://example.com/hooks --source urn:camera-app",
        "erni webhook add https://example.com/failures --source urn:camera-app --events photo.failed",
        run=add_,
    )
    adding.add_argument("url", metavar="URL", type=words, help="the address that notices are posted to")
    adding.add_argument(
        "--source",
        metavar="URN",
        type=words,
        required=True,
        help="the CloudEvents source whose photos it hears of",
    )
    adding.add_argument(
        "--events",
        metavar="EVENT[,EVENT]",
        type=checked(_events),
        default=EVENTS,
        help=f"{', '.join(EVENTS)} (default: all of them)",
    )
    adding.add_argument(
        "--signature",
        choices=SIGNATURES,
        default="v1",
        help="v1: a shared secret (default); v1a: ed25519, the receiver has a public key",
    )
    describe(
        add("list", "the web hooks there are, and how they do"),
        "The web hooks there are: on, failing (since when, why, and when the next try is) or off.",
        "erni webhook list",
        run=list_,
    )
    _of_one(
        add("remove", "nothing more is posted"),
        "Remove a web hook. Its notices that wait are dropped.",
        "remove",
        run=remove,
    )
    _of_one(
        add("rotate", "make a new secret"),
        "Make a new secret and print it once. For 24 hours each notice is signed with the old one, too.",
        "rotate",
        run=rotate,
    )
    _of_one(
        add("disable", "switch a web hook off for a while"),
        "Switch a web hook off until it is switched on again. No notice is written for it meanwhile; notices "
        "that wait become dead letters.",
        "disable",
        run=disable,
    )
    _of_one(
        add("enable", "switch a web hook on again"),
        "Switch a web hook on that is off because it answered 410, failed for 5 days or was disabled. Then "
        "replay its notices: erni dead replay --agent webhook_notifier",
        "enable",
        run=enable,
    )


def _of_one(parser: argparse.ArgumentParser, what: str, word: str, *, run: object) -> None:
    describe(parser, what, f"erni webhook {word} wh_4f1d2c3b5a69", run=run)
    parser.add_argument("id", metavar="ID", type=words, help="as `erni webhook list` shows it")


def _events(text: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [event for event in chosen if event not in EVENTS]
    if unknown or not chosen:
        raise ValueError(f"give one or more of {', '.join(EVENTS)}, separated by commas")
    return chosen


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Raise CommandError for what cannot be as it was asked for, and for an endpoint that cannot be read."""
    from shared.operations import webhooks

    try:
        yield
    except webhooks.InvalidWebhookError as error:
        raise CommandError(str(error), code=2) from None
    except webhooks.UnreadableEndpointError as error:
        raise CommandError(str(error)) from None


async def add_(options: argparse.Namespace, output: Output) -> int:
    """Register an address."""
    from console import system
    from console.person import person
    from shared.operations import webhooks

    async with system.changing() as (redis, settings):
        with _in_a_sentence():
            registered = await webhooks.add(
                redis,
                settings,
                options.url,
                source=options.source,
                events=options.events,
                signed=options.signature,
                by=person(),
            )
    _print_secret(output, registered)
    if options.url.startswith("http:") and not output.as_json:
        output.warn("the address is not https: whoever is on the way can read the notices")
    return 0


def _print_secret(output: Output, registered: Registered) -> None:
    endpoint, what = registered.endpoint, registered.verify_with
    name = "secret" if endpoint.signature == "v1" else "public_key"
    output.answer({"id": endpoint.id, "signature": endpoint.signature, name: what})
    if output.as_json:
        return
    output.say(f"{endpoint.id}  {what}")
    if endpoint.signature == "v1":
        output.warn("keep the secret now: it is not shown again. The receiver checks the signature with it")
    else:
        output.warn("the receiver checks the signature with this public key")


async def list_(_options: argparse.Namespace, output: Output) -> int:
    """List the web hooks, without what is secret."""
    from console import system
    from console.explain import redis_client
    from shared.operations import webhooks

    settings = system.load()
    async with redis_client(settings) as redis:
        with _in_a_sentence():
            found = await webhooks.all_webhooks(redis)
        tries = await webhooks.next_tries(redis, found, lanes=settings.lanes)
    output.answer({"webhooks": [_document(endpoint, tries.get(endpoint.id)) for endpoint in found]})
    if not output.as_json:
        _print(output, found, tries)
    return 0


def _document(endpoint: Endpoint, next_try: float | None) -> dict[str, object]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "source": endpoint.source,
        "events": list(endpoint.events),
        "signature": endpoint.signature,
        "state": endpoint.state,
        "created_at": endpoint.created_at,
        "delivered_at": endpoint.delivered_at or None,
        "failing_since": endpoint.failing_since or None,
        "next_try_at": next_try,
        "off_since": endpoint.off_since or None,
        "error": endpoint.off_reason or endpoint.error,
    }


def _print(output: Output, found: Sequence[Endpoint], tries: Mapping[str, float]) -> None:
    if not found:
        output.say("there is no web hook yet; `erni webhook add URL --source URN` registers one")
        return
    for endpoint in found:
        output.say(f"{endpoint.id}  {endpoint.state:<7}  {endpoint.source}  {endpoint.url}")
        output.say(f"    {', '.join(endpoint.events)}")
        if endpoint.off_since:
            since = durations.clock(endpoint.off_since)
            output.warn(f"    off since {since}: {endpoint.off_reason}. erni webhook enable {endpoint.id}")
        elif endpoint.failing_since:
            output.warn(f"    failing since {durations.clock(endpoint.failing_since)}: {endpoint.error}")
            if endpoint.id in tries:
                output.warn(f"    next try at {durations.clock(tries[endpoint.id])}")


async def remove(options: argparse.Namespace, output: Output) -> int:
    """Remove a web hook."""
    from console import system
    from console.person import person
    from shared.operations import webhooks

    async with system.changing() as (redis, _):
        if not await webhooks.remove(redis, options.id, by=person()):
            raise CommandError(_NOBODY.format(options.id))
    output.answer({"id": options.id, "removed": True})
    if not output.as_json:
        output.say(f"{options.id} is removed; nothing more is posted there")
    return 0


async def rotate(options: argparse.Namespace, output: Output) -> int:
    """Make a new secret."""
    from console import system
    from console.person import person
    from shared.operations import webhooks

    async with system.changing() as (redis, _):
        with _in_a_sentence():
            registered = await webhooks.rotate(redis, options.id, by=person())
    if registered is None:
        raise CommandError(_NOBODY.format(options.id))
    _print_secret(output, registered)
    return 0


async def disable(options: argparse.Namespace, output: Output) -> int:
    """Switch a web hook off until somebody switches it on."""
    from console import system
    from console.person import person
    from shared.operations import webhooks

    async with system.changing() as (redis, _):
        with _in_a_sentence():
            disabled = await webhooks.disable(redis, options.id, by=person())
    if not disabled:
        raise CommandError(_NOBODY.format(options.id))
    output.answer({"id": options.id, "enabled": False})
    if not output.as_json:
        output.say(f"{options.id} is off. Switch it on again: erni webhook enable {options.id}")
    return 0


async def enable(options: argparse.Namespace, output: Output) -> int:
    """Switch a web hook on again."""
    from console import system
    from console.person import person
    from shared.operations import webhooks

    async with system.changing() as (redis, _):
        with _in_a_sentence():
            enabled = await webhooks.enable(redis, options.id, by=person())
    if not enabled:
        raise CommandError(_NOBODY.format(options.id))
    output.answer({"id": options.id, "enabled": True})
    if not output.as_json:
        output.say(f"{options.id} is on; notices that died meanwhile wait for a replay:")
        output.say("    erni dead replay --agent webhook_notifier")
    return 0
