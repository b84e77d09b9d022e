"""`erni redis-cli`: the command line of Redis, connected to the system of this folder."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
from typing import TYPE_CHECKING, NoReturn

from console.arguments import describe
from console.errors import CommandError

if TYPE_CHECKING:
    from console.output import Output
    from shared.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni redis-cli [COMMAND …]`."""
    describe(
        parser,
        "Run the command line of Redis (the bundled one, else the one on PATH), connected to the Redis "
        "of this system. Without a command it asks for one after the other.",
        "erni redis-cli XLEN erni:photo.submitted",
        "erni redis-cli -- --bigkeys",
        run=redis_cli,
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="command and arguments; options after --"
    )


def redis_cli(options: argparse.Namespace, _output: Output) -> NoReturn:
    """Become that program. Raises CommandError if there is none."""
    from console import system
    from events import redis_address

    if options.json:
        raise CommandError("--json: redis-cli has its own output; put its option after --", code=2)
    settings = system.load()
    # nobody knows here which commands change something
    system.require_named(settings)
    address = redis_address.read(settings.redis_url)
    program = _program()
    asyncio.run(_require_answer(settings))
    words = [program]
    if address.path:
        words += ["-s", address.path]
    else:
        host, port = _server(settings)
        words += ["-h", host, "-p", str(port)]
    words += ["-n", str(address.db)]
    if address.is_tls:
        words.append("--tls")
    if address.nodes:
        # it follows a key to its node
        words.append("-c")
    if address.username:
        words += ["--user", address.username]
    # in the environment, because everybody on the machine can read the words
    password = address.password or str.__str__(settings.redis_password)
    environment = {**os.environ, **({"REDISCLI_AUTH": password} if password else {})}
    given = options.words[1:] if options.words[:1] == ["--"] else options.words
    os.execve(program, [*words, *given], environment)  # noqa: S606 - it becomes that program


async def _require_answer(settings: Settings) -> None:
    """Raise CommandError if no Redis answers; whether it lets somebody in is between them and the program."""
    from console.explain import redis_client, redis_trouble
    from events.connection import RedisError, Trouble, call, trouble_of

    try:
        async with redis_client(settings, whose=False) as redis:
            await call(redis, "PING")
    except (RedisError, OSError) as error:
        if trouble_of(error) in (None, Trouble.AWAY):
            raise CommandError(redis_trouble(error, settings)) from None


def _server(settings: Settings) -> tuple[str, int]:
    """Return host and port of the server. Raises CommandError if the sentinels name none."""
    from console.explain import redis_trouble
    from events.connection import RedisError, primary_of

    try:
        return asyncio.run(primary_of(settings.redis_url))
    except (RedisError, OSError) as error:
        raise CommandError(redis_trouble(error, settings)) from error


def _program() -> str:
    """Return the path of the program. Raises CommandError."""
    from sandbox.redis_server import ValkeyError, find_server

    try:
        bundled = find_server().path.with_name("valkey-cli")
    except ValkeyError:
        bundled = None
    if bundled is not None and os.access(bundled, os.X_OK):
        return str(bundled)
    found = shutil.which("valkey-cli") or shutil.which("redis-cli")
    if found is None:
        raise CommandError("there is no valkey-cli and no redis-cli on this machine: install one of them")
    return found
