"""`erni key`: a key is shown once, kept as a hash, and bound to a role and a source."""

from __future__ import annotations

import hashlib
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from shared.operations import access_keys
from shared.operations.access_keys import InvalidKeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

    from tests.console.conftest import Ran

ADD = ("key", "add", "camera-app", "--role", "publisher", "--source", "urn:camera-app")


def test_a_key_is_printed_once_and_redis_holds_only_its_hash(erni: Callable[..., Ran], client: Redis) -> None:
    ran = erni(*ADD)
    key = ran.out.strip()
    assert re.fullmatch(r"erni_camera-app_[0-9a-f]{64}", key)
    assert "not shown again" in ran.err
    stored = client.hget("erni:keys", "camera-app")
    assert isinstance(stored, bytes)
    assert key.rpartition("_")[2].encode() not in stored
    assert msgspec.json.decode(stored)["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    listed = erni("key", "list")
    assert "camera-app  publisher" in listed.out
    assert "urn:camera-app" in listed.out
    assert key not in listed.out
    document = erni("key", "list", "--json").document
    assert document["keys"][0].keys() == {
        *("name", "role", "source", "needs_idempotency_key", "created_at", "last_used_at")
    }


def test_the_list_shows_when_a_key_was_last_used(erni: Callable[..., Ran], client: Redis) -> None:
    erni(*ADD)
    assert "never used" in erni("key", "list").out
    assert erni("key", "list", "--json").document["keys"][0]["last_used_at"] is None
    client.hset("erni:keys:used", "camera-app", str(int(time.time())))
    assert "last used " in erni("key", "list").out
    assert abs(erni("key", "list", "--json").document["keys"][0]["last_used_at"] - time.time()) < 600
    erni("key", "remove", "camera-app")
    erni(*ADD)
    assert "never used" in erni("key", "list").out


def test_the_json_document_holds_the_key_and_nothing_else_does(erni: Callable[..., Ran]) -> None:
    ran = erni("key", "add", "board", "--role", "viewer", "--json")
    assert ran.document["key"].startswith("erni_board_")
    assert ran.document.keys() == {"name", "role", "source", "key"}
    assert ran.document["key"] not in ran.err


def test_a_name_is_taken_once(erni: Callable[..., Ran]) -> None:
    first = erni(*ADD).out
    ran = erni(*ADD)
    assert ran.code == 2
    assert "there is a key camera-app already" in ran.err
    assert erni("key", "remove", "camera-app").code == 0
    assert erni(*ADD).out != first


def test_a_removed_key_is_gone_and_an_unknown_one_is_named(erni: Callable[..., Ran], client: Redis) -> None:
    erni(*ADD)
    assert "within 5 seconds" in erni("key", "remove", "camera-app").out
    assert client.exists("erni:keys") == 0
    ran = erni("key", "remove", "camera-app")
    assert ran.code == 1
    assert "there is no key camera-app" in ran.err
    assert "there is no key yet" in erni("key", "list").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("a", "--role", "publisher"), "a publisher's key belongs to one source"),
        (("a", "--role", "viewer", "--source", "urn:a"), "a viewer publishes nothing"),
        (("a", "--role", "publisher", "--source", "no source"), "is no URI reference"),
        (("A_b", "--role", "viewer"), "the name 'A_b' cannot be used"),
        (("x" * 65, "--role", "viewer"), "give 1 to 64 characters"),
        (("a", "--role", "king"), "invalid choice: 'king'"),
    ],
)
def test_a_key_that_cannot_be_is_wrong_usage(
    erni: Callable[..., Ran], client: Redis, words: tuple[str, ...], sentence: str
) -> None:
    ran = erni("key", "add", *words)
    assert ran.code == 2
    assert sentence in ran.err
    assert "Traceback" not in ran.err
    assert client.exists("erni:keys") == 0


async def test_only_the_whole_key_is_found(redis: AsyncRedis) -> None:
    key = await access_keys.add(redis, "camera-app", "publisher", source="urn:camera-app")
    found = await access_keys.find(redis, key)
    assert found is not None
    assert (found.role, found.source) == ("publisher", "urn:camera-app")
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    for other in ("", "erni_", key[:-1], wrong, key.replace("camera-app", "other"), f"{key}\n", found.sha256):
        assert await access_keys.find(redis, other) is None


@pytest.mark.parametrize("meanwhile", ["renewed", "removed"])
async def test_a_key_that_somebody_else_renews_or_removes_is_not_renewed_over_that(
    redis: AsyncRedis, client: Redis, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    await access_keys.add(redis, "camera-app", "viewer")
    theirs = access_keys._fresh("camera-app")
    fresh = access_keys._fresh

    def between_reading_and_writing(name: str) -> str:
        if meanwhile == "removed":
            client.hdel(access_keys.KEYS, name)
        else:
            record: Any = msgspec.json.decode(client.hget(access_keys.KEYS, name) or b"")
            record["sha256"] = hashlib.sha256(theirs.encode()).hexdigest()
            client.hset(access_keys.KEYS, name, msgspec.json.encode(record))
        return fresh(name)

    monkeypatch.setattr(access_keys, "_fresh", between_reading_and_writing)
    with pytest.raises(InvalidKeyError, match="somebody else renewed or removed the key camera-app"):
        await access_keys.rotate(redis, "camera-app")
    assert (await access_keys.find(redis, theirs) is not None) == (meanwhile == "renewed")
    assert bool(client.hexists(access_keys.KEYS, "camera-app")) == (meanwhile == "renewed")


async def test_a_foreign_value_in_the_hash_lets_nobody_in(redis: AsyncRedis) -> None:
    key = await access_keys.add(redis, "board", "viewer")
    await redis.hset("erni:keys", "board", "no record")
    await redis.hset("erni:keys", "other", b"\xff")
    assert await access_keys.find(redis, key) is None
    assert await access_keys.all_keys(redis) == []
