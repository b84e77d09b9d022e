"""The roles of deploy/redis/users.acl: what each may do is enough, and it may do no more."""

from __future__ import annotations

import asyncio
import re
import subprocess
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as PlainRedis
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from events import scripts, topology
from events.connection import connect
from events.identities import SessionId
from events.keys import lane_of
from events.publisher import EventReusedError, Publisher, PublishRefusedError
from events.types import PhotoSubmitted, SchemaExtracted
from sandbox.redis_server import Valkey
from shared.delivery.startup import check_redis
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.status import read_status
from shared.retry.errors import PermanentError
from tests.shared.delivery.harness import extracted, running, settings_for, until
from tests.tools import ROOT, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

ACL = (ROOT / "deploy" / "redis" / "users.acl").read_text()
ROLES = [line.split()[1] for line in ACL.splitlines()]


@pytest.fixture(
    scope="module",
    params=["the bundled server", pytest.param("redis-server", marks=pytest.mark.needs("redis-server"))],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server with the file's users, each with its own name as password, and one for the test itself.

    Rules that one server knows another may refuse at its start, so each kind there is reads them.
    """
    folder = tmp_path_factory.mktemp("roles")
    users = ACL.replace(
        "user default off resetkeys resetchannels -@all", "user default on nopass ~* &* +@all"
    )
    for role in ROLES:
        users = users.replace(f"user {role} on ", f"user {role} on >{role} ")
    (folder / "users.acl").write_text(users)
    options = {
        "aclfile": str(folder / "users.acl"),
        "enable-debug-command": "local",
        "lua-time-limit": "50",
    }
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "redis-server":
            patch.setattr("sandbox.redis_server._candidates", lambda: [require("redis-server")])
        server = Valkey(folder, options=options).start()
    yield server
    server.stop()


@pytest.fixture
async def admin(server: Valkey) -> AsyncIterator[Redis]:
    """An empty server, seen by a user who may do everything."""
    async with Redis.from_url(server.url, protocol=2) as client:
        await client.flushall()
        yield client


def url_of(server: Valkey, role: str) -> str:
    return server.url.replace("redis://", f"redis://{role}:{role}@")


def photo(number: int) -> PhotoSubmitted:
    return PhotoSubmitted(source_url=f"store:originals/{number}", session_id=SessionId("s1"))


async def send(client: Redis, *words: str) -> Any:
    fetch: Callable[..., Awaitable[Any]] = client.execute_command
    return await fetch(*words)


def test_nobody_gets_in_until_passwords_are_set() -> None:
    assert ROLES == ["default", "worker", "operator", "trusted", "upstream", "scaler"]
    assert ACL.startswith("user default off ")
    words = ACL.split()
    assert "nopass" not in words
    assert not [word for word in words if word.startswith((">", "#"))]


async def test_a_user_of_the_file_as_it_stands_cannot_log_in(server: Valkey, admin: Redis) -> None:
    rules = next(line for line in ACL.splitlines() if line.startswith("user worker ")).split()[2:]
    await send(admin, "ACL", "SETUSER", "as-it-stands", *rules)
    for password in ("", "worker", "as-it-stands"):
        async with Redis.from_url(server.url, username="as-it-stands", password=password) as client:
            with pytest.raises(AuthenticationError):
                await client.ping()


def test_the_commands_of_the_docs_give_every_role_a_password_of_its_own(
    own_redis_server: Valkey, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    loop = page[page.index("    cp deploy/redis/users.acl") : page.index("    kubectl create namespace")]
    (tmp_path / "deploy" / "redis").mkdir(parents=True)
    (tmp_path / "deploy" / "redis" / "users.acl").write_text(ACL)
    subprocess.run(["/bin/sh", "-euc", textwrap.dedent(loop)], cwd=tmp_path, check=True)

    users = (tmp_path / "users.acl").read_text().splitlines()
    with PlainRedis.from_url(own_redis_server.url) as client:
        for line in users[1:]:
            client.execute_command("ACL", "SETUSER", *line.split()[1:])
    passwords = {role: (tmp_path / f"{role}.password").read_text() for role in ROLES[1:]}
    assert len(set(passwords.values())) == len(passwords)
    for role, password in passwords.items():
        with PlainRedis.from_url(own_redis_server.url, username=role, password=password) as client:
            assert client.ping()


async def test_a_trusted_system_publishes_workers_hand_off_operators_replay(
    server: Valkey, admin: Redis
) -> None:
    mended = asyncio.Event()

    async def do(event: PhotoSubmitted) -> SchemaExtracted:
        if event.source_url.endswith("2") and not mended.is_set():
            raise PermanentError("no such library")
        return extracted(event)

    trusted = connect(url_of(server, "trusted"))
    publisher = Publisher(trusted)
    operator = connect(url_of(server, "operator"))
    async with running(settings_for(url_of(server, "worker")), do):
        await until(lambda: _loaded(admin))
        await publisher.open_session("s1", expected=2)
        assert (await publisher.publish(photo(1), event_id="e-1")).fresh
        assert not (await publisher.publish(photo(1), event_id="e-1")).fresh
        await publisher.publish(photo(2))
        await until(lambda: admin.xlen("erni:dead:schema_extractor"))
        await until(lambda: admin.xlen("erni:schema.extracted"))
        status = await read_status(operator)
        assert [process.consumer for process in status.agents[0].processes]

        mended.set()
        dead = DeadLetters(operator)
        (letter,) = [letter async for letter in dead.find(DeadFilter(session="s1"))]
        assert (await dead.replay(letter)).outcome == "replayed"
        await until(lambda: _is(admin, "erni:schema.extracted", 2))
    # counters move under pcall, where a forbidden command would go unnoticed
    session = await admin.hgetall("erni:session:s1")
    assert {name: session[name] for name in (b"expected", b"received", b"schema_extractor", b"dead")} == {
        b"expected": b"2",
        b"received": b"2",
        b"schema_extractor": b"2",
        b"dead": b"0",
    }
    assert await admin.zscore("erni:session:open", "s1")
    assert await admin.exists("erni:beats:schema_extractor") == 0
    for client in (trusted, operator):
        await client.aclose()


async def _is(client: Redis, stream: str, length: int) -> bool:
    return bool(await client.xlen(stream) == length)


@pytest.mark.parametrize("lane", ["", "{3}:"])
async def test_a_trusted_system_publishes_by_hand_and_listens_with_a_group_of_its_own(
    server: Valkey, admin: Redis, lane: str
) -> None:
    validated = f"erni:{lane}photo.validated"
    await admin.xadd(validated, {"data": "{}"})
    await admin.xadd(f"erni:{lane}dead:photo_fetcher", {"raw": "x"})
    async with Redis.from_url(url_of(server, "trusted"), protocol=2) as client:
        await client.xadd(f"erni:{lane}photo.submitted", {"data": '{"source_url": "store:originals/1"}'})
        await client.xgroup_create(validated, "archive", "0")
        ((_, ((entry_id, _),)),) = await send(
            client, "XREADGROUP", "GROUP", "archive", "one", "STREAMS", validated, ">"
        )
        assert await client.xack(validated, "archive", entry_id) == 1
        assert await client.xrange(f"erni:{lane}dead:photo_fetcher")


async def _loaded(admin: Redis) -> bool:
    found: list[int] = await send(
        admin, "SCRIPT EXISTS", *(script.digest for script in scripts.for_publishers())
    )
    return all(found)


def test_the_digests_of_the_file_are_those_of_the_scripts() -> None:
    digests = {script.name: script.digest for script in scripts.for_publishers()}
    assert set(re.findall(r"evalsha\|(\w+)", ACL)) == set(digests.values()), (
        f"a script changed: put its new digest behind evalsha| in deploy/redis/users.acl, {digests}"
    )


@pytest.mark.parametrize("lanes", [1, 12])
async def test_an_upstream_publishes_from_its_own_source_and_listens(
    server: Valkey, admin: Redis, lanes: int
) -> None:
    async with connect(url_of(server, "upstream")) as client:
        publisher = Publisher(client, source="urn:upstream", lanes=lanes)
        await send(admin, "SCRIPT FLUSH")
        with pytest.raises(PublishRefusedError, match="does not know the script publish yet") as refused:
            await publisher.publish(photo(1), event_id="e-1")
        assert refused.value.retry_after == 1
        await scripts.load_for_publishers(admin)
        assert (await publisher.publish(photo(1), event_id="e-1")).fresh
        assert not (await publisher.publish(photo(1), event_id="e-1")).fresh
        with pytest.raises(EventReusedError):
            await publisher.publish(photo(2), event_id="e-1")
        together = [publisher.prepare(photo(number), event_id=f"e-{number}") for number in (1, 2)]
        assert [one.fresh for one in await publisher.send_all(together)] == [False, True]
        with pytest.raises(PublishRefusedError, match="1 are allowed"):
            await Publisher(client, source="urn:upstream", lanes=lanes, max_backlog=1).publish(photo(3))
        lane = lane_of("s1", lanes)
        await client.xadd(lane.stream("photo.submitted"), {"data": '{"source_url": "store:originals/4"}'})
        for stream in map(lane.stream, topology.PUBLIC):
            await admin.xadd(stream, {"data": "{}"})
            assert await client.xread({stream: "0"})
            assert await client.xrange(stream)


async def test_the_scripts_of_publishers_are_there_again_after_the_server_forgot_them(
    server: Valkey, admin: Redis
) -> None:
    async with running(settings_for(url_of(server, "worker"))):
        await until(lambda: _loaded(admin))
        # as a restart or a fail-over does; the next heartbeat notices it
        await send(admin, "SCRIPT FLUSH")
        await until(lambda: _loaded(admin))


async def test_an_endless_script_can_be_ended_by_the_operator_only(server: Valkey, admin: Redis) -> None:
    clients = {role: Redis.from_url(url_of(server, role), protocol=2) for role in ("worker", "operator")}
    for client in clients.values():
        await client.ping()
    endless = asyncio.create_task(send(admin, "EVAL", "while true do end", "0"))
    await until(lambda: _busy(clients["worker"]))
    with pytest.raises(NoPermissionError):
        await send(clients["worker"], "SCRIPT KILL")
    await send(clients["operator"], "SCRIPT KILL")
    with pytest.raises(ResponseError, match="killed"):
        await endless
    for client in clients.values():
        await client.aclose()


async def _busy(client: Redis) -> bool:
    try:
        await client.get("erni:x")
    except ResponseError as error:
        return "BUSY" in str(error) or "busy" in str(error)
    return False


async def test_the_scaler_sees_what_waits_and_what_is_in_flight(server: Valkey, admin: Redis) -> None:
    stream, group = "erni:photo.fetched", "vision_analyzer"
    await admin.xgroup_create(stream, group, "0", mkstream=True)
    for _ in range(4):
        await admin.xadd(stream, {"data": "{}"})
    ((_, ((entry_id, _), _)),) = await send(
        admin, "XREADGROUP", "GROUP", group, "one", "COUNT", "2", "STREAMS", stream, ">"
    )
    await admin.xack(stream, group, entry_id)
    await admin.xdel(stream, entry_id)
    async with Redis.from_url(url_of(server, "scaler"), protocol=2) as client:
        assert (await client.info("server"))["redis_version"]
        assert await client.xlen(stream) == 3
        assert await client.xlen("erni:photo.analyzed") == 0


async def test_the_operator_sees_how_the_server_is_set_the_worker_does_not(server: Valkey) -> None:
    seen = {}
    for role in ("operator", "worker"):
        client = connect(url_of(server, role))
        findings = await check_redis(client, lanes=1, allow_volatile=False)
        assert all(finding.ok for finding in findings)
        seen[role] = findings[-1].sentence
        await client.aclose()
    assert seen == {
        "operator": "append-only file on, appendfsync always",
        "worker": "append-only file on (appendfsync not visible to this user)",
    }


PUBLISH, PUBLISH_ALL, OPEN_SESSION = (script.digest for script in scripts.for_publishers())
FORBIDDEN = {
    "every role": (
        ("worker", "operator", "trusted", "upstream", "scaler"),
        ["FLUSHALL", "FLUSHDB", "KEYS *", "SHUTDOWN", "DEBUG SLEEP 0", "CONFIG SET maxmemory 1", "MONITOR",
         "ACL LIST", "ACL SETUSER x on", "REPLICAOF h 1", "SCRIPT FLUSH", "FUNCTION FLUSH", "GET other",
         "SET other 1", "MIGRATE h 1 k 0 1", "CLIENT KILL ID 1", "MODULE LIST", "PUBLISH channel x"],
    ),
    "workers": (("worker", "trusted", "upstream", "scaler"), ["CONFIG GET *", "CLIENT LIST", "ROLE"]),
    "publishing systems": (
        ("trusted", "upstream", "scaler"),
        ["EVAL return 1", "EVAL while_true_do_end 0", "SCRIPT LOAD return", "SCRIPT KILL",
         f"EVALSHA {'0' * 40} 0"],
    ),
    "upstream": (
        ("upstream", "scaler"),
        ["SET erni:published:e 1", "SET erni:published:urn%3Aother:e 1", "GET erni:published:urn%3Aother:e",
         "SET erni:{3}:published:urn%3Aother:e 1", "SET erni:{3}:published:x:published:urn%3Aupstream:e 1",
         "XADD erni:published:urn%3Aother:photo.submitted * a b", "INCR erni:published:urn%3Aother:refused",
         f"EVALSHA {PUBLISH} 3 erni:photo.submitted erni:published:urn%3Aother:e erni:refused 1 1",
         f"EVALSHA {PUBLISH} 3 erni:schema.extracted erni:published:urn%3Aupstream:e erni:refused 1 1",
         f"EVALSHA {PUBLISH_ALL} 3 erni:photo.submitted erni:refused erni:published:urn%3Aother:e 1 1 0",
         f"EVALSHA {PUBLISH_ALL} 3 erni:schema.extracted erni:refused erni:published:urn%3Aupstream:e 1 1 0",
         f"EVALSHA {OPEN_SESSION} 2 erni:session:s1 erni:session.completed s1 1",
         "XADD erni:session.completed * data {}", "HSET erni:session:s1 expected 1",
         "DEL erni:session:s1:first",
         "HGETALL erni:session:s1", "ZADD erni:session:open 1 s1", "XRANGE erni:photo.submitted - +",
         "XREAD STREAMS erni:photo.submitted 0",
         "XRANGE erni:dead:photo_fetcher - +", "XREAD STREAMS erni:dead:photo_fetcher 0",
         "XACK erni:photo.validated archive 1-1", "XGROUP CREATE erni:photo.validated g 0",
         "XREADGROUP GROUP archive c STREAMS erni:photo.validated >",
         "XGROUP DESTROY erni:photo.validated g"],
    ),
    "trusted systems": (
        ("trusted", "upstream", "scaler"),
        ["DEL erni:photo.submitted", "HGETALL erni:keys", "HSET erni:keys admin x",
         "SET erni:session:s1:source urn:upstream",
         "SET erni:photo.submitted x", "XDEL erni:photo.submitted 1-1",
         "XTRIM erni:photo.submitted MAXLEN 0", "XADD erni:photo.validated * data {}",
         "DEL erni:photo.validated",
         "XDEL erni:dead:photo_fetcher 1-1", "XADD erni:dead:photo_fetcher * raw x", "DEL erni:session:s1",
         "HSET erni:paused photo_fetcher 1", "XREADGROUP GROUP g c STREAMS erni:photo.submitted >"],
    ),
    "scaler": (("scaler",), ["XADD erni:photo.submitted * data {}", "XRANGE erni:photo.submitted - +"]),
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES[1:])
async def test_what_a_role_does_not_need_it_may_not_do(server: Valkey, admin: Redis, role: str) -> None:
    commands = [command for roles, commands in FORBIDDEN.values() if role in roles for command in commands]
    allowed = []
    async with Redis.from_url(url_of(server, role), protocol=2) as client:
        for command in commands:
            try:
                await send(client, *command.split())
            except NoPermissionError:
                continue
            allowed.append(command)
    assert not allowed
