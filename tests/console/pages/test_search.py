"""What the search box finds by a part of a name: sessions, photos, and what an error message mentions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from events.types import Step
from shared.delivery.photo_record import record_fields
from tests.console.pipeline import KEYS, TRACEPARENT, dies, pairs, went

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis as PlainRedis

STORED = "Erni_Referenzfoto_undatiert_a49cddb390f8.jpg"
REQUEST = "6f9d1b1e-0f62-4b6b-9a53-5a2f0c5d2b11"
SAID = f"storing {STORED}: SharePoint answered 413 (request-id {REQUEST})"


def _sessions(client: PlainRedis, *names: str) -> None:
    for number, name in enumerate(names):
        index = KEYS.session_open if number % 2 else KEYS.session_lru
        client.zadd(index, {name: 1_000 + number})
        client.hset(KEYS.session(name), mapping={"created_at": 1, "received": 1})
        client.expire(KEYS.session(name), 100)


def _fails(client: PlainRedis, photo: str) -> None:
    step = Step(agent="sharepoint_uploader", started=1.0, seconds=1.0)
    record: Any = dict(pairs(record_fields(step, "dead", SAID, TRACEPARENT, "s1", "b_000.jpg")))
    client.hset(KEYS.photo(photo), mapping=record)
    client.expire(KEYS.photo(photo), 100)


@pytest.mark.parametrize("text", ["seewen", "Seewen-12-Nov", "seewen-12-nov", "12-NOV"])
async def test_a_part_of_a_sessions_name_leads_to_it_in_any_case(
    enter: Callable[..., Any], client: PlainRedis, text: str
) -> None:
    _sessions(client, "seewen-12-nov", "luzern-13-nov", "s1")
    viewer = await enter("viewer")
    assert (await viewer.get(f"/search?q={text}")).headers["Location"] == "/sessions/seewen-12-nov"


async def test_sessions_that_fit_are_listed_those_used_last_first(
    enter: Callable[..., Any], client: PlainRedis
) -> None:
    _sessions(client, *(f"tour-{number}" for number in range(60)))
    seen = await (await enter("viewer")).get("/search?q=TOUR")
    found = [part.partition('"')[0] for part in seen.html.split('href="/sessions/')[1:]]
    assert found == [f"tour-{number}" for number in range(59, 9, -1)]
    assert "There is more than this list shows" in seen.text


@pytest.mark.parametrize("text", [STORED, "a49cddb390f8.JPG", REQUEST, "SharePoint answered 413"])
async def test_what_an_error_message_mentions_leads_to_the_photo(
    enter: Callable[..., Any], client: PlainRedis, text: str
) -> None:
    went(client, "photo_fetcher", photo="p-other")
    _fails(client, "p-000")
    viewer = await enter("viewer")
    assert (await viewer.get(f"/search?q={quote(text)}")).headers["Location"] == "/photos/p-000"


async def test_the_name_in_sharepoint_leads_to_a_photo_that_is_there_or_to_its_dead_letter(
    enter: Callable[..., Any], client: PlainRedis
) -> None:
    dies(client, "sharepoint_uploader", "photo.analyzed", photo="p-9", message=SAID)
    viewer = await enter("viewer")
    seen = await viewer.get(f"/search?q={STORED}")
    assert "1 dead letter" in seen.text
    assert f'href="/dead?photo={STORED}"' in seen.html
    assert "1 dead letter" in (await viewer.get(f"/dead?photo={STORED}")).text
    went(client, "validation_reporter", photo="p-1")
    item = {"photo_id": "p-1", "item": {"web_url": f"https://sharepoint.example/sites/Bau/Fotos/{STORED}"}}
    client.xadd(KEYS.stream("photo.validated"), {"data": json.dumps(item)})
    assert (await viewer.get(f"/search?q={STORED}")).headers["Location"] == "/photos/p-1"


async def test_a_part_of_a_file_name_leads_to_its_dead_letters_as_well(
    enter: Callable[..., Any], client: PlainRedis
) -> None:
    dies(client, "photo_fetcher", "schema.extracted", photo="p-5", file_name="LUZERN_5.jpg")
    seen = await (await enter("viewer")).get("/search?q=luzern")
    assert 'href="/dead?photo=%2Aluzern%2A"' in seen.html
