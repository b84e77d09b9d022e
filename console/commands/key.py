"""`erni key add|list|rotate|remove`: the keys for publishing and reading over HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from console import durations
from console.arguments import checked, describe, subcommands, words
from console.errors import CommandError
from shared.operations.access_keys import GRACE_SECONDS, ROLES, InvalidKeyError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from console.output import Output
    from shared.operations.access_keys import AccessKey

_NOBODY: Final = "there is no key {}: `erni key list` shows those there are"


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni key …`."""
    add = subcommands(
        parser,
        "Keys for the gateway: a system publishes with one, a person reads with one. Only a hash is kept.",
        "erni key add camera-app --role publisher --source urn:camera-app",
        "erni key list",
    )
    adding = add("add", "make a key and print it once")
    describe(
        adding,
        "Make a key and print it. It is shown this one time, because only its hash is kept. A viewer reads. "
        "A publisher publishes for its own source and reads what it published. An operator and an admin "
        "publish and read everything; in the web console an operator replays and pauses, and an admin also "
        "discards, forgets and manages keys.",
        "erni key add camera-app --role publisher --source urn:camera-app",
        "erni key add dashboard --role viewer",
        run=add_,
    )
    adding.add_argument("name", metavar="NAME", type=words, help="what the key is for, such as camera-app")
    adding.add_argument("--role", choices=ROLES, required=True, help="what it may do")
    adding.add_argument(
        "--source",
        metavar="URN",
        type=words,
        default="",
        help="the CloudEvents source it publishes for; a publisher needs one",
    )
    adding.add_argument(
        "--require-idempotency-key",
        action="store_true",
        help="refuse uploads without the header Idempotency-Key",
    )
    describe(
        add("list", "the keys there are"),
        "The keys there are, with their roles and sources.",
        "erni key list",
        run=list_,
    )
    rotating = add("rotate", "make a new key of the same name, and print it once")
    describe(
        rotating,
        "Make a new key with the same name, role and source, and print it. The old one works for some time, "
        "too, so that a system can be changed without a gap. If somebody else knows the old key, end it at "
        "once: --grace 0s.",
        "erni key rotate camera-app",
        "erni key rotate camera-app --grace 0s",
        run=rotate,
    )
    rotating.add_argument("name", metavar="NAME", type=words)
    rotating.add_argument(
        "--grace",
        metavar="DURATION",
        type=checked(durations.seconds),
        default=GRACE_SECONDS,
        help="how long the old key works, too (default: 24h, at most 90d; 0s: every old key ends at once)",
    )
    removing = add("remove", "a key stops working")
    describe(
        removing,
        "Remove a key. A running gateway refuses it within 5 seconds.",
        "erni key remove camera-app",
        run=remove,
    )
    removing.add_argument("name", metavar="NAME", type=words)


async def add_(options: argparse.Namespace, output: Output) -> int:
    """Make a key and print it."""
    from console import system
    from console.person import person
    from shared.operations import access_keys

    async with system.changing() as (redis, _):
        try:
            key = await access_keys.add(
                redis,
                options.name,
                options.role,
                source=options.source,
                needs_idempotency_key=options.require_idempotency_key,
                by=person(),
            )
        except InvalidKeyError as error:
            raise CommandError(str(error), code=2) from None
    output.answer({"name": options.name, "role": options.role, "source": options.source, "key": key})
    if not output.as_json:
        output.say(key)
        output.warn("keep it now: it is not shown again. Send it as the header `Authorization: Bearer KEY`")
    return 0


async def list_(_options: argparse.Namespace, output: Output) -> int:
    """List the keys, without what is secret."""
    from console import system
    from console.explain import redis_client
    from shared.operations import access_keys

    settings = system.load()
    async with redis_client(settings) as redis:
        keys = await access_keys.all_keys(redis)
        used = await access_keys.last_uses(redis)
    output.answer(
        {
            "keys": [
                {
                    "name": key.name,
                    "role": key.role,
                    "source": key.source,
                    "needs_idempotency_key": key.needs_idempotency_key,
                    "created_at": key.created_at,
                    "last_used_at": used.get(key.name),
                    "old_until": _old_until(key),
                }
                for key in keys
            ]
        }
    )
    if not output.as_json:
        _print(output, keys, used)
    return 0


def _print(output: Output, keys: Sequence[AccessKey], used: Mapping[str, float]) -> None:
    if not keys:
        output.say("there is no key yet; `erni key add NAME --role publisher --source URN` makes one")
        return
    wide = max(len(key.name) for key in keys)
    for key in keys:
        made = durations.clock(key.created_at)
        last = f"last used {durations.clock(used[key.name])}" if key.name in used else "never used"
        output.say(f"{key.name:<{wide}}  {key.role:<9}  made {made}  {last}  {key.source or '-'}")
        if until := _old_until(key):
            output.say(f"{'':<{wide}}  the key before it works until {durations.clock(until)}")


def _old_until(key: AccessKey) -> float | None:
    """Return until when the key before a rotation works; None if it does not."""
    return key.old_until if key.old_until > time.time() else None


async def rotate(options: argparse.Namespace, output: Output) -> int:
    """Make a new key of the same name."""
    from console import system
    from console.person import person
    from shared.operations import access_keys

    async with system.changing() as (redis, _):
        try:
            key = await access_keys.rotate(redis, options.name, grace=options.grace, by=person())
        except InvalidKeyError as error:
            raise CommandError(str(error), code=2) from None
    if key is None:
        raise CommandError(_NOBODY.format(options.name))
    until = time.time() + options.grace if options.grace else None
    output.answer({"name": options.name, "key": key, "old_until": until})
    if not output.as_json:
        output.say(key)
        output.warn("keep it now: it is not shown again. Send it as the header `Authorization: Bearer KEY`")
        old = f"works until {durations.clock(until)}" if until else "stops working within 5 seconds"
        output.warn(f"the old key {old}")
    return 0


async def remove(options: argparse.Namespace, output: Output) -> int:
    """Remove a key."""
    from console import system
    from console.person import person
    from shared.operations import access_keys

    async with system.changing() as (redis, _):
        removed = await access_keys.remove(redis, options.name, by=person())
    if not removed:
        raise CommandError(_NOBODY.format(options.name))
    output.answer({"name": options.name, "removed": True})
    if not output.as_json:
        output.say(f"{options.name} is removed; a running gateway refuses it within 5 seconds")
    return 0
