"""Loads and runs Lua scripts. Each is a `.lua` file and is called by one Python function of its name."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoPermissionError

from .connection import NoScriptError, call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

HERE: Final = __name__.rpartition(".")[0]
"""The name of this package: `events` in the repository, `erni_events` in the distribution for upstreams."""


class Script:
    """Runs one script by its hash; sends its text only to a server that does not know it yet."""

    __slots__ = ("digest", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        """`text` begins with its ``#!lua`` line (Redis 7), which declares its flags."""
        self.name = name
        self.text = text.encode()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    async def __call__(
        self, redis: Redis, keys: Sequence[str], args: Sequence[str | bytes | int | float]
    ) -> Any:
        """Run it. Raises what redis-py raises; sent once, unless the server did not know the script.

        NoScriptError: the server does not know the script, and this user may only run what others loaded.
        """
        try:
            return await call(redis, "EVALSHA", self.digest, len(keys), *keys, *args)
        except NoScriptError:
            try:
                reply = await call(redis, "EVAL", self.text, len(keys), *keys, *args)
            except NoPermissionError:
                # the NoScriptError is what helps: it ends when somebody loads the script
                pass
            else:
                # the server restarted or failed over: publishers that may not load scripts wait for us
                await load_for_publishers(redis)
                return reply
            raise


@cache
def load(package: str, name: str, *parts: str) -> Script:
    """Load the script `<package>/lua/<name>.lua`, with `parts` (files of our own `lua/`) before its body.

    A part holds only local functions that several scripts share (how a session's counters move).
    """
    text = files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    shebang, body = text.split("\n", 1)
    shared = "".join(files(HERE).joinpath("lua", f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(name, f"{shebang}\n{shared}{body}")


def for_publishers() -> tuple[Script, ...]:
    """Return the scripts that a role may run without the right to load any (deploy/redis/users.acl)."""
    return load(HERE, "publish"), load(HERE, "publish_all"), load(HERE, "open_session", "session")


async def load_for_publishers(redis: Redis) -> None:
    """Load the scripts of publishers into the server, so far as this user may. Raises RedisError."""
    for script in for_publishers():
        try:
            await call(redis, "SCRIPT LOAD", script.text)
        except NoPermissionError:
            return
