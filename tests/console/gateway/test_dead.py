"""`POST /v1/dead/replay` runs the function of the console and of `erni dead replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis as PlainRedis

from shared.operations import activity
from shared.operations.bulk import Bulk
from tests.console.gateway.conftest import key_of
from tests.console.pipeline import KEYS, dies
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

    from shared.operations.access_keys import Role
    from tests.console.gateway.conftest import Answer, Client

AGENT = "sharepoint_uploader"


@pytest.fixture
def letters(redis_url: str) -> Iterator[PlainRedis]:
    """Three dead letters of a session, and one of another."""
    with PlainRedis.from_url(redis_url, protocol=2) as plain:
        for number in range(4):
            session = "s1" if number < 3 else "s2"
            dies(plain, AGENT, "photo.analyzed", session=session, photo=f"p-{number}")
        yield plain


async def _replay(client: Client, order: Any) -> Answer:
    return await client.ask("POST", "/v1/dead/replay", json=order)


async def test_a_dry_run_counts_and_a_replay_moves_each_once(
    client: Client, redis: Redis, letters: PlainRedis
) -> None:
    client.key = await key_of(redis, "operator")
    answer = await _replay(client, {"session": "s1", "dry_run": True})
    assert (answer.status, answer.document) == (200, {"dry_run": True, "count": 3, "operation": None})
    assert letters.xlen(KEYS.dead(AGENT)) == 4
    answer = await _replay(client, {"session": "s1"})
    assert answer.status == 202
    assert answer.document["count"] == 3
    where = answer.headers["Location"]
    assert answer.document["operation"] == where

    async def done() -> bool:
        return bool((await client.ask("GET", where)).document["state"] == "done")

    await until(done)
    view = (await client.ask("GET", where)).document
    assert (view["kind"], view["who"], view["count"], view["done"]) == ("replay", "the-operator", 3, 3)
    assert letters.xlen(KEYS.stream("photo.analyzed")) == 3
    assert letters.xlen(KEYS.dead(AGENT)) == 1
    # and everybody sees who did it
    entries: Any = letters.xrange(activity.ACTIVITY)
    [(_, noted)] = entries
    assert (noted[b"who"], noted[b"action"]) == (b"the-operator", b"replay")
    assert noted[b"operation"].decode() == view["id"]
    # the same again finds nothing, and orders nothing
    assert (await _replay(client, {"session": "s1"})).document == {
        "dry_run": False,
        "count": 0,
        "operation": None,
    }


async def test_it_is_the_operation_of_the_console_and_of_the_command_line(
    client: Client, redis: Redis, letters: PlainRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.key = await key_of(redis, "admin")
    started: list[Any] = []
    start = Bulk.start

    async def noted(self: Bulk, *arguments: Any, **more: Any) -> Any:
        started.append(arguments)
        return await start(self, *arguments, **more)

    monkeypatch.setattr(Bulk, "start", noted)
    await _replay(client, {"all": True, "limit": 2})
    assert [(kind, selection.filter.limit) for kind, selection, _ in started] == [("replay", 2)]


async def test_a_part_of_a_name_is_one_with_a_star_and_a_name_without_it_means_only_itself(
    client: Client, redis: Redis, letters: PlainRedis
) -> None:
    client.key = await key_of(redis, "operator")
    dies(letters, AGENT, "photo.analyzed", session="s12", photo="p-9", file_name="Luzern_1.jpg")
    for order, count in (({"session": "s1"}, 3), ({"session": "S1*"}, 4), ({"photo": "*luzern*"}, 1)):
        assert (await _replay(client, {**order, "dry_run": True})).document["count"] == count, order


@pytest.mark.parametrize("role", ["viewer", "publisher"])
async def test_only_operators_and_admins_replay(
    client: Client, redis: Redis, letters: PlainRedis, role: Role
) -> None:
    client.key = await key_of(redis, role, name="somebody")
    for order in ({"session": "s1"}, {"session": "s1", "dry_run": True}):
        assert (await _replay(client, order)).problem == "role-too-low"
    assert letters.xlen(KEYS.dead(AGENT)) == 4
    status = (await client.ask("GET", "/v1/operations/19a0")).status
    assert status == (404 if role == "viewer" else 403)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({}, "without a condition this would replay every dead letter"),
        ({"limit": 5}, "without a condition this would replay every dead letter"),
        ({"all": True, "session": "s1"}, "exclude each other"),
        ({"sesion": "s1"}, "sesion"),
        ({"agent": "nobody"}, "there is no agent 'nobody'"),
        ({"reason": "permanant"}, "there is no reason 'permanant'"),
        ({"session": "../x y"}, "session"),
        ({"id": "soon"}, "id"),
        ({"session": ""}, "session"),
        ({"session": "s1", "limit": 0}, "limit"),
        ({"session": "s1", "rate": 0}, "rate"),
        ([], "the body is no filter of dead letters"),
    ],
)
async def test_an_order_that_means_nothing_replays_nothing(
    client: Client, redis: Redis, letters: PlainRedis, order: Any, says: str
) -> None:
    client.key = await key_of(redis, "operator")
    answer = await _replay(client, order)
    assert (answer.status, answer.problem) == (400, "bad-request")
    assert says in answer.detail
    assert letters.xlen(KEYS.dead(AGENT)) == 4


async def test_an_operation_that_does_not_exist_is_404(client: Client, redis: Redis) -> None:
    client.key = await key_of(redis, "viewer")
    for operation_id in ("19a0", "not-hex", "a" * 80):
        assert (await client.ask("GET", f"/v1/operations/{operation_id}")).problem == "not-found"
