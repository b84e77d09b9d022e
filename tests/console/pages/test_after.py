"""What a page says after something was done to dead letters: where they are now, and the way there."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events.identities import SessionId
from events.types import Step
from shared.delivery.photo_record import record_fields
from shared.operations import acts
from shared.operations.activity import Person
from shared.operations.bulk import Bulk
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.discarded import Discarded
from shared.operations.letter_index import LetterIndex
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
    """Let a number of photos of the session fail; returns the ids of their dead letters."""
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


async def test_a_discarded_photo_says_so_on_its_pages_and_can_be_restored_from_them(
    enter: Callable[..., Any], client: Any, redis: Redis
) -> None:
    dead_ids = die(client, 3)
    sessions = SessionStore(redis)
    await sessions.set(SessionId(SESSION), library="Referenzfotos", site="/sites/Bau", expected=3)
    await sessions.aclose()
    client.hset(KEYS.session(SESSION), mapping={"received": 3, "dead": 3})
    admin = await enter("admin")
    await done(admin, await admin.order("discard", f"agent={AGENT}&id={dead_ids[0]}"))
    [(entry, fields)] = client.xrange(KEYS.archive(AGENT))
    archived, who = entry.decode(), fields[b"discarded_by"].decode()
    seen = await admin.get(f"/sessions/{SESSION}")
    assert "2 photos did not get through." in seen.text
    assert "1 photo that did not get through was discarded." in seen.text
    assert f'href="/archive?session={SESSION}"' in seen.html
    seen = await admin.get("/photos/p-0")
    assert f"Discarded by {who}, " in seen.text
    assert "It can be restored until " in seen.text
    assert f'href="/archive/{AGENT}/{archived}"' in seen.html
    assert f"/ask/restore?back=%2Fphotos%2Fp-0&amp;agent={AGENT}&amp;id={archived}" in seen.html
    moved = await admin.get(f"/dead/{AGENT}/{dead_ids[0]}")
    assert (moved.status, moved.headers["Location"]) == (303, f"/archive/{AGENT}/{archived}")
    assert f"Discarded by {who}, " in (await admin.get(moved.headers["Location"])).text
    await done(admin, await admin.order("restore", f"agent={AGENT}&id={archived}"))
    for path in (f"/dead/{AGENT}/{dead_ids[0]}", f"/archive/{AGENT}/{archived}"):
        gone = await admin.get(path)
        assert gone.status == 404
        assert 'href="/activity"' in gone.html.partition("<main")[2]
    assert "discarded" not in (await admin.get(f"/sessions/{SESSION}")).text


async def test_a_photo_whose_letter_was_replayed_says_that_it_waits_for_its_agent(
    enter: Callable[..., Any], client: Any
) -> None:
    die(client, 1)
    operator = await enter("operator")
    await done(operator, await operator.order("replay", f"session={SESSION}"))
    assert "it was replayed and waits for its agent" in (await operator.get("/photos/p-0")).text


async def test_what_was_edited_and_replayed_does_not_count_as_discarded(redis: Redis, client: Any) -> None:
    die(client, 2)
    letters = DeadLetters(redis, index=LetterIndex(redis))
    [first, second] = [letter async for letter in letters.find(DeadFilter())]
    await letters.replay(first, edited=[b"id", b"e2", b"data", b"{}"], who="petra")
    await letters.discard(second, who="petra")
    discards = Discarded(redis, letters, lanes=1)
    assert await discards.of(SESSION) == 1
    [edited, _] = [letter async for letter in letters.find(DeadFilter(session=SESSION), archived=True)]
    assert (edited.dead_id, edited.discarded_by, bool(edited.edited_as)) == (first.id, "petra", True)
    # read once, and again when one came or went
    reads = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert await discards.of(SESSION) == 1
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == reads
    dies(client, AGENT, STREAM, photo="p-7", session=SESSION)
    [third] = [letter async for letter in letters.find(DeadFilter())]
    await letters.discard(third, who="petra")
    assert await discards.of(SESSION) == 2
    moved = await letters.get(await letters.archived_as(third.id, AGENT), archived=True)
    assert moved is not None
    await letters.restore(moved)
    assert await discards.of(SESSION) == 1
    assert [one.photo_id async for one in letters.find(DeadFilter(photo="p-1"), archived=True)] == ["p-1"]


async def test_the_archive_says_when_and_by_whom_and_how_long_it_can_be_restored(
    enter: Callable[..., Any], client: Any
) -> None:
    dead_ids = die(client, 2)
    admin = await enter("admin")
    await done(admin, await admin.order("discard", f"session={SESSION}"))
    who = client.xrange(KEYS.archive(AGENT))[0][1][b"discarded_by"].decode()
    page = await admin.get("/archive")
    assert re.search(
        rf"discarded \d+ s ago by {who}; can be restored for another (90 d|89 d 23 h)", page.text
    )
    assert len(dead_ids) == 2


async def test_one_group_of_letters_has_its_buttons_once(enter: Callable[..., Any], client: Any) -> None:
    die(client, 3)
    admin = await enter("admin")
    page = await admin.get("/dead")
    assert "Replay all 3" in page.text
    assert "Discard all 3" in page.text
    assert "Show all 3" in page.text
    assert "these 3" not in page.text
    dies(client, AGENT, STREAM, message="another cause", photo="p-9", session=SESSION)
    page = await admin.get("/dead")
    assert "Replay all 4" in page.text
    assert "Replay these 3" in page.text
    await done(admin, await admin.order("discard", f"session={SESSION}&photo=p-9"))
    page = await admin.get("/archive")
    assert "Restore 1" in page.text
    assert page.html.count("/ask/restore") == 1


async def test_the_activities_name_the_photo_or_the_session(enter: Callable[..., Any], client: Any) -> None:
    dead_ids = die(client, 3)
    operator = await enter("operator")
    await done(operator, await operator.order("replay", f"agent={AGENT}&id={dead_ids[1]}"))
    await done(operator, await operator.order("replay", f"agent={AGENT}"))
    page = await operator.get("/activity")
    assert f"1 dead letter: b_001.jpg {SESSION}" in page.text
    assert f"2 dead letters {SESSION}" in page.text
    dies(client, AGENT, STREAM, session="one")
    dies(client, AGENT, STREAM, session="another")
    await done(operator, await operator.order("replay", f"agent={AGENT}"))
    assert "2 dead letters File in SharePoint" in (await operator.get("/activity")).text


async def test_a_replayed_photo_without_a_record_is_on_its_way_while_one_would_be_kept(
    enter: Callable[..., Any], client: Any
) -> None:
    die(client, 2)
    client.delete(KEYS.photo("p-0"))
    operator = await enter("operator")
    path = await operator.order("replay", f"session={SESSION}")
    assert "on their way 2" in (await done(operator, path)).text
    name = f"erni:operation:{path.rpartition('/')[2]}"
    order = msgspec.json.decode(client.hget(name, "order"))
    client.hset(name, "order", msgspec.json.encode(order | {"started_at": time.time() - 30 * 24 * 3600}))
    assert "on their way 1 not known any more 1" in (await operator.get(path)).text
