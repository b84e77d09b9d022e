"""Who may do what: keys, roles, sources, and requests a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from console.gateway import access, problems
from shared.operations import access_keys
from tests.console.gateway.conftest import SOURCE, Client, event, key_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from shared.settings import Settings

INTAKE = "erni:photo.submitted"
ASKED = (
    ("POST", "/v1/events"),
    ("POST", "/v1/photos"),
    ("GET", "/v1/photos/p-1"),
    ("GET", "/v1/sessions/s1"),
    ("POST", "/v1/sessions/s1/close"),
    ("GET", "/v1/sessions/s1/report"),
    ("GET", "/v1/stream?session=s1"),
)


@pytest.mark.parametrize(("method", "path"), ASKED)
async def test_without_a_key_or_with_a_wrong_one_nothing_is_answered(
    client: Client, method: str, path: str
) -> None:
    right, client.key = client.key, ""
    answer = await client.ask(method, path)
    assert (answer.status, answer.problem) == (401, "key-missing")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="erni"'
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    for header in (
        f"Bearer {wrong}",
        "Bearer x",
        f"Bearer {right}x",
        "Bearer \N{LATIN SMALL LETTER U WITH DIAERESIS}",
    ):
        answer = await client.ask(method, path, headers={"Authorization": header})
        assert (answer.status, answer.problem) == (401, "key-unknown")
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    answer = await client.ask(method, path, headers={"Authorization": f"Basic {right}"})
    assert (answer.status, answer.problem) == (401, "key-missing")


async def test_web_hooks_may_send_the_key_in_the_address(client: Client) -> None:
    right, client.key = client.key, ""
    answer = await client.ask(
        "POST",
        f"/v1/events?access_token={right}",
        data=msgspec.json.encode(event()),
        headers={"Content-Type": "application/cloudevents+json"},
    )
    assert answer.status == 202
    assert "private" in answer.headers["Cache-Control"]


async def test_a_publisher_speaks_for_its_own_source_only(client: Client, redis: Redis) -> None:
    for document in (event(source="urn:other"), [event(1, source="urn:other"), event(2, source="urn:other")]):
        answer = await client.publish(document)
        assert (answer.status, answer.problem) == (403, "source-not-allowed")
        assert "publishes for the source urn:camera-app" in answer.errors[0]["detail"]
    assert await redis.xlen(INTAKE) == 0
    assert await redis.keys("erni:published:*") == []


@pytest.mark.parametrize("role", ["operator", "admin"])
async def test_operators_and_admins_publish_for_any_source_unless_bound_to_one(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis, role: str
) -> None:
    async with served(settings, role) as client:
        assert (await client.publish(event(source="urn:other"))).status == 202
        client.key = await key_of(redis, "operator", name="bound", source=SOURCE)
        assert (await client.publish(event(source="urn:other"))).status == 403
        assert (await client.publish(event(7))).status == 202


async def test_a_viewer_reads_and_changes_nothing(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings, redis: Redis
) -> None:
    async with served(settings, "viewer") as client:
        for method, path in (
            ("POST", "/v1/events"),
            ("POST", "/v1/photos"),
            ("POST", "/v1/sessions/s1/close"),
        ):
            answer = await client.ask(method, path)
            assert (answer.status, answer.problem) == (403, "role-too-low")
            assert "has the role viewer" in answer.detail
        assert (await client.ask("GET", "/v1/photos/p-1")).status == 404
    assert sorted(await redis.keys("erni:*")) == [b"erni:keys", b"erni:keys:used"]


async def test_a_removed_key_is_refused_when_its_seconds_are_over(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.gateway.access.REMEMBERED_SECONDS", 0.0)
    assert (await client.publish(event(1))).status == 202
    assert await access_keys.remove(redis, "the-publisher")
    assert (await client.publish(event(2))).status == 401


async def test_a_key_is_looked_up_once_in_five_seconds(client: Client, redis: Redis) -> None:
    await client.publish(event(1))
    await redis.config_resetstat()
    for number in range(2, 6):
        assert (await client.publish(event(number))).status == 202
    calls = (await redis.info("commandstats")).get("cmdstat_hget", {"calls": 0})["calls"]
    assert calls == 4  # those of the script that notes a photo, none of a key


async def test_past_its_requests_a_key_gets_429_and_another_key_does_not(
    served: Callable[..., AbstractAsyncContextManager[Client]],
    settings: Settings,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("console.gateway.access.time.time", lambda: 1_800_000_020.0)
    async with served(msgspec.structs.replace(settings, http_rate_per_minute=2)) as client:
        answers = [await client.publish(event(number)) for number in range(3)]
        assert [answer.status for answer in answers] == [202, 202, 429]
        assert [answer.headers["RateLimit"] for answer in answers] == [
            f'"default";r={rest};t=40' for rest in (1, 0, 0)
        ]
        assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"default";q=2;w=60'}
        assert (answers[2].problem, answers[2].headers["Retry-After"]) == ("too-many-requests", "40")
        assert await redis.xlen(INTAKE) == 2
        client.key = await key_of(redis, "operator")
        assert (await client.publish(event(3))).status == 202
        handshake = await client.ask("OPTIONS", "/v1/events", headers={"WebHook-Request-Origin": "a.example"})
        assert handshake.headers["WebHook-Allowed-Rate"] == "2"
        monkeypatch.setattr("console.gateway.access.time.time", lambda: 1_800_000_061.0)
        client.key = await key_of(redis, "publisher", name="new")
        assert (await client.publish(event(4))).status == 202


async def test_without_a_limit_nothing_is_said_about_one(
    served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings
) -> None:
    async with served(msgspec.structs.replace(settings, http_rate_per_minute=0)) as client:
        assert "RateLimit" not in (await client.publish(event())).headers


async def test_unknown_addresses_and_methods_have_their_answers(client: Client) -> None:
    answer = await client.ask("GET", "/v1/nothing")
    assert (answer.status, answer.problem) == (404, "not-found")
    answer = await client.ask("PUT", "/v1/events")
    assert (answer.status, answer.problem, answer.headers["Allow"]) == (
        405,
        "method-not-allowed",
        "OPTIONS, POST",
    )


async def test_a_page_of_another_host_gets_nothing(client: Client) -> None:
    async with client.http.get(
        f"{client.url}/v1/openapi.json", headers={"Host": "evil.example.com"}
    ) as answer:
        assert answer.status == 421


@pytest.mark.parametrize("name", problems.KINDS)
async def test_the_type_of_a_problem_is_a_page_that_says_what_to_do(client: Client, name: str) -> None:
    answer = await client.ask("GET", f"/v1/problems/{name}")
    assert answer.status == 200
    assert len(answer.body.decode().split()) > 10


async def test_there_is_no_page_of_another_problem(client: Client) -> None:
    assert (await client.ask("GET", "/v1/problems/x")).problem == "not-found"


async def test_the_use_of_a_key_is_noted_once_a_minute(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "REMEMBERED_SECONDS", 0.0)
    await redis.config_resetstat()
    for _ in range(5):
        await client.ask("GET", "/v1/photos/p-1")
    found = await redis.info("commandstats")
    assert found["cmdstat_hset"]["calls"] == 1
    assert set(await access_keys.last_uses(redis)) == {"the-publisher"}
    monkeypatch.setattr(access_keys, "NOTED_SECONDS", 0.0)
    client.key = await key_of(redis, "viewer")
    for _ in range(2):
        await client.ask("GET", "/v1/photos/p-1")
    assert (await redis.info("commandstats"))["cmdstat_hset"]["calls"] == 3
    assert set(await access_keys.last_uses(redis)) == {"the-publisher", "the-viewer"}


async def test_a_publisher_goes_on_with_its_old_key_while_that_works(client: Client, redis: Redis) -> None:
    old = client.key
    new = await access_keys.rotate(redis, "the-publisher", grace=3600.0)
    assert new
    for key in (old, new):
        client.key = key
        assert (await client.publish(event(key[-6:]))).status == 202


async def test_a_full_redis_that_cannot_note_it_answers_all_the_same(client: Client, redis: Redis) -> None:
    await redis.config_set("maxmemory", "1")
    try:
        assert (await client.ask("GET", "/v1/photos/p-1")).status == 404
    finally:
        await redis.config_set("maxmemory", "0")
