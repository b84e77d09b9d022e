"""Connects to Redis with options that never repeat a command, and classifies its errors."""

from __future__ import annotations

import asyncio
import enum
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from redis import DriverInfo
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import (
    AuthenticationError,
    ClusterCrossSlotError,
    DataError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.utils import HIREDIS_AVAILABLE

from . import redis_address
from .cluster import ClusterClient, NotAClusterError
from .sentinel import PrimaryFinder, Sentinels, read_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .redis_address import RedisAddress
    from .sentinel import Named

BLOCK_SECONDS = 2.0
"""The longest wait of a blocking read. A read is never cancelled in flight; it runs to its end."""
SOCKET_TIMEOUT = 8.0
"""Seconds without an answer after which a connection counts as dead. Longer than a blocking read."""
WAIT_SECONDS = 1.0
"""How long one WAIT waits for replicas: less than the time limits of sockets, so that its answer arrives."""
ASK_TIMEOUT = 1.0
"""Seconds after which the next sentinel, or node of a cluster, is asked: they answer from memory."""


class Trouble(enum.Enum):
    """The meaning of a Redis error for us. Each value is a metric label."""

    AWAY = "away"
    """No connection, no answer in time, or the server went away in the middle."""
    LOADING = "loading"
    """The server is reading its data back, or is busy with a script."""
    READ_ONLY = "read_only"
    """We talk to a replica, or to a primary that must not write now: reconnect, because the role moved."""
    OUT_OF_MEMORY = "out_of_memory"
    NO_GROUP = "no_group"
    """The consumer group or its stream is gone (flush, DEL, failover)."""
    NO_PERMISSION = "no_permission"
    """Wrong password, or the ACL forbids the command: needs a person."""
    NO_PRIMARY = "no_primary"
    """The sentinels do not know the name in the address, or are none, or the address of a cluster leads to a
    single server, or the other way round: needs a person."""
    NOT_SENT = "not_sent"
    """Our own mistake: a key of the wrong type, a bad command. Another try does not help."""


# Most of these are plain ResponseErrors in redis-py: the first word tells them apart.
_BY_WORD = {
    "NOGROUP": Trouble.NO_GROUP,
    "UNBLOCKED": Trouble.NO_GROUP,
    "LOADING": Trouble.LOADING,
    "BUSY": Trouble.LOADING,
    "TRYAGAIN": Trouble.LOADING,
    "CLUSTERDOWN": Trouble.LOADING,
    "MASTERDOWN": Trouble.READ_ONLY,
    "READONLY": Trouble.READ_ONLY,
    "MISCONF": Trouble.READ_ONLY,
    "NOREPLICAS": Trouble.READ_ONLY,
    "OOM": Trouble.OUT_OF_MEMORY,
    "NOAUTH": Trouble.NO_PERMISSION,
    "WRONGPASS": Trouble.NO_PERMISSION,
    "NOPERM": Trouble.NO_PERMISSION,
    "DENIED": Trouble.NO_PERMISSION,
}
# redis-py strips the first word from errors it has a class for
_BY_CLASS = {
    "OutOfMemoryError": Trouble.OUT_OF_MEMORY,
    "ReadOnlyError": Trouble.READ_ONLY,
    "BusyLoadingError": Trouble.LOADING,
    "ClusterDownError": Trouble.LOADING,
    "TryAgainError": Trouble.LOADING,
    "MasterDownError": Trouble.READ_ONLY,
    "NoPermissionError": Trouble.NO_PERMISSION,
    "AuthenticationError": Trouble.NO_PERMISSION,
    "AuthenticationWrongNumberOfArgsError": Trouble.NO_PERMISSION,
    "SentinelError": Trouble.NO_PRIMARY,
    "NotAClusterError": Trouble.NO_PRIMARY,
}


def trouble_of(error: BaseException) -> Trouble | None:
    """Return the meaning of a Redis error; None if the error is not about Redis."""
    if not isinstance(error, RedisError):
        return None
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_CLASS:
            return _BY_CLASS[kind.__name__]
    if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
        return Trouble.AWAY
    text = str(error)
    if "instance state changed" in text:
        # UNBLOCKED as for a vanished stream, but here the server became a replica
        return Trouble.READ_ONLY
    # the whole word, which is the first one of an error inside a script too: BUSYGROUP is not BUSY
    trouble = _BY_WORD.get(text.partition(" ")[0])
    if trouble is not None:
        return trouble
    return Trouble.NOT_SENT if isinstance(error, ResponseError) else Trouble.AWAY


def _as_it_came(reply: Any, **_: Any) -> Any:
    return reply


# Their parsers make dicts of an entry's fields, which loses duplicate names and the fields' order.
_RAW_REPLIES = (
    "XREADGROUP",
    "XRANGE",
    "XREVRANGE",
    "XCLAIM",
    "XPENDING",
    "XREAD",
    "EVALSHA",
    "EVAL",
    "CLUSTER SLOTS",
)


_IN_C = HiredisRespSerializer() if HIREDIS_AVAILABLE else None
"""Writes a command where hiredis is installed, which upstream systems need not have."""


class _Sending(AbstractConnection):
    """Sends as redis-py does, with two repairs.

    * It bounds a write by `asyncio.wait_for`, which on Python 3.11 can swallow a cancellation (CPython
      issue 86296): a loop that was cancelled in that moment would go on for ever.
    * uvloop raises a RuntimeError for a write on a connection that just closed, where asyncio drops the
      bytes. Redis killed between our connecting and our first command is enough; it is an outage like any.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        # without a limit of its own it calls no wait_for; a connection serves one task at a time
        limit, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit):
                await super().send_packed_command(command, check_health)
        except TimeoutError as error:
            raise RedisTimeoutError(f"a command could not be sent within {limit:g} s") from error
        except RuntimeError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"the connection closed while a command was sent: {error}") from error
        finally:
            self.socket_timeout = limit

    def pack_command(self, *args: Any) -> list[bytes]:
        """Write a command in C: redis-py's asyncio way takes five times as long."""
        packed: list[bytes]
        if _IN_C is not None:
            with suppress(DataError):
                packed = _IN_C.pack(*args)
                return packed
        # it also says which word cannot be sent
        packed = super().pack_command(*args)
        return packed

    moved = False
    """Whether the server said that it must not write: another one is the primary now."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except RedisError as error:
            self.moved = trouble_of(error) is Trouble.READ_ONLY
            raise


class _OfOne(_Sending):
    """Connects to one server, and says what to do where that is a node of a cluster."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except (MovedError, ClusterCrossSlotError) as error:
            raise NotAClusterError(
                "this server is a node of a cluster: write redis+cluster:// instead of redis://"
                " (rediss+cluster:// with TLS), with the hosts and ports of some nodes behind it"
            ) from error


class _OfSet(_Sending):
    """Connects to the server that the sentinels name as the primary at this moment, and leaves any other."""

    host: str
    port: int

    def __init__(self, *, sentinels: PrimaryFinder, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options)

    async def connect_check_health(
        self,
        check_health: bool = True,  # noqa: FBT001, FBT002 - redis-py's signature
        retry_socket_connect: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        # the pool asks before each command
        if self.is_connected:
            if (self.host, self.port) == self._sentinels.named:
                return
            # an old primary takes writes until the sentinels make a replica of it, and loses them then
            await self.disconnect()
        self.host, self.port = await self._sentinels.primary()
        await super().connect_check_health(check_health, retry_socket_connect)


class _Pool(BlockingConnectionPool):
    """Leaves a server that must not write any more.

    After a failover the connections to the old primary stay open, and each of their writes would fail for
    ever. A new connection resolves the name again and finds the new primary.
    """

    async def release(self, connection: AbstractConnection) -> None:
        if isinstance(connection, _Sending) and connection.moved:
            connection.moved = False
            # those in use now end when they are given back: what they wait for may still be answered
            mark_those_in_use: Callable[[], Awaitable[None]] = self.update_active_connections_for_reconnect
            try:
                await mark_those_in_use()
                await self.disconnect(inuse_connections=False)
            except (RedisError, OSError):
                # they are closed all the same
                pass
            finally:
                await super().release(connection)
            return
        await super().release(connection)

    async def aclose(self) -> None:
        sentinels: PrimaryFinder | None = self.connection_kwargs.get("sentinels")
        if sentinels is not None:
            await sentinels.close()
        await super().aclose()


def connect(
    url: str,
    *,
    password: str = "",
    client_name: str = "erni",
    max_connections: int = 16,
    timeout: float = SOCKET_TIMEOUT,
) -> Redis:
    """Make a client that sends each command once: only the caller knows whether a write may be repeated.

    Replies of stream reads are as they came, nested lists of bytes (an entry is ``[id, [name, value, …]]``).
    `password` is used where the address has none; `timeout`: seconds without an answer (longer than
    BLOCK_SECONDS for blocking reads). Makes no connection yet; raises ValueError for an
    address it cannot read.
    """
    address = redis_address.read(url)
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": min(3.0, timeout),
        "client_name": client_name,
        "max_connections": max_connections,
        **address.connection,
        "db": address.db,
        "username": address.username,
        "password": address.password or password or None,
        "decode_responses": False,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "driver_info": _driver(),
        # more tasks than connections wait for each other, each wait bounded by the socket's time limit
        "timeout": None,
    }
    if address.nodes:
        soon = {"socket_timeout": ASK_TIMEOUT, "socket_connect_timeout": ASK_TIMEOUT}
        return ClusterClient(
            address.nodes, partial(_node, address, options), partial(_node, address, options | soon)
        )
    plain, place = _place(address)
    if address.sentinels:
        options["sentinels"] = PrimaryFinder(address, partial(_sentinel, address))
    return _client(_OfSet if address.sentinels else _OfOne, plain, options | place)


@cache
def _driver() -> DriverInfo:
    """Return how the client names itself. Without it, each connection reads its version from files again."""
    return DriverInfo()


def _client(kind: type[Any], plain: type[AbstractConnection], options: dict[str, Any]) -> Redis:
    options["connection_class"] = type(plain.__name__, (kind, plain), {})
    client = Redis.from_pool(_Pool(**options))
    callback: Callable[..., Any] = _as_it_came
    for command in _RAW_REPLIES:
        client.set_response_callback(command, callback)
    return client


def _node(address: RedisAddress, options: dict[str, Any], host: str, port: int) -> Redis:
    """Make a client of one node of a cluster."""
    plain, place = _place(address)
    return _client(_Sending, plain, options | place | {"host": host, "port": port})


def _place(address: RedisAddress) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """Return the kind of connection to an address, and its options for the place."""
    if address.scheme == "unix":
        return UnixDomainSocketConnection, {"path": address.path}
    where = {"host": address.host, "port": address.port}
    return (SSLConnection, where | address.tls) if address.is_tls else (Connection, where)


@asynccontextmanager
async def _sentinel(
    address: RedisAddress, host: str, port: int
) -> AsyncIterator[Callable[[], Awaitable[Named]]]:
    """Open a client of one sentinel, and yield what asks it. That raises what redis-py raises."""
    plain = SSLConnection if address.sentinel_tls else Connection
    pool = _Pool(
        connection_class=type(plain.__name__, (_Sending, plain), {}),
        host=host,
        port=port,
        username=address.sentinel_username,
        password=address.sentinel_password,
        socket_timeout=ASK_TIMEOUT,
        socket_connect_timeout=ASK_TIMEOUT,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        driver_info=_driver(),
        **(address.tls if address.sentinel_tls else {}),
    )
    questions = ("SENTINEL MASTER", "SENTINEL GET-MASTER-ADDR-BY-NAME")
    async with Redis.from_pool(pool) as client:
        callback: Callable[..., Any] = _as_it_came
        for question in questions:
            client.set_response_callback(question, callback)

        async def ask() -> Named:
            pipe = client.pipeline(transaction=False)
            for question in questions:
                pipe.execute_command(question, address.master)
            return read_answer(*await pipe.execute())

        yield ask


async def primary_of(url: str) -> tuple[str, int]:
    """Return host and port of the server an address leads to now, of a cluster its first node.

    Raises as `Sentinels.primary` does.
    """
    address = redis_address.read(url)
    if not address.sentinels:
        return address.host, address.port
    return await Sentinels(address, partial(_sentinel, address)).primary()


async def servers_of(redis: Redis) -> list[Redis]:
    """Return a plain client of each server behind a client: itself, or one for each primary of a cluster.

    Closing the client closes them. Raises what redis-py raises.
    """
    return await redis.primaries() if isinstance(redis, ClusterClient) else [redis]


def follows_primary(redis: Redis) -> bool:
    """Return whether a client goes to another server by itself when that one becomes the primary."""
    return isinstance(redis, ClusterClient) or "sentinels" in redis.connection_pool.connection_kwargs


async def server_of(redis: Redis, key: str) -> Redis:
    """Return a plain client of the server that has a key now. Raises what redis-py raises."""
    return await redis.home_of(key) if isinstance(redis, ClusterClient) else redis


async def call(redis: Redis, *words: str | bytes | float) -> Any:
    """Send one command and return its reply as it came. Raises what redis-py raises.

    redis-py's own methods, and `execute_command` too, have types that strict checks refuse: this is the one
    place that says what they are.
    """
    send: Callable[..., Awaitable[Any]] = redis.execute_command
    return await send(*words)


async def call_and_wait(redis: Redis, replicas: int, *words: str | bytes | float) -> tuple[Any, int]:
    """Send one command that writes, then WAIT; return its reply, and how many replicas have what it wrote.

    Both go over one connection, because WAIT speaks of the writes of its own connection. It returns after
    WAIT_SECONDS at the latest. Raises what redis-py raises; then nobody knows whether the command was run.
    """
    pipe = redis.pipeline(transaction=False)
    pipe.execute_command(*words)
    pipe.execute_command("WAIT", replicas, int(WAIT_SECONDS * 1000))
    reply, have = await pipe.execute(raise_on_error=False)
    for answer in (reply, have):
        if isinstance(answer, Exception):
            raise answer
    return reply, int(have)


__all__ = [
    "BLOCK_SECONDS",
    "SOCKET_TIMEOUT",
    "AuthenticationError",
    "NoScriptError",
    "RedisError",
    "Trouble",
    "call",
    "call_and_wait",
    "connect",
    "follows_primary",
    "primary_of",
    "server_of",
    "servers_of",
    "trouble_of",
]
