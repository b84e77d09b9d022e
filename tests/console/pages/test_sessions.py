"""What the pages of sessions say about the end of their photos, and about those that need a person."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events import codec, topology
from events.identities import PhotoId, SessionId, StoreUrl
from events.types import NeedsPerson, PhotoInShort, SessionReported
from shared.photo_store import BlobStore
from shared.reports.photo_report import write_photo_report
from shared.sessions.store import SessionStore
from tests.console.pipeline import KEYS, pairs, went
from tests.shared.reports.session_page import undecided

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from shared.settings import Settings

SESSION = SessionId("seewen-12-nov")


async def session(redis: Redis, client: Any, *, photos: int, dead: int) -> None:
    """A session that has ended, with this number of dead photos."""
    store = SessionStore(redis)
    await store.set(SESSION, library="Referenzfotos", site="/sites/Bau", expected=photos)
    await store.aclose()
    counters = {"received": photos, "validated": photos - dead, "dead": dead}
    client.hset(KEYS.session(SESSION), mapping=counters | {"completion": 1, "status": "completed"})


@pytest.mark.parametrize("dead", [0, 1, 20])
async def test_a_session_is_complete_only_if_no_photo_failed(
    enter: Callable[..., Any], redis: Redis, client: Any, dead: int
) -> None:
    await session(redis, client, photos=20, dead=dead)
    viewer = await enter("viewer")
    for path in (f"/sessions/{SESSION}", "/sessions"):
        page = await viewer.get(path)
        assert ("t-done" in page.html) == (dead == 0), path
        assert ("complete " in page.text) == (dead == 0), path
        assert (f"ended, {dead} failed" in page.text) == (dead > 0), path
    assert ("20 of 20 · " in page.text) == (dead > 0)


async def test_the_photos_that_need_a_person_can_be_seen_alone(
    enter: Callable[..., Any], redis: Redis, client: Any
) -> None:
    await session(redis, client, photos=3, dead=0)
    for photo in ("p-1", "p-2", "p-3"):
        for agent in topology.AGENTS:
            went(client, agent, photo=photo, session=SESSION)
    asked = [PhotoInShort(photo_id=PhotoId("p-2"), file_name="a.jpg", reason="Bauprojekt: fehlt")]
    event = SessionReported(
        session_id=SESSION,
        completion=1,
        report_ref=StoreUrl("store:reports/x/report.html"),
        validated=3,
        dead=0,
        needs_person=asked,
    )
    fields = codec.encode(event, event_id="r1", source="x", session_id=SESSION)
    client.xadd(KEYS.stream("session.reported"), dict(pairs(fields)))
    viewer = await enter("viewer")
    only = f"/sessions/{SESSION}?only=people"
    assert f'href="{only}#photos">1<' in (await viewer.get("/sessions")).html
    page = await viewer.get(f"/sessions/{SESSION}")
    assert f'href="{only}#photos">1<' in page.html
    assert "1 photo is in SharePoint, but a person has to decide" in page.text
    assert page.text.count("validated needs a person") == 1
    assert [photo in page.html for photo in ("/p-1", "/p-2", "/p-3")] == [True, True, True]
    page = await viewer.get(only)
    assert [photo in page.html for photo in ("/p-1", "/p-2", "/p-3")] == [False, True, False]


async def test_a_photo_says_how_many_columns_are_still_open_as_the_report_does(
    enter: Callable[..., Any], client: Any, settings: Settings
) -> None:
    for agent in topology.AGENTS:
        went(client, agent, photo="p-1", session=SESSION)
    need = NeedsPerson(column="Bauprojekt", reason="Pflichtfeld ohne Wert.", code="missing")
    report = msgspec.structs.replace(
        undecided(1, Holzart="Prüfen", Bauteil=["Prüfen"]),
        photo_id=PhotoId("p-1"),
        session_id=SESSION,
        needs_person=[need],
        verdict="needs_person",
    )
    await write_photo_report(BlobStore(settings.photo_store_url), report)
    page = await (await enter("viewer")).get("/photos/p-1")
    assert "1 needs a person 2 still open" in page.text
    assert "Holzart, Bauteil «Prüfen» means that the analysis saw nothing certain" in page.text


async def test_photos_stand_in_the_order_of_their_names_those_first_that_somebody_must_see(
    enter: Callable[..., Any], redis: Redis, client: Any
) -> None:
    await session(redis, client, photos=5, dead=1)
    for number, name in enumerate(("c.jpg", "e.jpg", "a.jpg", "d.jpg", "b.jpg")):
        for agent in topology.AGENTS:
            went(client, agent, "dead" if name == "d.jpg" else "done", photo=f"p-{number}", session=SESSION)
        client.hset(KEYS.photo(f"p-{number}"), "file_name", name)
    page = await (await enter("viewer")).get(f"/sessions/{SESSION}")
    assert re.findall(r"<bdi>(.)\.jpg</bdi>", page.html) == ["d", "a", "b", "c", "e"]


async def test_found_photos_have_the_same_badge_as_elsewhere(enter: Callable[..., Any], client: Any) -> None:
    for agent in topology.AGENTS:
        for photo in ("p-1", "p-2"):
            went(client, agent, photo=photo, session=SESSION)
    page = await (await enter("viewer")).get("/search?q=a.jp")
    assert page.html.count('<span class="tag t-validated">validated</span>') == 2
