"""A session's counters are what a recount of the streams gives, whatever became of its photos."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from events import topology
from events.identities import SessionId
from events.publisher import Publisher
from events.types import PhotoSubmitted
from shared.retry.errors import PermanentError, PostponeError, TransientError
from shared.telemetry.metrics import SESSION_ERRORS, SIDE_WRITE_FAILURES
from tests.shared.delivery.harness import until
from tests.shared.sessions.chain import chain
from tests.shared.sessions.places import Place, call, fields, hashes, members, store_at

if TYPE_CHECKING:
    from redis.asyncio import Redis


def photo(session_id: str, number: int | str, **more: Any) -> PhotoSubmitted:
    return PhotoSubmitted(
        source_url=f"https://bau.invalid/{session_id}/{number}", session_id=SessionId(session_id), **more
    )


WAYS: list[list[type[Exception]]] = [
    [],
    [PermanentError],
    [PostponeError],
    [TransientError],
    [PostponeError, PermanentError],
]


def nothing(_agent: str, _url: str) -> None:
    """Every photo is fine."""


async def test_counters_equal_a_recount_and_each_completion_is_written_once(
    client: Redis, place: Place
) -> None:
    dice = random.Random(5)
    # what happens to a photo at an agent the first times
    plans: dict[tuple[str, str], list[type[Exception]]] = {
        (agent, f"https://bau.invalid/s{session}/{number}"): dice.choices(WAYS, [12, 1, 1, 1, 1])[0].copy()
        for agent in topology.AGENTS
        for session in range(4)
        for number in range(12)
    }
    died = Counter[str]()

    def do(agent: str, url: str) -> None:
        plan = plans.get((agent, url))
        if plan:
            kind = plan.pop(0)
            if kind is PermanentError:
                died[url.split("/")[3]] += 1
                raise PermanentError("no such library")
            if kind is PostponeError:
                raise PostponeError("asked to wait", 60.0)
            raise TransientError("hiccup")

    publisher = Publisher(client, lanes=place.lanes)
    async with chain(place, do) as running:
        await publisher.open_session("s0", expected=12)
        for session in range(4):
            for number in range(12):
                expected = 12 if session == 1 else None
                event = photo(f"s{session}", number, expected=expected)
                await publisher.publish(event, event_id=f"{session}-{number}")
                again = await publisher.publish(event, event_id=f"{session}-{number}")
                assert not again.fresh
        await running.drain()
        assert await publisher.close_session("s2", expected=12) == 12
        await running.drain()
        replays, rounds = Counter[str](), Counter[str]()
        while replayed := await running.replay():
            rounds.update({one.letter.session_id for one in replayed if one.letter.session_id})
            replays.update(one.letter.session_id for one in replayed if one.letter.session_id)
            await running.drain()
        assert replays == died
        assert died.total() > 4
        for name in ("s0", "s1", "s2", "s3"):
            said = await fields(client, place, name)
            ends = await running.ends(name)
            assert ends == {"validated": 12}
            counted = {counter: int(said.get(counter, 0)) for counter in ("received", *topology.AGENTS)}
            assert counted == dict.fromkeys(("received", *topology.AGENTS), 12)
            assert [int(said.get(counter, 0)) for counter in ("validated", "dead", "postponed")] == [12, 0, 0]
            reports = await running.reports(name)
            completions = [report.completion for report in reports]
            if name == "s3":  # nobody said how many it has
                assert completions == []
                assert said["status"] == "open"
            else:
                # replays within a round may complete it more often than once: never twice by one number
                assert sorted(completions) == list(range(1, len(completions) + 1))
                assert 1 + rounds[name] <= len(completions) <= 1 + replays[name]
                assert said["completion"] == str(len(completions))
                assert said["status"] == "completed"
                assert reports[-1].dead == 0
                assert reports[-1].validated == 12
        assert sorted(await members(client, place, "session_lru")) == ["s0", "s1", "s2", "s3"]
        assert await members(client, place, "session_open") == []


async def test_photos_that_come_into_a_completed_session_complete_it_anew(
    client: Redis, place: Place
) -> None:
    publisher = Publisher(client, lanes=place.lanes)
    async with chain(place, lambda *_: None) as running:
        await publisher.open_session("s1", expected=2)
        for number in range(2):
            await publisher.publish(photo("s1", number))
        await running.drain()
        for number in range(2, 5):
            await publisher.publish(photo("s1", number))
        await running.drain()
        reports = await running.reports("s1")
        assert [report.completion for report in reports] == list(range(1, len(reports) + 1))
        assert 2 <= len(reports) <= 4
        assert (reports[0].validated, reports[-1].validated) == (2, 5)
        # told too many: closed with the right number it is complete; with more again it waits
        assert await publisher.close_session("s1", expected=7) == 7
        assert (await fields(client, place, "s1"))["status"] == "open"
        assert await publisher.close_session("s1", expected=5) == 5
        await running.drain()
        assert len(await running.reports("s1")) == len(reports) + 1


@pytest.mark.parametrize(
    ("agent", "url"), [("schema_extractor", "https://bau.invalid/s1/bare"), ("validation_reporter", "")]
)
async def test_what_waits_is_counted_and_uncounted_by_the_same_rule(
    client: Redis, place: Place, agent: str, url: str
) -> None:
    waits = [(agent, url)]

    def do(agent: str, url: str) -> None:
        if (agent, url) in waits:
            waits.remove((agent, url))
            raise PostponeError("asked to wait", 60.0)

    async with chain(place, do) as running:
        # a session that stands in the data alone, as any client may write it; its report is no photo
        data = b'{"source_url": "https://bau.invalid/s1/bare", "session_id": "s1", "expected": 1}'
        await call(client, "XADD", place.lane("s1").stream(topology.INTAKE), "*", "data", data)

        async def reported() -> bool:
            await running.drained()
            return len(await running.reports("s1")) == 1

        await until(reported)
        said = await fields(client, place, "s1")
    assert waits == []
    assert (said["received"], said["validated"], said.get("postponed", "0")) == ("1", "1", "0")


async def test_dead_letters_count_and_a_photo_that_is_postponed_first_keeps_its_session(
    client: Redis, place: Place
) -> None:
    def do(agent: str, url: str) -> None:
        if agent == "vision_analyzer" and url.endswith("dies"):
            raise PermanentError("blank")
        if agent == "schema_extractor" and url.endswith("waits") and not free:
            raise PostponeError("asked to wait", 60.0)

    free: list[bool] = []
    publisher = Publisher(client, lanes=place.lanes)
    async with chain(place, do) as running:
        await publisher.publish(photo("s1", "waits"))

        async def postponed() -> bool:
            return (await fields(client, place, "s1")).get("postponed") == "1"

        await until(postponed)
        assert await members(client, place, "session_open") == ["s1"]
        found = await store_at(client, place).peek("s1")
        assert found is not None
        assert found.in_flight == 1
        free.append(True)
        await publisher.publish(photo("s1", "dies"))
        await running.drain()
        said = await fields(client, place, "s1")
        assert await running.ends("s1") == {"validated": 1, "dead": 1}
    assert (said["received"], said["validated"], said["dead"], said["postponed"]) == ("2", "1", "1", "0")
    assert "validation_reporter" in said
    assert await members(client, place, "session_lru") == ["s1"]


async def test_what_cannot_be_decoded_is_received_once_however_often_it_is_replayed(
    client: Redis, place: Place
) -> None:
    lane = place.lane("s1")
    async with chain(place, nothing) as running:
        await call(client, "XADD", lane.stream(topology.INTAKE), "*", "sessionid", "s1", "data", "{")
        await running.drain()
        for _ in range(2):
            assert len(await running.replay()) == 1
            await running.drain()
        said = await fields(client, place, "s1")
    assert (said["received"], said["dead"]) == ("1", "1")


async def test_a_report_that_cannot_be_written_is_no_dead_photo_nor_is_its_replay_a_living_one(
    client: Redis, place: Place
) -> None:
    broken = [True]

    def do(agent: str, url: str) -> None:
        if agent == "validation_reporter" and not url and broken:
            raise PermanentError("the page cannot be written")

    publisher = Publisher(client, lanes=place.lanes)
    async with chain(place, do) as running:
        await publisher.publish(photo("s1", 1, expected=1))
        await running.drain()
        said = await fields(client, place, "s1")
        assert (said["validated"], said.get("dead", "0"), said["completion"]) == ("1", "0", "1")
        broken.clear()
        assert len(await running.replay()) == 1
        await running.drain()
        said = await fields(client, place, "s1")
        assert (said["validated"], said.get("dead", "0"), said["completion"]) == ("1", "0", "1")
        assert [report.completion for report in await running.reports("s1")] == [1]


async def test_a_session_that_is_gone_is_not_half_created(client: Redis, place: Place) -> None:
    lane = place.lane("s1")
    gone: list[bool] = []

    def do(agent: str, _url: str) -> None:
        if agent == "photo_fetcher" and not gone:
            raise PostponeError("asked to wait", 60.0)

    publisher = Publisher(client, lanes=place.lanes)
    async with chain(place, do) as running:
        await publisher.publish(photo("s1", 1, expected=1))
        await until(lambda: call(client, "ZCARD", lane.delayed("photo_fetcher")))
        assert await store_at(client, place).delete("s1")
        gone.append(True)
        await running.drain()
        assert await running.ends("s1") == {"validated": 1}
    assert await hashes(client, place) == set()
    assert await members(client, place, "session_open") == []


CORRUPT = [
    ("SET", "garbage", "EX", "60"),
    ("HSET", "dead", "many"),
    ("HSET", "<the agent's own>", "1.5"),
    ("HSET", "access_count", "9" * 19),
    ("HDEL", "session_id"),
]


@pytest.mark.parametrize("words", CORRUPT, ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("before", ["schema_extractor", "validation_reporter"])
async def test_a_corrupt_session_neither_fails_nor_repeats_a_hand_off(
    client: Redis, place: Place, words: tuple[str, ...], before: str
) -> None:
    lane = place.lane("s1")
    there: list[bool] = []

    def do(agent: str, _url: str) -> None:
        if agent == before and not there:
            raise PostponeError("asked to wait", 60.0)

    counted = SESSION_ERRORS.labels("corrupt")._value.get()
    publisher = Publisher(client, lanes=place.lanes)
    async with chain(place, do) as running:
        for number in range(3):
            await publisher.publish(photo("s1", number))
        await until(lambda: _three(client, lane.delayed(before)))
        words = tuple(before if word.startswith("<") else word for word in words)
        await call(client, words[0], lane.session("s1"), *words[1:])
        there.append(True)
        await running.drain()
        assert await running.ends("s1") == {"validated": 3}
        for agent in topology.AGENTS:
            assert await call(client, "XLEN", lane.dead(agent)) == 0
    assert SESSION_ERRORS.labels("corrupt")._value.get() > counted
    # a session that nobody can count for goes by its time; a new one counts from its first photo
    if before == "schema_extractor":
        assert await hashes(client, place) == {"s1"}
        said = await fields(client, place, "s1")
        assert said["validated"] == "3"
    await call(client, "DEL", lane.session("s1"))


async def _three(client: Redis, key: str) -> bool:
    return bool(await call(client, "ZCARD", key) == 3)


@pytest.mark.leaves_keys(r"erni:photo.submitted")
async def test_foreign_indexes_cost_no_hand_off_and_no_completion(client: Redis, place: Place) -> None:
    lane = place.lane("s1")
    for key in (lane.session_open, lane.session_lru, lane.session_stats):
        await client.set(key, "garbage", ex=60)
    publisher = Publisher(client, lanes=place.lanes)
    failures = SIDE_WRITE_FAILURES.labels("schema_extractor")._value.get()
    async with chain(place, nothing) as running:
        await publisher.publish(photo("s1", 1, expected=1))
        await running.drain()
        assert await running.ends("s1") == {"validated": 1}
        assert [report.completion for report in await running.reports("s1")] == [1]
    assert SIDE_WRITE_FAILURES.labels("schema_extractor")._value.get() == failures
    assert await members(client, place, "session_lru") == ["s1"]


async def test_sessions_that_hand_offs_create_are_evicted_before_the_next_hand_off(
    client: Redis, place: Place
) -> None:
    publisher = Publisher(client, lanes=place.lanes)
    names = place.one_lane(40)
    async with chain(place, nothing, session_max=6 * place.lanes, concurrency=4) as running:
        for name in names:
            await publisher.publish(photo(name, 1))
        await running.drain()
        lane = place.lane(names[0])
        # no sweep is waited for: the last hand-off made room itself
        rest = await call(client, "ZCARD", lane.session_lru)
        assert 1 <= rest <= 6
        assert await call(client, "ZCARD", lane.session_open) == 0
        assert len(await hashes(client, place)) == rest
        assert (await store_at(client, place).stats()).evicted == 40 - rest


async def test_the_memory_backend_counts_nothing_in_redis(client: Redis, place: Place) -> None:
    publisher = Publisher(client, lanes=place.lanes)
    async with chain(place, nothing, session_backend="memory") as running:
        await publisher.publish(photo("s1", 1, expected=1))
        await running.drain()
        assert await running.ends("s1") == {"validated": 1}
        assert await running.reports("s1") == []
    assert await hashes(client, place) == set()
