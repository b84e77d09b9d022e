from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from events.identities import SchemaDigest, SessionId, Sha256
from events.types import FieldValue, Hints, NeedsPerson
from shared.photo_store import BlobStore
from shared.vision.cache import AnswerCache, answer_key
from shared.vision.contract import Answer, PhotoContext, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.columns.schema import LibrarySchema

ANSWER = Answer(
    fields={"Bauphase": FieldValue(value=["Rohbau"], source="vision", confidence=0.8)},
    needs_person=[NeedsPerson(column="Holzart", reason="Unklar.")],
    usage=Usage(prompt_tokens=1400, completion_tokens=120),
    description="Ein Rohbau.",
)
PHOTO, SCHEMA = Sha256("a" * 64), SchemaDigest("b" * 64)


class _Model:
    """An analyzer that only has a name."""

    def __init__(self, model: str = "m", prompt_version: str = "1") -> None:
        self.model = model
        self.prompt_version = prompt_version

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def describe(self, preview: bytes, schema: LibrarySchema, context: PhotoContext) -> Answer:
        raise NotImplementedError


class _Asked:
    """Counts how often it is asked; `gate` holds the answers back."""

    def __init__(self) -> None:
        self.times = 0
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def __call__(self) -> Answer:
        self.times += 1
        self.begun.set()
        await self.gate.wait()
        return ANSWER


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"))


@pytest.fixture
async def asked() -> _Asked:
    return _Asked()


async def test_an_answer_is_paid_once(store: BlobStore, redis: Redis, asked: _Asked) -> None:
    asked.gate.set()
    cache = AnswerCache(store, redis, lease=5)
    assert await cache.answer("k1", asked) == (ANSWER, False)
    assert await cache.answer("k1", asked) == (ANSWER, True)
    assert await AnswerCache(store, redis, lease=5).answer("k1", asked) == (ANSWER, True)
    assert asked.times == 1
    assert await redis.keys() == []


async def test_the_same_question_twice_at_once_is_paid_once_across_processes(
    store: BlobStore, redis: Redis, asked: _Asked
) -> None:
    caches = [AnswerCache(store, redis, lease=5) for _ in range(4)]
    tasks = [asyncio.create_task(cache.answer("k2", asked)) for cache in caches]
    await asked.begun.wait()
    asked.gate.set()
    answers = await asyncio.gather(*tasks)
    assert sorted(cached for _, cached in answers) == [False, True, True, True]
    assert asked.times == 1


async def test_a_question_that_failed_is_asked_again_at_once(store: BlobStore, redis: Redis) -> None:
    async def failing() -> Answer:
        raise ConnectionError("gone")

    cache = AnswerCache(store, redis, lease=30)
    with pytest.raises(ConnectionError):
        await cache.answer("k3", failing)
    assert await redis.keys() == []


async def test_a_process_that_died_while_asking_holds_nobody_up_for_longer_than_a_lease(
    store: BlobStore, redis: Redis, asked: _Asked
) -> None:
    await redis.set("erni:vision:asking:k4", b"somebody who is gone", px=300)
    asked.gate.set()
    assert await AnswerCache(store, redis, lease=0.3).answer("k4", asked) == (ANSWER, False)


async def test_a_question_that_takes_longer_than_a_lease_stays_locked(
    store: BlobStore, redis: Redis, asked: _Asked
) -> None:
    cache = AnswerCache(store, redis, lease=0.3)
    first = asyncio.create_task(cache.answer("k5", asked))
    await asked.begun.wait()
    second = asyncio.create_task(cache.answer("k5", asked))
    done, _ = await asyncio.wait([second], timeout=1.0)
    assert not done
    asked.gate.set()
    assert [cached for _, cached in await asyncio.gather(first, second)] == [False, True]
    assert asked.times == 1


async def test_an_answer_that_cannot_be_read_any_more_is_replaced(
    store: BlobStore, redis: Redis, asked: _Asked
) -> None:
    await store.put("vision/k6.json", b'{"written": "by an older release"}')
    asked.gate.set()
    cache = AnswerCache(store, redis, lease=5)
    assert await cache.answer("k6", asked) == (ANSWER, False)
    assert await cache.answer("k6", asked) == (ANSWER, True)


def test_the_key_is_what_the_answer_depends_on() -> None:
    context = PhotoContext(hints=Hints(project="Schulhaus"))
    key = answer_key(PHOTO, SCHEMA, _Model(), context)
    assert key == answer_key(PHOTO, SCHEMA, _Model(), context)
    assert key.startswith(f"{PHOTO}-")  # who removes a content finds its answers
    others = [
        answer_key(Sha256("c" * 64), SCHEMA, _Model(), context),
        answer_key(PHOTO, SchemaDigest("c" * 64), _Model(), context),
        answer_key(PHOTO, SCHEMA, _Model("n"), context),
        answer_key(PHOTO, SCHEMA, _Model("m", "2"), context),
        answer_key(PHOTO, SCHEMA, _Model(), PhotoContext(hints=Hints(project="Werkhalle"))),
        answer_key(PHOTO, SCHEMA, _Model(), PhotoContext(hints=Hints(text="Schulhaus"))),
    ]
    assert len({key, *others}) == 7


def test_who_pays_and_who_took_the_photo_are_not_part_of_the_key() -> None:
    one = PhotoContext(hints=Hints(photographer="eine"), session_id=SessionId("s-1"))
    other = PhotoContext(hints=Hints(photographer="anderer"), session_id=SessionId("s-2"))
    assert answer_key(PHOTO, SCHEMA, _Model(), one) == answer_key(PHOTO, SCHEMA, _Model(), other)


async def test_an_answer_that_says_nothing_is_asked_for_again(store: BlobStore, redis: Redis) -> None:
    answers = [Answer(fields={}, usable=False), ANSWER]

    async def ask() -> Answer:
        return answers.pop(0)

    cache = AnswerCache(store, redis, lease=5)
    assert await cache.answer("k4", ask) == (Answer(fields={}, usable=False), False)
    assert await cache.answer("k4", ask) == (ANSWER, False)
    assert await cache.answer("k4", ask) == (ANSWER, True)
