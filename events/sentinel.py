"""Asks sentinels which server is the primary now, and goes on asking while there are connections to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from .redis_address import RedisAddress

    Session = Callable[[str, int], AbstractAsyncContextManager[Callable[[], Awaitable["Named"]]]]

WATCH_SECONDS = 0.5
"""Seconds between two questions to the same sentinel. `SENTINEL FAILOVER` leaves the old primary up, and
without these questions nobody would hear of the new one until the old one refuses a write."""
_GRACE = 0.05
"""Seconds for the last sentinels when most have answered: one of them may be the first to know more."""
_DOWN = frozenset({"s_down", "o_down", "disconnected"})
"""Flags of a primary that its sentinel cannot reach: it may have been replaced already, or will be."""

Place = tuple[str, int]
"""Host and port."""


class SentinelError(RedisError):
    """Report sentinels that do not know the name, or hosts that are no sentinels: a person has to act."""


class Named(msgspec.Struct, frozen=True):
    """Hold what one sentinel says about the primary."""

    place: Place
    epoch: int
    """The number of the fail-over that made it the primary: the higher one is right (Sentinel's
    ``config-epoch``)."""
    up: bool
    """Whether the sentinel reaches it."""


def read_answer(words: Sequence[bytes], address: Sequence[bytes] | None) -> Named:
    """Read the replies to SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME.

    Only the second one names the new primary while other replicas are still being sent to it; the first one
    has the new epoch by then. Raises redis-py's ConnectionError if there is no address.
    """
    if address is None:
        raise RedisConnectionError("it has no address of the primary")
    fields = dict(zip(words[::2], words[1::2], strict=True))
    flags = fields.get(b"flags", b"").decode().split(",")
    host, port = address
    return Named(
        place=(host.decode(), int(port)),
        epoch=int(fields.get(b"config-epoch", 0)),
        # during a fail-over the flags are still those of the old one
        up=_DOWN.isdisjoint(flags) or (fields.get(b"ip"), fields.get(b"port")) != (host, port),
    )


class PrimaryFinder:
    """Lets one client ask for the primary, together with the other clients of the same address."""

    def __init__(self, address: RedisAddress, session: Session) -> None:
        """`session` opens a client of one sentinel, which can be asked again and again."""
        self._address = address
        self._session = session
        self._shared: Sentinels | None = None

    @property
    def named(self) -> Place | None:
        """Return the primary as it is known now. A connection to another place must not be used."""
        return self._shared.named if self._shared else None

    async def primary(self) -> Place:
        """Ask now, and notice later changes until `close`. Raises as `Sentinels.primary` does."""
        self._shared = shared = self._find()
        shared.join(self)
        place = await shared.primary()
        shared.watch()
        return place

    def _find(self) -> Sentinels:
        address = self._address
        login = (address.sentinel_username, address.sentinel_password)
        tls = (address.sentinel_tls, *sorted(address.tls.items()))
        key = (asyncio.get_running_loop(), address.sentinels, address.master, login, tls)
        found = _SHARED.get(key)
        if found is None:
            found = _SHARED[key] = Sentinels(address, self._session)
        return found

    async def close(self) -> None:
        """Leave the others; the last one ends the questions. The next `primary` begins them again."""
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.leave(self)


class Sentinels:
    """Finds the primary of one set, and notices a new one."""

    def __init__(self, address: RedisAddress, session: Session) -> None:
        """`session` opens a client of one sentinel, which can be asked again and again."""
        self.named: Place | None = None
        """The primary as it is known now. A connection that leads to another place must not be used."""
        self._name = address.master
        self._session = session
        self._places: tuple[Place, ...] = tuple(dict.fromkeys(address.sentinels))
        self._epoch = -1
        self._heard: dict[Place, Named] = {}
        """The last answer of each sentinel that answers."""
        self._watch: asyncio.Task[Any] | None = None
        self._finders: set[PrimaryFinder] = set()

    async def primary(self) -> Place:
        """Return host and port of the primary, as the sentinels say with the highest epoch.

        All are asked at once. More than half are enough, so one that hangs costs nearly no time; fewer are
        believed if nobody else answers, but never with an older epoch than before. Raises redis-py's
        ConnectionError if a primary may come later (no answer, a fail-over goes on), SentinelError or
        AuthenticationError if a person has to change something.
        """
        asked = {asyncio.create_task(self._ask_once(place)): place for place in self._places}
        failures: list[tuple[str, Exception]] = []
        answered = 0
        left = set(asked)
        try:
            while left:
                newest = self._newest
                enough = answered >= self._majority and newest is not None and newest.up
                done, left = await asyncio.wait(
                    left, timeout=_GRACE if enough else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    try:
                        self._hear(asked[task], task.result())
                        answered += 1
                    except (RedisError, OSError) as error:
                        self._heard.pop(asked[task], None)
                        failures.append(("{}:{}".format(*asked[task]), error))
                if enough and not done:
                    break
        finally:
            await _end(left)
        if not answered:
            raise self._refused(failures)
        newest = self._newest
        if newest is None:
            # the watcher found in the meantime that those who answered do not answer any more
            raise self._away(failures)
        if newest.place != self.named:
            failures.append((f"{answered} of {len(asked)}", RedisConnectionError("an older primary")))
        elif not newest.up:
            failures.append((f"{answered} of {len(asked)}", RedisConnectionError("the primary is down")))
        else:
            return newest.place
        raise self._away(failures)

    async def _ask_once(self, place: Place) -> Named:
        async with self._session(*place) as ask:
            return await ask()

    @property
    def _majority(self) -> int:
        return len(self._places) // 2 + 1

    @property
    def _newest(self) -> Named | None:
        # the one in use where two have the same epoch: nobody is sent to and fro
        heard = self._heard.values()
        return max(heard, key=lambda one: (one.epoch, one.up, one.place == self.named), default=None)

    def _hear(self, place: Place, answer: Named) -> None:
        """Note an answer, and what follows from all of them.

        A sentinel that was cut off names the old primary with an old epoch, and is outvoted by a single
        higher one. Only more than half together can go back to a lower one: a person has made the set again.
        """
        self._heard[place] = answer
        newest = self._newest or answer
        if newest.epoch >= self._epoch or len(self._heard) >= self._majority:
            self._epoch, self.named = newest.epoch, newest.place

    def join(self, finder: PrimaryFinder) -> None:
        """Keep what is known until this one leaves."""
        self._finders.add(finder)

    def watch(self) -> None:
        """Go on asking each sentinel until everybody who joined has left."""
        if self._finders and (self._watch is None or self._watch.done()):
            self._watch = asyncio.create_task(self._follow_all(), name="sentinels")

    async def leave(self, finder: PrimaryFinder) -> None:
        """End the questions and their connections if nobody else has joined."""
        self._finders.discard(finder)
        if self._finders:
            return
        task, self._watch = self._watch, None
        self._heard.clear()
        if task is not None:
            await _end([task])

    async def _follow_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(self._follow(place), name="sentinel {}:{}".format(*place))

    async def _follow(self, place: Place) -> None:
        async with self._session(*place) as ask:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                try:
                    self._hear(place, await ask())
                except (RedisError, OSError, ValueError):
                    # what it said before does not count against the others
                    self._heard.pop(place, None)

    def _away(self, failures: list[tuple[str, Exception]]) -> RedisConnectionError:
        said = _said(failures)
        return RedisConnectionError(f"no sentinel names a primary of {self._name!r} now: {said}")

    def _refused(self, failures: list[tuple[str, Exception]]) -> RedisError:
        """Return what is to be raised when no sentinel named a primary."""
        denied = [
            place for place, error in failures if isinstance(error, (AuthenticationError, NoPermissionError))
        ]
        answered = [place for place, error in failures if isinstance(error, ResponseError)]
        said = _said(failures)
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
        return self._away(failures)


_SHARED: WeakValueDictionary[Hashable, Sentinels] = WeakValueDictionary()
"""By event loop and address. A process has two clients for each lane, and all watch together."""


def _said(failures: list[tuple[str, Exception]]) -> str:
    return "; ".join(f"{place}: {error}" for place, error in failures)[:400]


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
