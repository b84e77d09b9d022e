"""The filter of dead letters as people type it: ages, times of the site, and parts of names."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from tests.console.pipeline import dies

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
