"""What a page says after something was done to dead letters: where they are now, and the way there."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from events.identities import SessionId
from events.types import Step
from shared.delivery.photo_record import record_fields
from shared.operations import acts
from shared.operations.activity import Person
from shared.operations.bulk import Bulk
from shared.operations.dead_letters import DeadFilter
from shared.sessions.store import SessionStore
from tests.console.pipeline import KEYS, TRACEPARENT, dies, pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

AGENT, STREAM = "sharepoint_uploader", "photo.analyzed"
SESSION = "seewen-12-nov"


def tried(client: Any, photo: str, *outcomes: str) -> None:
    """Let agents, the uploader and what follows it, write a photo's record now."""
    for agent, outcome in zip((AGENT, "validation_reporter"), outcomes, strict=False):
        step = Step(agent=agent, started=time.time(), seconds=0.1)
        fields = record_fields(step, outcome, "", TRACEPARENT, SESSION, f"{photo}.jpg")
        client.hset(KEYS.photo(photo), mapping=dict(pairs(fields)))
        client.expire(KEYS.photo(photo), 100)


def die(client: Any, number: int) -> list[str]:
    """Let so many photos of the session fail; returns the ids of their dead letters."""
    found = []
    for n in range(number):
        tried(client, f"p-{n}", "dead")
        found.append(dies(client, AGENT, STREAM, photo=f"p-{n}", session=SESSION, file_name=f"b_00{n}.jpg"))
    return found


async def done(person: Any, path: str) -> Any:
    """The page of an operation when it has ended."""
    async with asyncio.timeout(20):
        while "t-done" not in (seen := await person.get(path)).html:  # noqa: ASYNC110 - a page has no event
            await asyncio.sleep(0.05)
    return seen


async def test_after_a_replay_the_page_says_what_became_of_each_photo(
    enter: Callable[..., Any], client: Any
) -> None:
    die(client, 4)
    operator = await enter("operator")
    path = await operator.order("replay", f"session={SESSION}")
    page = await done(operator, path)
    assert "validated 0 dead letters 0 on their way 4" in page.text
    assert page.text.count("on its way: File in SharePoint") == 4
    assert f'class="button main" href="/sessions/{SESSION}"' in page.html
    assert f'class="chip" href="/sessions/{SESSION}"' in page.html
    assert "/ask/replay" not in page.html
    tried(client, "p-0", "done", "done")
    tried(client, "p-1", "dead")
    tried(client, "p-2", "done")
    page = await operator.get(path)
    assert "validated 1 dead letters 1 on their way 2" in page.text
    assert "on its way: Check result" in page.text
    assert f'href="/dead?session={SESSION}"' in page.html


async def test_after_a_replay_of_one_the_page_names_it_and_leads_to_its_photo(
    enter: Callable[..., Any], client: Any
) -> None:
    [dead_id] = die(client, 1)
    operator = await enter("operator")
    page = await done(operator, await operator.order("replay", f"agent={AGENT}&id={dead_id}"))
    assert 'class="button main" href="/photos/p-0"' in page.html
    assert "Photo: b_000.jpg" in page.text
    assert f"Session: {SESSION}" in page.text
    assert "Repeat" not in page.text
    assert dead_id not in page.text


async def test_after_a_large_replay_the_page_shows_the_numbers_of_its_session(
    enter: Callable[..., Any], client: Any, redis: Redis
) -> None:
    die(client, 51)
    sessions = SessionStore(redis)
    await sessions.set(SessionId(SESSION), library="Referenzfotos", site="/sites/Bau", expected=60)
    await sessions.aclose()
    client.hset(KEYS.session(SESSION), mapping={"received": 60, "validated": 9, "dead": 51})
    operator = await enter("operator")
    page = await done(operator, await operator.order("replay", f"session={SESSION}"))
    assert "validated 9 dead 0 on their way 51" in page.text
    assert "These numbers are those of the whole session." in page.text


@pytest.mark.parametrize("one", [True, False])
async def test_after_a_discard_the_page_leads_to_the_archive_and_back_out_of_it(
    enter: Callable[..., Any], client: Any, *, one: bool
) -> None:
    dead_ids = die(client, 1 if one else 3)
    admin = await enter("admin")
    query = f"agent={AGENT}&id={dead_ids[0]}" if one else f"session={SESSION}"
    page = await done(admin, await admin.order("discard", query))
    assert "in the archive now" in page.text
    assert "Repeat" not in page.text
    found = f"agent={AGENT}&photo=p-0" if one else f"session={SESSION}"
    assert f'href="/archive?{found}"' in page.html.replace("&amp;", "&")
    assert f"{len(dead_ids)} dead letter" in (await admin.get(f"/archive?{found}")).text
    await done(admin, await admin.order("restore", found))
    assert client.xlen(KEYS.dead(AGENT)) == len(dead_ids)


async def test_a_forgotten_session_is_named_by_no_operation_that_was_about_others_too(
    redis: Redis, client: Any
) -> None:
    for n, session in enumerate((SESSION, "another", SESSION)):
        dies(client, AGENT, STREAM, photo=f"p-{n}", session=session)
    bulk = Bulk(redis)
    selection = await bulk.select(DeadFilter(agent=AGENT), "replay")
    before = await bulk.start("replay", selection, Person("petra", "operator"))
    await acts.forget(redis, SESSION, ["p-0", "p-2"], lanes=1)
    after = await bulk.get(before.id)
    assert [one.photo_id for one in before.affected] == ["p-0", "p-1", "p-2"]
    assert [one.photo_id for one in after.affected] == ["p-1"]
    assert after.selection == before.selection
    async for _ in bulk.run(after):
        pass
