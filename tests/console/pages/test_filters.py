"""The filter of dead letters as people type it: ages, times of the site, and parts of names."""

from __future__ import annotations

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
