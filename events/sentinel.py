"""Asks sentinels which server is the primary now."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .redis_address import RedisAddress

_DOWN = frozenset({"s_down", "o_down", "disconnected"})
"""Flags of a primary that its sentinel cannot reach: it may have been replaced already, or will be."""


class SentinelError(RedisError):
    """Report sentinels that do not know the name, or hosts that are no sentinels: a person has to act."""


class Sentinels:
    """Finds the primary of one set. Many connections share one."""

    def __init__(self, address: RedisAddress, ask: Callable[[str, int], Awaitable[dict[str, str]]]) -> None:
        """`ask` sends SENTINEL MASTER to one sentinel and returns its fields."""
        self._name = address.master
        self._ask = ask
        self._places = deque(address.sentinels)

    async def primary(self) -> tuple[str, int]:
        """Return host and port of the primary, as the first sentinel says that answers and sees it up.

        Raises redis-py's ConnectionError if a primary may come later (no answer, a fail-over goes on),
        SentinelError or AuthenticationError if a person has to change something.
        """
        failures: list[tuple[str, Exception]] = []
        # a copy: other connections may change the order meanwhile
        for host, port in tuple(self._places):
            try:
                fields = await self._ask(host, port)
                flags = set(fields.get("flags", "").split(","))
                if not flags & _DOWN:
                    return fields["ip"], int(fields["port"])
                raise RedisConnectionError("it sees the primary down")
            except (RedisError, OSError) as error:
                failures.append((f"{host}:{port}", error))
            if self._places[0] == (host, port):
                # the next connection begins with one that may know more
                self.distrust()
        raise self._refused(failures)

    def distrust(self) -> None:
        """Begin with the next sentinel: what this one says did not help, perhaps it knows no fail-over."""
        self._places.rotate(-1)

    def _refused(self, failures: list[tuple[str, Exception]]) -> RedisError:
        """Return what is to be raised when no sentinel named a primary."""
        denied = [
            place for place, error in failures if isinstance(error, (AuthenticationError, NoPermissionError))
        ]
        answered = [place for place, error in failures if isinstance(error, ResponseError)]
        said = "; ".join(f"{place}: {error}" for place, error in failures)[:400]
        if any("No such master" in str(error) for _, error in failures):
            return SentinelError(
                f"the sentinels know no primary named {self._name!r} ({said}): put the name of their"
                " `sentinel monitor` line behind the hosts of the address"
            )
        if denied:
            return AuthenticationError(
                f"the sentinels do not let us in ({said}): add ?sentinel_username=… and"
                " &sentinel_password=… to the address"
            )
        if len(answered) == len(failures):
            return SentinelError(
                f"none of the hosts is a sentinel ({said}): name the sentinels' ports (26379), not those"
                " of the servers that they watch"
            )
        return RedisConnectionError(f"no sentinel names a primary of {self._name!r} now: {said}")
