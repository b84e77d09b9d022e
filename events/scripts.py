"""Loads and runs Lua scripts. Each is a `.lua` file and is called by one Python function of its name."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoPermissionError

from .connection import NoScriptError, call, call_and_wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from importlib.resources.abc import Traversable

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
        return await self._run(redis, partial(call, redis), keys, args)

    async def and_wait(
        self, redis: Redis, keys: Sequence[str], args: Sequence[str | bytes | int | float], *, replicas: int
    ) -> tuple[Any, int]:
        """Run it, and wait until so many replicas have what it wrote; return its reply, and how many have it.

        A script that wrote nothing waits for nothing. With 0 replicas as `__call__`; raises what that raises.
        """
        if not replicas:
            return await self(redis, keys, args), 0
        reply: tuple[Any, int] = await self._run(redis, partial(call_and_wait, redis, replicas), keys, args)
        return reply

    async def _run(
        self,
        redis: Redis,
        send: Callable[..., Awaitable[Any]],
        keys: Sequence[str],
        args: Sequence[str | bytes | int | float],
    ) -> Any:
        try:
            return await send("EVALSHA", self.digest, len(keys), *keys, *args)
        except NoScriptError:
            try:
                reply = await send("EVAL", self.text, len(keys), *keys, *args)
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
    """Load the script `<package>/lua/<name>.lua`, with `parts` (beside it, or in our own `lua/`) before it.

    A part holds only local functions that several scripts share (how a session's counters move).
    """
    text = files(package).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    shebang, body = text.split("\n", 1)
    shared = "".join(_part(package, part).read_text(encoding="utf-8") for part in parts)
    return Script(name, f"{shebang}\n{shared}{body}")


def _part(package: str, name: str) -> Traversable:
    beside, ours = (files(place).joinpath("lua", f"{name}.lua") for place in (package, HERE))
    return beside if beside.is_file() else ours


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
