"""Sends each command to the node of a Redis Cluster that serves its key.

A lane is one slot, so a plain client for each node is enough: a command goes to the node of its keys, and on
to where that one sends it. (redis-py's own asyncio client of a cluster sends ASKING and the command behind it
over two connections of a pool, so it fails while a slot moves.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

Place: TypeAlias = tuple[str, int]
"""Host and port of a node."""
Command: TypeAlias = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Words and options, as redis-py's pipelines keep them."""

HOPS: Final = 6
"""How often a command is sent on before it counts as sent in circles. A slot that moves takes two."""
_HOME: Final = key_slot(b"erni:system")
"""The slot whose node answers what concerns no key (TIME, PING)."""
_KEYLESS: Final = frozenset(
    (
        *("ACL", "ASKING", "AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "DEBUG", "ECHO"),
        *("FLUSHALL", "FLUSHDB", "FUNCTION", "HELLO", "INFO", "KEYS", "LATENCY", "MODULE", "MONITOR", "PING"),
        *("ROLE", "SCAN", "SCRIPT", "SHUTDOWN", "SLOWLOG", "TIME", "WAIT", "WAITAOF"),
    )
)
_SUBCOMMANDS: Final = frozenset({"MEMORY", "OBJECT", "XGROUP", "XINFO"})


class NotAClusterError(ResponseError):
    """Report an address whose kind does not fit the server, cluster or not: a person has to change it."""


class SentInCirclesError(RedisConnectionError):
    """Report nodes that send a command from one to the other: they have to agree first, so try again."""


class _AllPools(ConnectionPool):
    """Closes the connections to all nodes. It has none of its own, but the options of theirs."""

    def __init__(self, nodes: dict[Place, Redis]) -> None:
        first = next(iter(nodes.values())).connection_pool
        super().__init__(connection_class=first.connection_class, **first.connection_kwargs)
        self._of = nodes

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        for client in tuple(self._of.values()):
            await client.connection_pool.disconnect(inuse_connections)
        await super().disconnect(inuse_connections)


class _Together(Pipeline):
    """Sends commands about one slot, and those without a key beside them, over one connection of its node."""

    def __init__(self, client: ClusterClient) -> None:
        super().__init__(
            client.connection_pool, client.response_callbacks, transaction=False, shard_hint=None
        )
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's signature
        commands, self.command_stack = self.command_stack, []
        replies = await self._client.send(commands)
        if raise_on_error:
            self.raise_first_error(commands, replies)
        return replies


class ClusterClient(Redis):
    """Looks like a client of one server. The keys of one command have to lie in one slot.

    A command is sent again only where a node answered that it did not run it. When a node does not answer,
    the next command asks another one where the slots are.
    """

    def __init__(
        self,
        places: Sequence[Place],
        node: Callable[[str, int], Redis],
        impatient: Callable[[str, int], Redis],
    ) -> None:
        """`places`: some nodes, of which one that answers is enough. `node` makes a client of one node.

        `impatient` makes one that asks where the slots are, and soon gives up: the next node knows it too.
        """
        self._make = node
        self._make_impatient = impatient
        self._nodes: dict[Place, Redis] = {places[0]: node(*places[0])}
        self._seeds = tuple(places)
        self._known = deque(places)
        """The places to ask where slots are, the best first."""
        self._ranges: list[tuple[int, int, Place]] = []
        """First and last slot, and the primary that serves them."""
        self._slots: dict[int, Place] = {}
        """Of the slots used so far."""
        self._looking = asyncio.Lock()
        super().__init__(connection_pool=_AllPools(self._nodes))

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's signature
        """Close the connections to all nodes."""
        await super().aclose(close_connection_pool is not False)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command to the node of its keys. Raises what redis-py raises, and NotAClusterError."""
        if args[0] == "SCRIPT LOAD":
            return await self._everywhere(args, options)
        (reply,) = await self.send([(args, options)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, *_: Any, **__: Any) -> Pipeline:
        """Collect commands about keys of one slot. They are no transaction: our scripts are."""
        return _Together(self)

    async def scan_iter(  # type: ignore[override]  # as redis-py's client for asyncio has it
        self,
        match: Any = None,
        count: int | None = None,
        _type: str | None = None,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """Yield the keys of every node. One that moves meanwhile may come twice or not at all."""
        for node in await self.primaries():
            async for key in node.scan_iter(match, count, _type, **options):
                yield key

    async def primaries(self) -> list[Redis]:
        """Return a plain client for each node that serves slots now. Raises as `execute_command` does.

        Each call asks, and asks another node than the last one: what a node says may be out of date, and the
        clients that it leads to do not come back here when they fail.
        """
        self._ask_last(self._known[0])
        await self._look(again=True)
        return self._primaries()

    def _primaries(self) -> list[Redis]:
        return [self._client(place) for place in dict.fromkeys(place for _, _, place in self._ranges)]

    async def home_of(self, key: str) -> Redis:
        """Return a plain client of the node that serves a key now. Raises as `execute_command` does."""
        return self._client(await self._place(key_slot(key.encode())))

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands about one slot over one connection; return replies and ResponseErrors, in order."""
        slot = next((found for words, _ in commands if (found := slot_of(words)) is not None), _HOME)
        place, asking = await self._place(slot), False
        replies: list[Any] = [None] * len(commands)
        due = list(range(len(commands)))
        for _ in range(HOPS):
            try:
                answers = await self._send_to(place, [commands[number] for number in due], asking=asking)
            except (RedisError, OSError):
                self._forget(place)
                raise
            for number, reply in zip(due, answers, strict=True):
                replies[number] = self._understood(reply, place)
            # MOVED and ASK: the node did not run the command
            refused = [number for number in due if isinstance(replies[number], AskError)]
            if not refused:
                return replies
            last = replies[refused[-1]]
            # an empty host is the one that answers
            place = (last.host or place[0], int(last.port))
            asking = not isinstance(last, MovedError)
            if not asking:
                self._slots[slot] = place
                # the list of primaries is out of date, too: scripts must reach the new one
                self._ranges = []
            # what has no key (WAIT, SCRIPT LOAD) belongs to the commands beside it
            due = [number for number in due if number in refused or slot_of(commands[number][0]) is None]
        self._forget(place)
        raise SentInCirclesError(
            f"the cluster sends a command in circles, last to {place[0]}:{place[1]}: its nodes disagree"
        )

    def _understood(self, reply: Any, place: Place) -> Any:
        """Look at a reply for what it says about the cluster, and return it."""
        if isinstance(reply, (ClusterDownError, ReadOnlyError)):
            self._forget(place)
        if isinstance(reply, ClusterCrossSlotError):
            return ClusterCrossSlotError(
                "CROSSSLOT these keys do not lie in one slot of the cluster: set LANES (6, for example), the"
                " same number for agents, upstream systems and commands"
            )
        return reply

    async def _send_to(self, place: Place, commands: Sequence[Command], *, asking: bool) -> list[Any]:
        node = self._client(place)
        if len(commands) == 1 and not asking:
            words, options = commands[0]
            try:
                return [await _call(node, *words, **options)]
            except ResponseError as error:
                return [error]
        pipe = node.pipeline(transaction=False)
        ours: list[bool] = []
        for words, options in commands:
            if asking and slot_of(words) is not None:
                # it counts for the next command of its connection only
                pipe.execute_command("ASKING")
                ours.append(False)
            pipe.execute_command(*words, **options)
            ours.append(True)
        replies = await pipe.execute(raise_on_error=False)
        return [reply for reply, is_ours in zip(replies, ours, strict=True) if is_ours]

    async def _everywhere(self, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Send a command to every primary; one that does not answer gets the script from whoever needs it."""
        await self._look()
        nodes = self._primaries()
        sent = (_call(node, *args, **options) for node in nodes)
        replies = await asyncio.gather(*sent, return_exceptions=True)
        failed = [reply for reply in replies if isinstance(reply, BaseException)]
        answers = [reply for reply in replies if not isinstance(reply, BaseException)]
        if failed:
            # ask again the next time: its replica may have taken its place
            self._ranges = []
        for error in failed:
            if not answers or not isinstance(error, (RedisConnectionError, OSError)):
                raise error
        return answers[0]

    def _client(self, place: Place) -> Redis:
        client = self._nodes.get(place)
        if client is None:
            client = self._nodes[place] = self._make(*place)
        return client

    async def _place(self, slot: int) -> Place:
        place = self._slots.get(slot)
        if place is None:
            await self._look()
            served = (there for first, last, there in self._ranges if first <= slot <= last)
            # nobody serves it: any node says CLUSTERDOWN, or knows more than the one that was asked
            place = self._slots[slot] = next(served, self._known[0])
        return place

    async def _look(self, *, again: bool = False) -> None:
        """Ask which primary serves which slots, unless that is known; `again`: in any case."""
        if self._ranges and not again:
            return
        async with self._looking:
            if self._ranges and not again:
                return
            failures: list[tuple[Place, Exception]] = []
            for place in tuple(self._known):
                try:
                    async with self._make_impatient(*place) as node:
                        rows = await _slots(node)
                except (RedisError, OSError) as error:
                    failures.append((place, error))
                    continue
                self._learn(place, rows)
                return
            for _, failure in failures:
                if isinstance(failure, (AuthenticationError, NoPermissionError, NotAClusterError)):
                    raise failure
            said = "; ".join(f"{host}:{port}: {failure}" for (host, port), failure in failures)[:400]
            raise RedisConnectionError(f"no node of the cluster answers now: {said}") from failures[0][1]

    def _learn(self, asked: Place, rows: Sequence[Any]) -> None:
        """Note the answer to CLUSTER SLOTS: first slot, last slot, the primary, its replicas."""
        known, self._ranges = [asked], []
        for first, last, *nodes in rows:
            places = [((host or b"").decode() or asked[0], int(port)) for host, port, *_ in nodes]
            self._ranges.append((first, last, places[0]))
            known += places
        self._known = deque(dict.fromkeys([*known, *self._seeds]))

    def _forget(self, place: Place) -> None:
        """Ask again where the slots are, this node last: it does not answer, or knows too little.

        The node that named it comes just before it: it may be cut off from the others.
        """
        self._slots.clear()
        self._ranges = []
        self._ask_last(self._known[0])
        self._ask_last(place)

    def _ask_last(self, place: Place) -> None:
        if place in self._known:
            self._known.remove(place)
            self._known.append(place)


def slot_of(words: Sequence[Any]) -> int | None:
    """Return the slot of the first key of a command, because all have the same; None if it names no key."""
    name, *more = words[0].split(" ")
    name = name.upper()
    at = 1
    if name in _KEYLESS:
        return None
    if name in ("EVALSHA", "EVAL", "EVALSHA_RO", "EVAL_RO"):
        if not int(words[2]):
            return None
        at = 3
    elif name in ("XREAD", "XREADGROUP"):
        at = words.index("STREAMS") + 1
    elif name in _SUBCOMMANDS and not more:
        at = 2
    if at >= len(words):
        return None
    key = words[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


async def _call(node: Redis, *words: Any, **options: Any) -> Any:
    send: Callable[..., Awaitable[Any]] = node.execute_command
    return await send(*words, **options)


async def _slots(node: Redis) -> list[Any]:
    try:
        rows: list[Any] = await _call(node, "CLUSTER SLOTS")
    except NoPermissionError as error:
        raise NoPermissionError(
            f"{error}: a cluster's clients ask for its slots, so add +cluster|slots to the user's rules"
        ) from error
    except ResponseError as error:
        if "cluster support disabled" not in str(error):
            raise
        raise NotAClusterError(
            "this server is no node of a cluster: write redis:// instead of redis+cluster:// (rediss:// with"
            " TLS)"
        ) from error
    return rows
