"""Every script touches the keys it was given and no others: in a cluster they are all one slot has."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest

import events
import shared
from events import scripts as event_scripts
from events import topology
from events.identities import SessionId
from events.publisher import Publisher
from events.types import PhotoSubmitted
from shared.operations import access_keys, bulk_runner, causes, submissions, webhooks
from shared.operations import scripts as operation_scripts
from shared.operations.activity import Person
from shared.operations.bulk import Bulk
from shared.operations.bulk_runner import lease
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.gauges import DeadByReason
from shared.retry.errors import PermanentError, PostponeError
from shared.settings import Settings
from shared.vision.budget import Budget
from shared.vision.contract import Usage
from shared.webhooks import endpoints
from tests.shared.delivery.harness import until
from tests.shared.sessions.chain import chain
from tests.shared.sessions.places import Place, age, call, store_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.operations.bulk import Kind
    from shared.webhooks.endpoints import Endpoint

ROOTS: Final = [Path(package.__path__[0]) for package in (events, shared)]
PARTS: Final = {"session", "cause", "progress"}
SCRIPTS: Final = {path.stem for root in ROOTS for path in root.rglob("lua/*.lua")} - PARTS
"""All there are; these two are parts of others."""
WORDS: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


class UnknownCommandError(Exception):
    """A command of which this test does not know the keys."""


class Watch:
    """What MONITOR tells: for each script call the keys it was given and the keys its commands name."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.called: set[str] = set()
        self.undeclared: list[str] = []
        self.all_told = asyncio.Event()
        self._script = ""
        self._keys: set[str] = set()

    def line(self, text: str, *, lua: bool) -> None:
        words = [_plain(word) for word in WORDS.findall(text)]
        command = words[0].upper()
        if not lua:
            self._keys = set()
            if command in ("EVALSHA", "EVAL"):
                digest = words[1]
                if command == "EVAL":
                    digest = hashlib.sha1(digest.encode(), usedforsecurity=False).hexdigest()
                self._script = self.names[digest]
                self.called.add(self._script)
                self._keys = set(words[3 : 3 + int(words[2])])
            return
        try:
            keys = _keys_of(command, words[1:])
        except UnknownCommandError as error:
            # said in the test's end: an error here would only end the listening
            self.undeclared.append(f"{self._script}: {error}")
            return
        for key in keys:
            if key not in self._keys:
                self.undeclared.append(f"{self._script}: {' '.join(words)[:200]}")


def _plain(word: str) -> str:
    return word.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "replace")


def _keys_of(command: str, words: list[str]) -> list[str]:
    """The keys of a command that scripts use; one that is not known here is an error."""
    if command == "TIME":
        return []
    if command in ("DEL", "EXISTS"):
        return words
    if command in ("XINFO", "XGROUP"):
        return words[1:2]
    if command in {
        "GET", "SET", "INCRBY", "TYPE", "PEXPIRE", "PTTL", "HGET", "HMGET", "HSET", "HSETNX", "HDEL",
        "HGETALL", "HEXISTS", "HINCRBY", "ZADD", "ZREM", "ZCARD", "ZSCORE", "ZCOUNT", "ZRANGE", "XADD",
        "XACK", "XDEL", "XLEN", "XRANGE", "XREVRANGE", "XPENDING", "XCLAIM", "SADD", "SREM",
    }:  # fmt: skip
        return words[:1]
    raise UnknownCommandError(f"a script calls {command}: say here which of its words are keys")


@pytest.fixture
async def watch(place: Place) -> AsyncIterator[Watch]:
    """Everything the server is told during the test."""
    names: dict[str, str] = {}
    for name in SCRIPTS:
        path = next(path for root in ROOTS for path in root.rglob(f"lua/{name}.lua"))
        package = ".".join(path.parent.parent.relative_to(ROOTS[0].parent).parts)
        own = package == "shared.operations"
        several = (("cause", "progress"), ("cause", "progress", "session"), ("progress",)) if own else ()
        for parts in ((), ("session",), *several):
            script = event_scripts.load(package, name, *parts)
            names[script.digest] = name
    watch = Watch(names)
    host, port = place.url.partition("://")[2].removesuffix("/0").split(":")
    # not the client's own monitor, which takes the quotes off the words
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    listening = asyncio.create_task(_listen(reader, watch))
    yield watch
    listening.cancel()
    writer.close()


async def _listen(reader: asyncio.StreamReader, watch: Watch) -> None:
    while line := await reader.readline():
        head, _, words = line.decode("utf-8", "replace").partition("] ")
        if words.startswith('"ECHO" "all told"'):
            watch.all_told.set()
        else:
            watch.line(words, lua=head.endswith(" lua"))


async def _use_everything(client: Redis, place: Place, watch: Watch) -> None:
    """Make every script do what it can."""
    free: list[bool] = []

    def do(agent: str, url: str) -> None:
        if agent == "photo_fetcher" and url.endswith("/0") and not free:
            raise PermanentError("not there")
        if agent == "vision_analyzer" and url.endswith("/1") and not free:
            raise PostponeError("asked to wait", 60.0)

    publisher = Publisher(client, lanes=place.lanes)
    store = store_at(client, place, limit=place.lanes)
    endpoint = await _a_web_hook(client)
    await _a_key(client)
    async with chain(place, do, lease_seconds=0.5) as running:
        await publisher.open_session("s1", expected=3)
        for number in range(3):
            event = PhotoSubmitted(
                source_url=f"https://bau.invalid/s1/{number}", session_id=SessionId("s1"), expected=3
            )
            await publisher.publish(event)
        together = [
            publisher.prepare(
                PhotoSubmitted(source_url=f"https://bau.invalid/s2/{number}", session_id=SessionId("s2"))
            )
            for number in (2, 3)
        ]
        published = await publisher.send_all(together)
        await submissions.note(
            client,
            "urn:a",
            [(event, "a.jpg", one) for event, one in zip(together, published, strict=True)],
            record_hours=1.0,
        )
        by_hand = b'{"source_url": "https://bau.invalid/by-hand/9", "session_id": "by-hand"}'
        intake = place.lane("by-hand").stream("photo.submitted")
        await call(client, "XADD", intake, "*", "id", "1", "source", "urn:a", "data", by_hand)
        dead = DeadLetters(client, lanes=place.lanes)
        await until(lambda: call(client, "XLEN", place.lane("s1").dead("photo_fetcher")))
        await until(lambda: call(client, "ZCARD", place.lane("s1").delayed("vision_analyzer")))
        free.append(True)
        assert await call(client, "XLEN", place.lane("s1").stream(topology.QUEUED))
        await endpoints.failed(client, endpoint, "the endpoint answered 410", gone=True)
        assert await dead.groups(DeadFilter())
        assert await dead.groups(DeadFilter(session="s1"))
        [agent] = [one for one in topology.PIPELINE if one.agent == "photo_fetcher"]
        lane = place.lane("s1")
        _, newest, _ = await operation_scripts.causes(client, lane, agent.agent)
        found = await causes.of_agent(client, lane, agent.agent)
        assert await operation_scripts.causes_kept(client, lane, agent.agent, newest, found)
        await client.delete(lane.dead_counts(agent.agent))
        assert (await DeadByReason(client, agent, [lane]).count())["permanent"] == 1
        await call(client, "XADD", lane.dead(agent.agent), "*", "reason", "permanent")
        await _discarded_and_restored(client, place, watch)
        for letter in [letter async for letter in dead.find(DeadFilter())]:
            if letter.photo_id:
                await dead.replay(letter)
            else:
                assert await dead.discard(letter)
        await _a_dead_consumer(client, place)
        await running.drain()
    for name in place.one_lane(6):
        await store.set(name)
        await store.get(name)
    assert (await store.page())[1]
    await age(client, place, place.one_lane(6)[-1], 7200)
    await store.get(place.one_lane(6)[-1])
    await store.set("gone")
    await age(client, place, "gone", 7200)
    await store.sweep()
    await store.set("other", site="x", expected=2)
    await store.delete("other")
    prices: dict[str, Any] = {"vision_price_input": 5.0, "vision_price_output": 50.0}
    budget = Budget(Settings(vision_budget_day=5.0, vision_budget_session=5.0, **prices), client)
    async with budget.call(SessionId("s1")) as asked:
        asked.used(Usage(prompt_tokens=1, completion_tokens=1))


async def _discarded_and_restored(client: Redis, place: Place, watch: Watch) -> None:
    """Every dead letter goes into the archive and comes back, by operations under their leases."""
    bulk = Bulk(client, lanes=place.lanes)
    person = Person(name="me", role="command line")
    count = 0
    for kind in ("discard", "restore"):
        operation = await bulk.start(kind, await bulk.select(DeadFilter(), kind), person)
        async with lease(client, operation.id) as mine:
            assert mine
            done = [result.outcome async for result in bulk.run(operation)]
        assert done
        count = count or len(done)
        assert len(done) == count
    stream = place.lane("s1").dead("photo_fetcher")
    turns: list[tuple[Kind, list[str]]] = [
        ("discard", ["discarded"]),
        ("delete", ["deleted"]),
        ("discard", ["discarded", "gone"]),
    ]
    for kind, outcomes in turns:
        wanted = DeadFilter(error_type="Gone" if "gone" in outcomes else "Extra")
        if kind == "discard":
            fields = ("reason", "permanent", "error_type", wanted.error_type)
            buried = [await call(client, "XADD", stream, "*", *fields) for _ in outcomes]
        operation = await bulk.start(kind, await bulk.select(wanted, kind), person)
        async with lease(client, operation.id) as mine:
            assert mine
            done = []
            async for result in bulk.run(operation):
                done.append(result.outcome)
                await client.xdel(stream, *buried)
        assert done == outcomes
    with patch.object(bulk_runner, "LEASE_SECONDS", 0.1):
        async with lease(client, "held") as mine:
            assert mine
            await until(lambda: _called(watch, "renew"))


async def _called(watch: Watch, script: str) -> bool:
    return script in watch.called


async def _a_web_hook(client: Redis) -> Endpoint:
    """One that hears of everything which the publisher submits."""
    everything = await webhooks.add(client, Settings(), "https://hooks.example.org/", source="erni")
    assert await webhooks.rotate(client, everything.endpoint.id)
    assert await webhooks.enable(client, everything.endpoint.id)
    return everything.endpoint


async def _a_key(client: Redis) -> None:
    """One that is renewed."""
    await access_keys.add(client, "somebody", role="viewer")
    await access_keys.rotate(client, "somebody")


async def _a_dead_consumer(client: Redis, place: Place) -> None:
    """One that read an entry and never beat: the living take over from it."""
    lane = place.lane("s1")
    stream = lane.stream("photo.submitted")
    async with client.pipeline(transaction=True) as together:
        by_hand: dict[Any, Any] = {
            "id": "9",
            "source": "urn:by-hand",
            "sessionid": "s1",
            "data": '{"source_url": "https://bau.invalid/s1/9"}',
        }
        together.xadd(stream, by_hand)
        together.execute_command(
            "XREADGROUP", "GROUP", "schema_extractor", "nobody", "COUNT", 1, "STREAMS", stream, ">"
        )
        await together.execute()
    started = time.monotonic()
    await until(lambda: _taken(client, stream))
    assert time.monotonic() - started < 20


async def _taken(client: Redis, stream: str) -> bool:
    consumers = await call(client, "XINFO", "CONSUMERS", stream, "schema_extractor")
    return not any(b"nobody" in consumer for consumer in consumers)


async def test_no_script_touches_a_key_it_does_not_declare(client: Redis, place: Place, watch: Watch) -> None:
    await _use_everything(client, place, watch)
    await call(client, "ECHO", "all told")
    await watch.all_told.wait()
    assert watch.undeclared == []
    assert SCRIPTS - watch.called == set()


def test_the_watch_sees_a_key_that_was_not_declared() -> None:
    watch = Watch({"abc": "settle"})
    watch.line('"EVALSHA" "abc" "1" "erni:{1}:a" "x"', lua=False)
    watch.line('"hset" "erni:{1}:a" "f" "\\xc3\\xa4"', lua=True)
    assert watch.undeclared == []
    watch.line('"DEL" "erni:{1}:a" "erni:{1}:b"', lua=True)
    assert watch.undeclared == ["settle: DEL erni:{1}:a erni:{1}:b"]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_says_that_it_is_one(name: str) -> None:
    path = next(path for root in ROOTS for path in root.rglob(f"lua/{name}.lua"))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"#!lua( flags=(allow-oom|no-writes))?", lines[0])
    assert any(line.startswith("--   KEYS  1 ") for line in lines)
    assert any(line.startswith("--   ->") for line in lines)
