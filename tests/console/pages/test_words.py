"""Single words of the pages: numbers agree, values are in the page's language, sentences begin as such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events.identities import PhotoId
from events.types import Step
from shared.delivery.photo_record import record_fields
from shared.photo_store import BlobStore
from shared.reports.photo_report import write_photo_report
from tests.console.pages import scene
from tests.console.pipeline import KEYS, TRACEPARENT, dies, pairs
from tests.shared.reports.sample import photo_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.settings import Settings


@pytest.mark.parametrize(
    ("language", "one", "many"),
    [
        ("en", "1 dead letter matches the filter", "2 dead letters match the filter"),
        ("de", "1 gescheitertes Foto passt zum Filter", "2 gescheiterte Fotos passen zum Filter"),
    ],
)
async def test_the_verb_agrees_with_the_number(
    enter: Callable[..., Any], client: Any, language: str, one: str, many: str
) -> None:
    viewer = await enter("viewer", language)
    for sentence in (one, many):
        dies(client, "photo_fetcher", "schema.extracted")
        assert sentence in (await viewer.get("/dead?agent=photo_fetcher")).text


@pytest.mark.parametrize(("language", "yes", "no"), [("en", "yes", "no"), ("de", "ja", "nein")])
async def test_a_value_that_is_true_or_false_is_a_word_of_the_page(
    enter: Callable[..., Any], client: Any, settings: Settings, language: str, yes: str, no: str
) -> None:
    report = photo_report(5, scene.SESSION)
    fields = [msgspec.structs.replace(report.fields[0], value=value, same=True) for value in (True, False)]
    report = msgspec.structs.replace(report, photo_id=PhotoId("p-1"), fields=fields)
    await write_photo_report(BlobStore(settings.photo_store_url), report)
    step = Step(agent="validation_reporter", started=1.0, seconds=2.0)
    record: Any = dict(pairs(record_fields(step, "done", "", TRACEPARENT, scene.SESSION, "b.jpg")))
    client.hset(KEYS.photo("p-1"), mapping=record)
    client.expire(KEYS.photo("p-1"), 100)
    seen = await (await enter("viewer", language)).get("/photos/p-1")
    assert f"<td>{yes}</td>" in seen.html
    assert f"<td>{no}</td>" in seen.html
    assert "False" not in seen.text


async def test_a_refusal_beside_a_form_begins_as_a_sentence(enter: Callable[..., Any]) -> None:
    admin = await enter("admin")
    refused = await admin.refused("/keys", {"name": "-", "role": "viewer"})
    assert "The name &#39;-&#39; cannot be used" in refused.text


async def test_an_empty_search_asks_for_something(enter: Callable[..., Any]) -> None:
    for language, said in (("en", "Type something into"), ("de", "Bitte etwas ins Suchfeld")):
        seen = await (await enter("viewer", language)).get("/search?q=+")
        assert said in seen.text
        assert "«»" not in seen.text
