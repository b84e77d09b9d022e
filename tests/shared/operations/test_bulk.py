"""Operations on many dead letters: exact selections, one act per letter, whatever happens to the driver."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from redis import Redis as PlainRedis

from console.pages.live import Live
from events.connection import connect
from shared.operations import access_keys, activity, pauses, sign_in
from shared.operations.activity import Person
from shared.operations.bulk import OF_ARCHIVE, Bulk
from shared.operations.bulk_runner import BulkRunner, lease
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.editing import InvalidEditError, data_of, replay_edited
from shared.operations.in_use import in_use
from shared.operations.letter_index import LetterIndex
from shared.operations.scripts import OvertakenError
from shared.settings import Settings
from tests.console.pipeline import KEYS, TRACEPARENT, dies
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis

    from sandbox.redis_server import Valkey
    from shared.operations.bulk import Kind, Operation

ME = Person("me", "operator")
AGENT, STREAM = "sharepoint_uploader", "photo.analyzed"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as redis:
        yield redis


@pytest.fixture
def client(redis_url: str) -> Iterator[PlainRedis]:
    with PlainRedis.from_url(redis_url, protocol=2) as client:
        yield client


def _die(client: PlainRedis, number: int, **more: object) -> list[str]:
    return [
        dies(client, AGENT, STREAM, photo=f"p-{n}", session=None, fields={"data": "{}", "id": str(n)}, **more)  # type: ignore[arg-type]  # the helper's own options
        for n in range(number)
    ]


def _ids(client: Any, stream: str) -> list[str]:
    return [fields[b"id"].decode() for _, fields in client.xrange(KEYS.stream(stream))]


async def test_an_operation_that_is_taken_over_again_and_again_acts_on_each_letter_once(
    redis: Redis, client: PlainRedis
) -> None:
    _die(client, 40)
    bulk = Bulk(redis)
    operation = await bulk.start("replay", await bulk.select(DeadFilter(), "replay"), ME)
    assert operation.selection.count == 40
    for _ in range(20):
        # each driver ends in the middle, as by kill -9: nothing is noted at its end
        seen = 0
        async for _ in bulk.run(operation):
            seen += 1
            if seen == 3:
                break
    progress = await bulk.progress(operation.id)
    assert (progress.state, progress.done, progress.gone, progress.refused) == ("done", 40, 0, 0)
    assert sorted(_ids(client, STREAM), key=int) == [str(n) for n in range(40)]


async def test_letters_that_come_after_the_question_are_not_part_of_the_answer(
    redis: Redis, client: PlainRedis
) -> None:
    _die(client, 3)
    bulk = Bulk(redis)
    selection = await bulk.select(DeadFilter(agent=AGENT), "discard")
    _die(client, 2)
    operation = await bulk.start("discard", selection, ME)
    assert [result.outcome async for result in bulk.run(operation)] == ["discarded"] * 3
    assert client.xlen(KEYS.dead(AGENT)) == 2


async def test_what_is_discarded_is_restored_as_it_was_and_keeps_its_bytes(
    redis: Redis, client: PlainRedis
) -> None:
    sha = "a" * 64
    dies(client, AGENT, STREAM, fields={"data": f'{{"source_url":"store:originals/{sha}"}}'})
    bulk = Bulk(redis)
    [before] = [letter async for letter in bulk.letters.find(DeadFilter())]
    original = await bulk.letters.original(before)
    kinds: tuple[Kind, Kind] = ("discard", "restore")
    for kind in kinds:
        operation = await bulk.start(kind, await bulk.select(DeadFilter(), kind), ME)
        assert operation.selection.count == 1
        async for _ in bulk.run(operation):
            pass
        if kind == "discard":
            assert await bulk.letters.count(DeadFilter()) == 0
            [kept] = [letter async for letter in bulk.letters.find(DeadFilter(), archived=True)]
            assert await bulk.letters.original(kept, archived=True) == original
            assert (await in_use(redis, 1))[0] == {sha}
    [after] = [letter async for letter in bulk.letters.find(DeadFilter())]
    assert msgspec.structs.replace(after, id=before.id) == before
    assert await bulk.letters.count(DeadFilter(fingerprint=before.fingerprint)) == 1
    assert client.xlen(KEYS.archive(AGENT)) == 0
    # no settle counted it here: taken away once, and added once
    assert client.hgetall(KEYS.dead_counts(AGENT)) == {b"exhausted": b"0"}


async def test_without_an_archive_a_discard_deletes(redis: Redis, client: PlainRedis) -> None:
    _die(client, 1)
    bulk = Bulk(redis, archive_days=0)
    operation = await bulk.start("discard", await bulk.select(DeadFilter(), "discard"), ME)
    async for _ in bulk.run(operation):
        pass
    assert client.xlen(KEYS.archive(AGENT)) == client.xlen(KEYS.dead(AGENT)) == 0


async def test_a_stopped_operation_goes_on_where_it_was_and_can_be_repeated(
    redis: Redis, client: PlainRedis
) -> None:
    _die(client, 10)
    bulk = Bulk(redis)
    operation = await bulk.start("replay", await bulk.select(DeadFilter(), "replay"), ME, rate=1000)
    async for _ in bulk.run(operation):
        break
    await bulk.stop(operation.id, ME)
    assert [one async for one in bulk.run(operation)] == []
    assert (await bulk.progress(operation.id)).state == "stopped"
    await bulk.resume(operation.id, ME)
    runner = asyncio.create_task(BulkRunner(redis, bulk).run())

    async def done() -> bool:
        return (await bulk.progress(operation.id)).state == "done"

    await until(done)
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
    assert (await bulk.progress(operation.id)).done == 10
    assert len(_ids(client, STREAM)) == 10
    _die(client, 2)
    again = await bulk.repeat(operation.id, ME)
    assert again.selection.count == 2
    said = [(one.action, one.who) for one in await activity.newest(redis, most=10)]
    assert said == [("replay", ME), ("resume", ME), ("stop", ME), ("replay", ME)]
    await bulk.stop(again.id, ME)


async def test_at_the_memory_limit_people_sign_in_pause_and_free_memory(own_redis_server: Valkey) -> None:
    with PlainRedis.from_url(own_redis_server.url, protocol=2) as client:
        for _ in range(300):
            dies(client, AGENT, STREAM, session=None, fields={"data": "x" * 10_000, "id": "1"})
        async with connect(own_redis_server.url) as redis:
            bulk = Bulk(redis)
            selection = await bulk.select(DeadFilter(limit=100), "discard")
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", used // 2)
            key = await access_keys.add(redis, "me", "operator")
            assert await sign_in.with_key(redis, key) is not None
            ticket = await sign_in.make_ticket(redis, "me", "operator")
            assert await sign_in.with_ticket(redis, ticket) is not None
            await pauses.pause(redis, AGENT)
            replaying = await bulk.select(DeadFilter(limit=2), "replay")
            await _run(redis, bulk, await bulk.start("replay", replaying, ME))
            await _run(redis, bulk, await bulk.start("discard", selection, ME))
            assert client.xlen(KEYS.archive(AGENT)) == 100
            selection = await bulk.select(DeadFilter(), "discard")
            await _run(redis, bulk, await bulk.start("discard", selection, ME, for_good=True))
            assert client.xlen(KEYS.dead(AGENT)) == 0
            assert client.xlen(KEYS.archive(AGENT)) == 100
            assert int(client.info("memory")["used_memory"]) < used - 1_000_000
            client.config_set("maxmemory", 0)


async def _run(redis: Redis, bulk: Bulk, operation: Operation) -> None:
    async with lease(redis, operation.id) as mine:
        assert mine
        async for _ in bulk.run(operation):
            pass
    assert (await bulk.progress(operation.id)).state == "done"


async def test_an_order_that_cannot_be_read_holds_up_no_other(redis: Redis, client: PlainRedis) -> None:
    _die(client, 2)
    bulk = Bulk(redis)
    # sorted before every other: of a newer version, of another kind, and no text
    client.hset("erni:operation:0", "order", '{"id":"0","kind":"burn"}')
    client.expire("erni:operation:0", 60)
    client.set("erni:operation:1", "foreign", ex=60)
    client.sadd("erni:operations", "0", "1", b"\xff")
    operation = await bulk.start("replay", await bulk.select(DeadFilter(), "replay"), ME)
    live = Live(redis, Settings())
    assert [one.operation.id for one in (await live.now()).running] == [operation.id]
    runner = asyncio.create_task(BulkRunner(redis, bulk).run())

    async def done() -> bool:
        return runner.done() or (await bulk.progress(operation.id)).state == "done"

    try:
        await until(done)
        assert not runner.done()
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)


async def test_a_round_that_fails_does_not_end_the_rounds(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.operations.bulk_runner._LOOK_SECONDS", 0.01)
    bulk, rounds = Bulk(redis), 0

    async def running() -> list[str]:
        nonlocal rounds
        rounds += 1
        raise ValueError("a foreign value")

    monkeypatch.setattr(bulk, "running", running)
    live = Live(redis, Settings())
    monkeypatch.setattr(live, "_bulk", bulk)
    tasks = [asyncio.create_task(BulkRunner(redis, bulk).run()), asyncio.create_task(live.run())]

    async def enough() -> bool:
        return rounds > 4 or any(task.done() for task in tasks)

    try:
        await until(enough)
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_operation_that_redis_refuses_for_good_fails_with_its_sentence(
    redis: Redis, client: PlainRedis
) -> None:
    _die(client, 1)
    client.set(KEYS.stream(STREAM), "foreign")
    bulk = Bulk(redis)
    operation = await bulk.start("replay", await bulk.select(DeadFilter(), "replay"), ME)
    runner = asyncio.create_task(BulkRunner(redis, bulk).run())

    async def failed() -> bool:
        return (await bulk.progress(operation.id)).state == "failed"

    try:
        await until(failed)
        assert "WRONGTYPE" in (await bulk.progress(operation.id)).error
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)


async def test_two_gateways_do_not_both_drive_an_operation(redis: Redis) -> None:
    async with lease(redis, "x") as first:
        assert first
        async with lease(redis, "x") as second:
            assert not second
    async with lease(redis, "x") as third:
        assert third


async def test_a_limit_counts_over_all_drivers(redis: Redis, client: PlainRedis) -> None:
    _die(client, 10)
    bulk = Bulk(redis)
    operation = await bulk.start("replay", await bulk.select(DeadFilter(limit=4), "replay"), ME)
    assert operation.selection.count == 4
    for _ in range(3):
        async for _ in bulk.run(operation):
            break
    async for _ in bulk.run(operation):
        pass
    assert (await bulk.progress(operation.id)).done == 4
    assert client.xlen(KEYS.dead(AGENT)) == 6


@pytest.mark.parametrize("kind", ["replay", "discard", "restore", "delete"])
@pytest.mark.parametrize("limit", [4, None])
async def test_a_driver_that_was_taken_over_from_acts_on_no_letter_more(
    redis: Redis, client: PlainRedis, kind: Kind, limit: int | None
) -> None:
    _die(client, 6)
    bulk = Bulk(redis)
    if kind in OF_ARCHIVE:
        archiving = await bulk.start("discard", await bulk.select(DeadFilter(), "discard"), ME)
        await _run(redis, bulk, archiving)
    selection = await bulk.select(DeadFilter(limit=limit), kind)
    operation = await bulk.start(kind, selection, ME)
    slow = bulk.run(operation)
    await anext(slow)
    # its lease ran out, and another process goes on: up to the limit, or for a while
    other = bulk.run(operation)
    for _ in range(3):
        await anext(other)
    before = (
        client.xlen(KEYS.dead(AGENT)),
        client.xlen(KEYS.archive(AGENT)),
        await bulk.progress(operation.id),
    )
    with pytest.raises(OvertakenError):
        await anext(slow)
    after = client.xlen(KEYS.dead(AGENT)), client.xlen(KEYS.archive(AGENT)), await bulk.progress(operation.id)
    assert after == before
    assert after[2].done == 4
    assert len([one async for one in other]) == (0 if limit else 2)


async def test_a_letter_that_is_gone_is_counted_by_one_of_two_drivers(
    redis: Redis, client: PlainRedis
) -> None:
    first, second, *_ = _die(client, 3)
    bulk = Bulk(redis)
    operation = await bulk.start("replay", await bulk.select(DeadFilter(), "replay"), ME)
    one, two = bulk.run(operation), bulk.run(operation)
    # both have read the list before the letters go
    assert (await anext(one)).letter.id == first
    waiting = bulk._left(operation, await bulk._cursors(operation.id))
    letter = await anext(waiting)
    assert letter.id == second
    client.xdel(KEYS.dead(AGENT), second)
    assert (await anext(one)).outcome == "gone"
    with pytest.raises(OvertakenError):
        await bulk._act(operation, letter, {AGENT: first})
    progress = await bulk.progress(operation.id)
    assert (progress.done, progress.gone) == (1, 1)
    await waiting.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert [result.outcome async for result in two] == ["replayed"]


async def test_an_edited_event_is_new_notes_its_origin_and_keeps_the_trace(redis: Redis, client: Any) -> None:
    fields = {
        "id": "e1",
        "source": "urn:x",
        "type": "photo.submitted",
        "sessionid": "s1",
        "traceparent": TRACEPARENT,
        "data": '{"photo_id":"p-1","source_url":"https://wrong.example/1.jpg"}',
    }
    dead_id = dies(client, "schema_extractor", "photo.submitted", fields=fields)
    letters = DeadLetters(redis)
    letter = await letters.get(dead_id)
    assert letter
    text = data_of(await letters.original(letter))
    for wrong in ("{", '{"photo_id":"p-2","source_url":"https://a.example/1.jpg"}', '{"photo_id":"p-1"}'):
        with pytest.raises(InvalidEditError):
            await replay_edited(redis, letters, letter, wrong, ME)
    assert client.xlen(KEYS.dead("schema_extractor")) == 1
    edited = text.replace("wrong.example", "right.example")
    assert (await replay_edited(redis, letters, letter, edited, ME)).outcome == "replayed"
    [(_, entry)] = client.xrange(KEYS.stream("photo.submitted"))
    assert b"right.example" in entry[b"data"]
    assert entry[b"id"] != b"e1"
    assert entry[b"source"] == b"urn:x"
    assert entry[b"editedfrom"] == f"schema_extractor/{dead_id}".encode()
    assert entry[b"traceparent"] == TRACEPARENT.encode()
    assert entry[b"ernireplay"].startswith(b"1 00-")
    # the original is kept, but does not come back beside its edited form
    [kept] = [one async for one in letters.find(DeadFilter(), archived=True)]
    assert b"wrong.example" in b"".join(await letters.original(kept, archived=True))
    assert (await replay_edited(redis, letters, letter, edited, ME)).outcome == "gone"
    bulk = Bulk(redis)
    operation = await bulk.start("restore", await bulk.select(DeadFilter(), "restore"), ME)
    [result] = [one async for one in bulk.run(operation)]
    assert (result.outcome, "edited and replayed" in result.message) == ("refused", True)
    assert client.xlen(KEYS.archive("schema_extractor")) == 1
    assert client.xlen(KEYS.dead("schema_extractor")) == 0


@pytest.mark.parametrize(
    "wanted",
    [
        DeadFilter(session="s1"),
        DeadFilter(photo="p-3"),
        DeadFilter(photo="4.jpg", session="s0"),
        DeadFilter(session="s0", limit=2),
        DeadFilter(session="s9"),
        DeadFilter(session="s1", newer_than=100.0),
    ],
    ids=str,
)
async def test_with_an_index_the_same_letters_are_found_as_without(
    redis: Redis, client: PlainRedis, wanted: DeadFilter
) -> None:
    plain, indexed = DeadLetters(redis), DeadLetters(redis, index=LetterIndex(redis))
    for rounds in range(2):
        for n in range(6):
            dies(client, AGENT, STREAM, photo=f"p-{n}", session=f"s{n % 2}", file_name=f"{n + rounds}.jpg")
        dies(client, "photo_fetcher", "schema.extracted", photo="p-3", session="s1")
        expected = [one async for one in plain.find(wanted)]
        assert [one async for one in indexed.find(wanted)] == expected
        assert await indexed.count(wanted) == len(expected) == await plain.count(wanted)
        for letter in expected[:1]:
            await plain.discard(letter)
        after = await plain.bounds(wanted)
        again = [one async for one in indexed.find(wanted, after={AGENT: expected[0].id} if expected else {})]
        assert again == [
            one
            async for one in plain.find(wanted, upto=after, after={AGENT: expected[0].id} if expected else {})
        ]


async def test_an_index_forgets_what_is_gone(
    redis: Redis, client: PlainRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.operations.letter_index._SPARE", 4)
    index = LetterIndex(redis)
    _die(client, 6)
    await index.refresh()
    client.xtrim(KEYS.dead(AGENT), maxlen=1, approximate=False)
    assert await index.ids(DeadFilter(photo="p-0"), AGENT, KEYS) == []
    assert await index.ids(DeadFilter(photo="p-5"), AGENT, KEYS) != []
