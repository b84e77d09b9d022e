"""The filter of dead letters as people type it: ages, times of the site, and parts of names."""

from __future__ import annotations

import html
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from tests.console.pipeline import KEYS, dies
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "“gestern” is neither a duration"), ("de", "«gestern» ist weder eine Dauer")],
)
async def test_an_age_that_means_nothing_is_said_at_the_form_which_keeps_what_was_typed(
    enter: Callable[..., Any], client: Any, language: str, said: str
) -> None:
    dies(client, "photo_fetcher", "schema.extracted", session="tour-1")
    viewer = await enter("viewer", language)
    seen = await viewer.get("/dead?agent=photo_fetcher&session=tour-1&newer_than=gestern")
    assert seen.status == 400
    assert said in seen.text
    assert '<option value="photo_fetcher" selected>' in seen.html
    assert 'value="tour-1"' in seen.html
    assert 'value="gestern"' in seen.html
    # nothing is listed, so nothing can be replayed by mistake
    assert "/ask/" not in seen.html
    assert "aria-current" in seen.html


async def test_a_time_without_a_zone_is_one_of_the_site(enter: Callable[..., Any], client: Any) -> None:
    """The pages show times of the site: typed there, 20 minutes ago in Zurich are not an hour off."""
    dies(client, "photo_fetcher", "schema.extracted")
    viewer = await enter("viewer")
    for seconds, found in ((1200, "1 dead letter"), (-1200, "No dead letter matches")):
        when = datetime.fromtimestamp(time.time() - seconds, ZoneInfo("Europe/Zurich"))
        seen = await viewer.get(f"/dead?newer_than={quote(f'{when:%Y-%m-%dT%H:%M}')}")
        assert found in seen.text


@pytest.mark.parametrize(
    ("typed", "leads_to", "found"),
    [
        ("photo_like=a_005", "/dead?photo=%2Aa_005%2A", 1),
        ("photo_like=A_005.JPG&session_like=", "/dead?photo=%2AA_005.JPG%2A", 1),
        ("photo_like=a_005.jpg", "/dead?photo=a_005.jpg", 1),
        ("photo_like=luzern", "/dead?photo=%2Aluzern%2A", 2),
        ("session_like=Tour-1", "/dead?session=%2ATour-1%2A", 3),
        # a whole name means only itself
        ("session_like=tour-1&newer_than=2h", "/dead?newer_than=2h&session=tour-1", 2),
        ("session_like=tour-1*", "/dead?session=tour-1%2A", 3),
        ("session_like=&photo_like=", "/dead", 3),
    ],
)
async def test_a_part_of_a_name_is_enough_and_what_is_shown_is_what_an_operation_is_about(
    enter: Callable[..., Any], client: Any, typed: str, leads_to: str, found: int
) -> None:
    for name, tour in (("a_005.jpg", "tour-1"), ("LUZERN_1.jpg", "tour-1"), ("luzern_2.jpg", "tour-12")):
        dies(client, "photo_fetcher", "schema.extracted", photo=f"p-{name}", session=tour, file_name=name)
    operator = await enter("operator")
    sent = await operator.get(f"/dead?{typed}")
    assert (sent.status, sent.headers["Location"]) == (303, leads_to)
    seen = await operator.get(leads_to)
    assert f"{found} dead letter" in seen.text
    query = leads_to.partition("?")[2]
    assert f"Replay {found} dead letter" in (await operator.get(f"/ask/replay?{query}")).text
    assert f"{found} dead letter" in (await operator.get(f"/dead/list?{query}")).text


async def test_the_form_shows_what_was_typed_and_the_question_says_what_it_means(
    enter: Callable[..., Any], client: Any
) -> None:
    dies(client, "photo_fetcher", "schema.extracted", file_name="Luzern_2.jpg")
    for language, said in (("en", "contains “luzern”"), ("de", "enthält «luzern»")):
        operator = await enter("operator", language)
        assert 'name="photo_like" value="luzern"' in (await operator.get("/dead?photo=*luzern*")).html
        assert said in (await operator.get("/ask/replay?photo=*luzern*")).text


async def test_the_archive_is_filtered_by_a_part_of_a_name_too(
    enter: Callable[..., Any], client: Any
) -> None:
    dies(client, "photo_fetcher", "schema.extracted", file_name="Luzern_2.jpg")
    admin = await enter("admin")
    await admin.order("discard", "photo=*luzern*")

    async def archived() -> bool:
        return bool(client.xlen(KEYS.archive("photo_fetcher")))

    await until(archived)
    sent = await admin.get("/archive?photo_like=luzern")
    assert sent.headers["Location"] == "/archive?photo=%2Aluzern%2A"
    assert "1 dead letter" in (await admin.get(sent.headers["Location"])).text


@pytest.mark.parametrize(
    ("language", "cause"), [("en", "Cause: SharePoint did not accept"), ("de", "Ursache: SharePoint hat")]
)
async def test_a_cause_is_named_in_words_and_not_by_its_fingerprint(
    enter: Callable[..., Any], client: Any, language: str, cause: str
) -> None:
    for number in range(8):
        dies(
            client,
            "sharepoint_uploader",
            "photo.analyzed",
            photo=f"p-{number}",
            file_name=f"a_{number}.jpg",
            reason="permanent",
            cause="filing",
        )
    [fields] = [one for _, one in client.xrange(KEYS.dead("sharepoint_uploader"), count=1)]
    fingerprint = fields[b"fingerprint"].decode()
    admin = await enter("admin", language)
    for path in ("/dead/list", "/ask/replay", "/ask/discard"):
        seen = await admin.get(f"{path}?fingerprint={fingerprint}")
        assert cause in seen.text, path
        assert f">{fingerprint}<" not in seen.html
    path = await admin.order("discard", f"fingerprint={fingerprint}")

    async def archived() -> bool:
        return bool(client.xlen(KEYS.archive("sharepoint_uploader")) == 8)

    await until(archived)
    assert cause in (await admin.get(path)).text


async def test_a_question_names_the_photos_that_it_is_about_and_leads_back_to_where_it_was_asked(
    enter: Callable[..., Any], client: Any
) -> None:
    ids = [
        dies(client, "photo_fetcher", "schema.extracted", photo=f"p-{number}", file_name=f"a_{number}.jpg")
        for number in range(7)
    ]
    admin = await enter("admin")
    where = f"/dead/photo_fetcher/{ids[3]}"
    letter = await admin.get(where)
    for kind in ("replay", "discard"):
        address = html.unescape(letter.html.partition(f'href="/ask/{kind}')[2].partition('"')[0])
        asked = await admin.get(f"/ask/{kind}{address}")
        assert "Photo: a_3.jpg" in asked.text
        assert ids[3] not in asked.text
        assert f'href="{where}">Cancel</a>' in asked.html
    assert "It moves into the archive. There it can be restored for 90 days." in asked.text
    asked = await admin.get("/ask/discard")
    assert "a_0.jpg , a_1.jpg , a_2.jpg , a_3.jpg , a_4.jpg … 2 more" in asked.text
    assert "They move into the archive." in asked.text
