"""`erni key`: a key is shown once, kept as a hash, and bound to a role and a source."""

from __future__ import annotations

import hashlib
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from shared.operations import access_keys, sign_in
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
        *("name", "role", "source", "needs_idempotency_key", "created_at", "last_used_at", "old_until")
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


def test_a_rotated_key_keeps_its_role_and_source_and_the_old_one_works_for_a_day(
    erni: Callable[..., Ran], client: Redis
) -> None:
    old = erni(*ADD, "--require-idempotency-key").out.strip()
    ran = erni("key", "rotate", "camera-app")
    new = ran.out.strip()
    assert new != old
    assert re.fullmatch(r"erni_camera-app_[0-9a-f]{64}", new)
    assert "the old key works until 20" in ran.err
    stored = str(client.hgetall("erni:keys"))
    assert not any(key.rpartition("_")[2] in stored for key in (old, new))
    listed = erni("key", "list")
    assert "the key before it works until 20" in listed.out
    [shown] = erni("key", "list", "--json").document["keys"]
    assert 86_000 < shown["old_until"] - time.time() <= 86_400
    assert (shown["role"], shown["source"], shown["needs_idempotency_key"]) == (
        "publisher",
        "urn:camera-app",
        True,
    )
    entries: Any = client.xrevrange("erni:activity", count=1)
    [(_, activity)] = entries
    assert (activity[b"action"], activity[b"what"]) == (b"key rotate", b"camera-app")
    # a second rotation would end a key early that somebody may still use
    again = erni("key", "rotate", "camera-app", "--grace", "1h")
    assert again.code == 2
    assert "the key before that still works for 24.0 h" in again.err
    document = erni("key", "rotate", "camera-app", "--grace", "0s", "--json").document
    assert document.keys() == {"name", "key", "old_until"}
    assert document["old_until"] is None
    assert erni("key", "list", "--json").document["keys"][0]["old_until"] is None


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nobody",), 1, "there is no key nobody"),
        (("camera-app", "--grace", "91d"), 2, "for 90 days at most"),
        (("camera-app", "--grace", "soon"), 2, "'soon' is no duration"),
    ],
)
def test_a_rotation_that_cannot_be_changes_nothing(
    erni: Callable[..., Ran], client: Redis, words: tuple[str, ...], code: int, sentence: str
) -> None:
    erni(*ADD)
    before = client.hgetall("erni:keys")
    ran = erni("key", "rotate", *words)
    assert ran.code == code
    assert sentence in ran.err
    assert client.hgetall("erni:keys") == before


async def test_an_old_key_opens_until_its_time_is_over(
    redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await access_keys.add(redis, "petra", "operator")
    signed_in = await sign_in.with_key(redis, first)
    assert signed_in
    cookie = signed_in[1]
    second = await access_keys.rotate(redis, "petra", grace=3600.0)
    assert second
    for key in (first, second):
        assert await access_keys.find(redis, key)
    assert await sign_in.who(redis, cookie)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    assert await access_keys.find(redis, first) is None
    assert await sign_in.who(redis, cookie) is None
    assert await access_keys.find(redis, second)
    third = await access_keys.rotate(redis, "petra", grace=3600.0)
    assert third
    assert await access_keys.find(redis, first) is None
    fourth = await access_keys.rotate(redis, "petra")
    assert fourth
    assert [bool(await access_keys.find(redis, key)) for key in (second, third, fourth)] == [
        False,
        False,
        True,
    ]


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
