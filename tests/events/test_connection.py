"""Commands are sent once, and every error of Redis has one meaning; most are provoked on a real server."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import DataError, RedisError, ResponseError

from events import connection
from events.connection import Trouble, call, connect, trouble_of
from events.publisher import Publisher
from events.types import PhotoSubmitted
from sandbox.redis_server import Valkey, free_port
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.events.conftest import LossyLine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that the tests of this file put into every kind of trouble, and out of it again."""
    options = {
        "enable-debug-command": "local",
        "dir": str(tmp_path_factory.mktemp("data")),
        "appendonly": "no",
    }
    with Valkey(tmp_path_factory.mktemp("troubled"), options=options) as running:
        yield running


@pytest.fixture
async def admin(server: Valkey) -> AsyncIterator[Redis]:
    """A client to make the trouble with; whatever the test did is undone."""
    async with connect(server.url) as client:
        await client.flushall()
        yield client


@asynccontextmanager
async def configured(admin: Redis, **values: str | int) -> AsyncIterator[None]:
    """The server with other settings, put back afterwards."""
    names = {name.replace("_", "-"): value for name, value in values.items()}
    before: dict[str, Any] = {name: (await admin.config_get(name))[name] for name in names}
    for name, value in names.items():
        await admin.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            await admin.config_set(name, value)


async def raised_by(call: Awaitable[Any]) -> RedisError:
    with pytest.raises(RedisError) as caught:
        await call
    return caught.value


async def command(client: Redis, *words: Any) -> Any:
    call: Callable[..., Awaitable[Any]] = client.execute_command
    return await call(*words)


# --- what a server says -----------------------------------------------------------------------------------


async def test_a_group_that_is_not_there(admin: Redis) -> None:
    error = await raised_by(command(admin, "XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"))
    assert trouble_of(error) is Trouble.NO_GROUP
    script = "return redis.call('XPENDING', KEYS[1], 'g')"
    assert trouble_of(await raised_by(command(admin, "EVAL", script, 1, "s"))) is Trouble.NO_GROUP


@pytest.mark.parametrize("end", ["DEL s", "XGROUP DESTROY s g", "FLUSHALL", "SET s x"])
async def test_a_group_that_goes_away_under_a_blocking_read(admin: Redis, server: Valkey, end: str) -> None:
    await command(admin, "XGROUP", "CREATE", "s", "g", "0", "MKSTREAM")
    async with connect(server.url) as reader:
        read = asyncio.create_task(
            raised_by(command(reader, "XREADGROUP", "GROUP", "g", "c", "BLOCK", 5000, "STREAMS", "s", ">"))
        )
        await until(lambda: _blocked(admin))
        await command(admin, *end.split())
        trouble = trouble_of(await read)
    # a key of another type in the stream's place does not mend itself
    assert trouble is (Trouble.NOT_SENT if end.startswith("SET") else Trouble.NO_GROUP)


async def _blocked(admin: Redis) -> bool:
    return bool((await admin.info("clients"))["blocked_clients"])


async def test_a_group_that_exists_already_is_no_busy_server(admin: Redis) -> None:
    await command(admin, "XGROUP", "CREATE", "s", "g", "0", "MKSTREAM")
    error = await raised_by(command(admin, "XGROUP", "CREATE", "s", "g", "0"))
    assert str(error).startswith("BUSYGROUP")
    assert trouble_of(error) is Trouble.NOT_SENT


async def test_a_server_that_became_a_replica(admin: Redis, server: Valkey) -> None:
    await command(admin, "XGROUP", "CREATE", "s", "g", "0", "MKSTREAM")
    async with connect(server.url) as reader:
        read = asyncio.create_task(
            raised_by(command(reader, "XREADGROUP", "GROUP", "g", "c", "BLOCK", 5000, "STREAMS", "s", ">"))
        )
        await until(lambda: _blocked(admin))
        try:
            await command(admin, "REPLICAOF", "127.0.0.1", free_port())
            assert trouble_of(await read) is Trouble.READ_ONLY
            assert trouble_of(await raised_by(admin.set("k", "v"))) is Trouble.READ_ONLY
            script = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], 'v')"
            assert trouble_of(await raised_by(command(admin, "EVAL", script, 1, "k"))) is Trouble.READ_ONLY
            async with configured(admin, replica_serve_stale_data="no"):
                error = await raised_by(admin.get("k"))
                assert "MASTER is down" in str(error)
                assert trouble_of(error) is Trouble.READ_ONLY
        finally:
            await command(admin, "REPLICAOF", "NO", "ONE")


async def test_a_primary_with_too_few_replicas(admin: Redis) -> None:
    async with configured(admin, min_replicas_to_write=1):
        error = await raised_by(admin.set("k", "v"))
    assert str(error).startswith("NOREPLICAS")
    assert trouble_of(error) is Trouble.READ_ONLY


async def test_a_server_that_cannot_write_to_its_disk(admin: Redis, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with Valkey(tmp_path / "server", options={"dir": str(data), "save": "3600 1", "appendonly": "no"}) as own:
        async with connect(own.url) as client:
            await client.set("k", "v")
            shutil.rmtree(data)
            # not awaited by its reply: what counts is how it ended
            await client.bgsave()
            await until(lambda: _save_failed(client))
            plain = await raised_by(client.set("k", "v"))
            script = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], 'v')"
            inside = await raised_by(command(client, "EVAL", script, 1, "k"))
            await client.config_set("save", "")
    assert str(plain).startswith("MISCONF")
    assert str(inside).startswith("MISCONF")
    assert trouble_of(plain) is trouble_of(inside) is Trouble.READ_ONLY


async def _save_failed(client: Redis) -> bool:
    return bool((await client.info("persistence"))["rdb_last_bgsave_status"] == "err")


async def test_a_server_at_its_memory_limit(admin: Redis) -> None:
    async with configured(admin, maxmemory=1):
        plain = await raised_by(admin.set("k", "v"))
        whole = await raised_by(command(admin, "EVAL", "#!lua\nreturn redis.call('SET', KEYS[1], 1)", 1, "k"))
        inside = await raised_by(command(admin, "EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "k"))
    assert {trouble_of(error) for error in (plain, whole, inside)} == {Trouble.OUT_OF_MEMORY}


async def test_a_server_that_reads_its_data_back(admin: Redis, server: Valkey) -> None:
    await command(admin, "DEBUG", "POPULATE", 2000, "key", 200)
    async with (
        connect(server.url) as other,
        configured(admin, key_load_delay=500, loading_process_events_interval_bytes=1024),
    ):
        reload = asyncio.create_task(command(admin, "DEBUG", "RELOAD"))
        troubles: set[Trouble | None] = set()
        while not reload.done():
            try:
                await other.get("k")
            except RedisError as error:
                troubles.add(trouble_of(error))
            await asyncio.sleep(0)
        await reload
    assert troubles == {Trouble.LOADING}


async def test_a_server_busy_with_a_script(admin: Redis, server: Valkey) -> None:
    async with connect(server.url) as stuck, configured(admin, lua_time_limit=1):
        looping = asyncio.create_task(raised_by(command(stuck, "EVAL", "while true do end", 0)))
        try:
            error = await until(lambda: _refused(admin))
            assert error is not None
        finally:
            await command(admin, "SCRIPT", "KILL")
            await looping
    assert str(error).startswith("BUSY")
    assert trouble_of(error) is Trouble.LOADING


async def _refused(client: Redis) -> RedisError | None:
    try:
        await client.get("k")
    except RedisError as error:
        return error
    return None


async def test_who_may_not_come_in(admin: Redis, server: Valkey) -> None:
    await command(admin, "ACL", "SETUSER", "reader", "on", ">pw", "+get", "~k")
    address = server.url.removeprefix("redis://")
    try:
        async with connect(f"redis://reader:pw@{address}", client_name="") as reader:
            await reader.get("k")
            assert trouble_of(await raised_by(reader.set("k", "v"))) is Trouble.NO_PERMISSION
            assert trouble_of(await raised_by(reader.get("other"))) is Trouble.NO_PERMISSION
        async with connect(f"redis://reader:wrong@{address}") as stranger:
            assert trouble_of(await raised_by(stranger.get("k"))) is Trouble.NO_PERMISSION
        async with connect(server.url, password="wrong") as late:
            assert trouble_of(await raised_by(late.get("k"))) is Trouble.NO_PERMISSION
        async with configured(admin, requirepass="pw"):
            async with connect(server.url) as nobody:
                assert trouble_of(await raised_by(nobody.get("k"))) is Trouble.NO_PERMISSION
            async with connect(server.url, password="pw") as somebody:
                await somebody.get("k")
    finally:
        await command(admin, "ACL", "DELUSER", "reader")


async def test_a_cluster_that_does_not_serve(tmp_path: Path) -> None:
    with Valkey(tmp_path, options={"cluster-enabled": "yes", "cluster-port": str(free_port())}) as node:
        async with connect(node.url) as client:
            error = await raised_by(client.set("k", "v"))
    assert trouble_of(error) is Trouble.LOADING


async def test_our_own_mistakes_are_not_waited_out(admin: Redis) -> None:
    await admin.set("k", "v")
    mistakes = [
        command(admin, "XADD", "k", "*", "a", "b"),
        command(admin, "EVAL", "return redis.call('XADD', KEYS[1], '*', 'a', 'b')", 1, "k"),
        command(admin, "EVAL", "error('OOM in a text is no word of the server')", 0),
        command(admin, "NOSUCH"),
        command(admin, "XADD", "s"),
        command(admin, "EVALSHA", "0" * 40, 0),
    ]
    assert {trouble_of(await raised_by(mistake)) for mistake in mistakes} == {Trouble.NOT_SENT}


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("TRYAGAIN Multiple keys request during rehashing of slot", Trouble.LOADING),
        ("CLUSTERDOWN The cluster is down and only accepts read commands", Trouble.LOADING),
        ("UNBLOCKED the stream key no longer exists", Trouble.NO_GROUP),
        ("NOGROUP the consumer group this client was blocked on no longer exists", Trouble.NO_GROUP),
        ("NOAUTH HELLO must be called with the client already authenticated", Trouble.NO_PERMISSION),
        ("DENIED Redis is running in protected mode", Trouble.NO_PERMISSION),
        ("MISCONF Errors writing to the AOF file: No space left on device", Trouble.READ_ONLY),
        ("READONLY Can not run script with write flag on readonly replica", Trouble.READ_ONLY),
        ("BUSYKEY Target key name already exists.", Trouble.NOT_SENT),
        ("CROSSSLOT Keys in request don't hash to the same slot", Trouble.NOT_SENT),
    ],
)
def test_texts_of_servers_that_are_hard_to_provoke(text: str, trouble: Trouble) -> None:
    from redis._parsers.base import BaseParser  # how the client makes an exception of a reply

    parse: Callable[[str], Exception] = BaseParser.parse_error
    assert trouble_of(parse(text)) is trouble
    assert trouble_of(ResponseError(text)) is trouble


# --- no answer --------------------------------------------------------------------------------------------


async def test_nobody_there() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        assert trouble_of(await raised_by(client.ping())) is Trouble.AWAY


async def test_a_server_killed_under_a_read(own_redis_server: Valkey) -> None:
    async with connect(own_redis_server.url) as reader, connect(own_redis_server.url) as watcher:
        read = asyncio.create_task(raised_by(command(reader, "BLPOP", "k", 5)))
        await until(lambda: _blocked(watcher))
        own_redis_server.kill()
        assert trouble_of(await read) is Trouble.AWAY


async def test_a_server_that_does_not_answer() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with (
        silent,
        connect(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}", timeout=0.05) as client,
    ):
        assert trouble_of(await raised_by(client.ping())) is Trouble.AWAY


def test_an_error_that_is_not_about_redis() -> None:
    assert trouble_of(ValueError("OOM")) is None
    assert trouble_of(ConnectionResetError()) is None


# --- once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?retry_on_timeout=true&decode_responses=true&protocol=3"])
async def test_a_command_whose_reply_is_lost_is_not_sent_again(
    redis: Redis, line: LossyLine, query: str
) -> None:
    async with connect(line.url + query) as client:
        await client.ping()
        line.to_lose = 1
        await raised_by(client.xadd("once", {"n": 1}))
        assert line.to_lose == 0
        assert await client.ping()
    assert await redis.xlen("once") == 1
    await redis.delete("once")


async def test_the_clients_own_default_would_have_sent_it_again(redis: Redis, line: LossyLine) -> None:
    from redis.asyncio import Redis as PlainClient
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    async with PlainClient.from_url(line.url, retry=Retry(NoBackoff(), 1)) as client:
        await client.ping()
        line.to_lose = 1
        await client.xadd("often", {"n": 1})
    assert await redis.xlen("often") == 2
    await redis.delete("often")


async def test_more_tasks_than_connections_wait_for_each_other(redis_url: str, redis: Redis) -> None:
    async with connect(redis_url, max_connections=2, client_name="few") as client:
        assert all(await asyncio.gather(*(client.ping() for _ in range(100))))
        named = [other for other in await redis.client_list() if other["name"] == "few"]
    assert len(named) <= 2


@pytest.mark.parametrize("library", ["hiredis", "redis-py"])
async def test_words_of_every_kind_reach_the_server_as_they_are(
    redis_url: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "redis-py":
        monkeypatch.setattr(connection, "_IN_C", None)
    words = ("Zürich", b"\xff\r\n", "", 7, -2.5, 2**40, bytearray(b"b"), memoryview(b"m"))
    async with connect(redis_url) as client:
        assert await command(client, "CONFIG GET", "maxmemory")  # a name of two words
        await command(client, "RPUSH", "words", *words)
        assert await command(client, "LRANGE", "words", 0, -1) == [
            *("Zürich".encode(), b"\xff\r\n", b"", b"7", b"-2.5", b"1099511627776", b"b", b"m")
        ]
        for wrong in (True, None, ["a"]):
            with pytest.raises(DataError, match="Invalid input"):
                await command(client, "RPUSH", "words", wrong)
        await client.delete("words")


async def test_an_entry_keeps_the_order_and_the_doubles_of_its_fields(redis_url: str) -> None:
    async with connect(redis_url) as client:
        await command(client, "XADD", "x", "1-0", "b", "1", "a", "2", "b", "3")
        [[entry_id, fields]] = await command(client, "XRANGE", "x", "-", "+")
        assert (entry_id, fields) == (b"1-0", [b"b", b"1", b"a", b"2", b"b", b"3"])
        await client.delete("x")


@asynccontextmanager
async def switch(targets: list[int]) -> AsyncIterator[int]:
    """A port that leads each new connection to the last of `targets`, as a moved name or a proxy does."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", targets[-1])
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_after_a_failover_one_try_fails_and_the_next_finds_the_new_primary(tmp_path: Path) -> None:
    with Valkey(tmp_path / "old") as old, Valkey(tmp_path / "new") as new:
        targets = [old.port]
        async with (
            switch(targets) as port,
            connect(f"redis://127.0.0.1:{port}/0") as client,
            connect(old.url) as old_admin,
            connect(new.url) as new_admin,
        ):
            publisher = Publisher(client)
            events = [PhotoSubmitted(source_url=f"https://example.org/{number}.jpg") for number in range(8)]
            # as many open connections as tasks
            await asyncio.gather(*(publisher.publish(event) for event in events))
            assert await old_admin.xlen("erni:photo.submitted") == 8
            await call(old_admin, "REPLICAOF", "127.0.0.1", new.port)
            targets.append(new.port)
            refused = []
            for event in events:
                try:
                    await publisher.publish(event, event_id=event.source_url)
                except RedisError as error:
                    refused.append(trouble_of(error))
            assert refused == [Trouble.READ_ONLY]
            assert await new_admin.xlen("erni:photo.submitted") == 7
