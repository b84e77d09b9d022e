"""`erni mcp`: the read side of the pipeline as tools for an assistant."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from console.arguments import describe
from console.errors import CommandError

if TYPE_CHECKING:
    import argparse

    from console.output import Output


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni mcp`."""
    describe(
        parser,
        "Serve the read side as tools for an assistant: status, sessions, photos, dead letters, search,"
        " and the dry run of a replay. It speaks the Model Context Protocol on standard input and output:"
        " an MCP client starts it. No tool changes anything. The role is that of the key in ERNI_KEY,"
        " without one viewer.",
        "erni mcp",
        run=mcp,
    )


async def mcp(options: argparse.Namespace, _output: Output) -> int:
    """Serve until the client closes standard input."""
    from console import system
    from console.explain import redis_client
    from console.mcp import callers
    from console.mcp.server import serve
    from shared.operations.access_keys import Uses
    from shared.telemetry.redact import remember_secrets, secrets_of

    if options.json:
        raise CommandError("standard output belongs to the protocol: erni mcp has no --json", code=2)
    if sys.stdin.isatty():
        raise CommandError(
            "an MCP client starts this command and speaks with it: name it in the client's configuration"
            " (docs/mcp.md)",
            code=2,
        )
    settings = system.load()
    key = os.environ.get(callers.ENVIRONMENT, "")
    remember_secrets([*secrets_of(settings), key])
    async with redis_client(settings) as redis:
        if key:
            # a wrong key is said now, where the client shows why a server did not start
            await callers.caller_of(redis, key, Uses(redis))
        await serve(redis, settings, key)
    return 0
