"""Each page is in one language: what a process or a service said stands on a German page as a quotation."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
import pytest

from events.identities import PhotoId
from events.types import NeedsPerson, Step
from shared.columns import needs
from shared.delivery.dead_letter import Reason
from shared.delivery.photo_record import record_fields
from shared.photo_store import BlobStore
from shared.reports import german
from shared.reports.photo_report import write_photo_report
from tests.console.pages import pictures, scene
from tests.console.pipeline import KEYS, TRACEPARENT, beats, dies, pairs
from tests.shared.reports.sample import photo_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis as PlainRedis
    from redis.asyncio import Redis

    from shared.settings import Settings

QUOTED: Final = {"code", "pre", "bdi", "textarea", "script", "style"}
"""Elements that hold data: names, values, commands."""
VOID: Final = {"br", "img", "input", "rect", "path", "meta", "link"}
READ: Final = {"title", "aria-label", "alt", "placeholder", "data-lost"}
FOREIGN: Final = {
    "en": {"der", "das", "und", "nicht", "ist", "wird", "kein", "keine", "bitte", "ein", "eine", "für", "mit",
           "von", "oder", "dieser", "wurde", "gespeichert", "ohne", "sich"},
    "de": {"the", "and", "is", "not", "of", "to", "it", "with", "for", "that", "this", "are", "has", "no",
           "cannot", "answered", "photo"},
}  # fmt: skip
OUTAGE: Final = scene.OUTAGE.format(n=1)
CODES: Final = sorted(
    value for name, value in vars(needs).items() if name.isupper() and isinstance(value, str)
)


class _Sentences(HTMLParser):
    """Collects what people read on a page, without data and quotations."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name, value in attrs if name in READ and value]
        quoted = tag in QUOTED or (tag == "q" and given.get("lang") == "en")
        raw = tag == "dl" and given.get("class") == "raw"
        if (quoted or raw or self._inside) and tag not in VOID:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.found.append(data)


def foreign(page: str, language: str) -> list[str]:
    """What stands on a page of one language in the other one."""
    parser = _Sentences()
    parser.feed(page)
    return [
        text.strip()
        for text in parser.found
        if FOREIGN[language] & set(re.findall(r"\w+", re.sub(r"\S*[./]\S*", " ", text.lower())))
    ]


async def _photos(client: PlainRedis, settings: Settings) -> list[str]:
    """A photo for each kind of outcome, each cause of death, and each reason to ask a person."""
    store = BlobStore(settings.photo_store_url)
    paths = []
    for outcome in ("done", "postponed", "dead"):
        photo = PhotoId(f"p-outcome-{outcome}")
        step = Step(agent="sharepoint_uploader", started=1.0, seconds=2.0, attempts=2)
        record = dict(pairs(record_fields(step, outcome, OUTAGE, TRACEPARENT, scene.SESSION, "a.jpg")))
        client.hset(KEYS.photo(photo), mapping=record)  # type: ignore[arg-type]  # names and values
        paths.append(f"/photos/{photo}")
    for number, reason in enumerate(get_args(Reason)):
        for cause in ("", *german.CAUSES):
            photo = PhotoId(f"p-dead-{number}-{cause or 'x'}")
            dies(client, "photo_fetcher", "schema.extracted", reason=reason, photo=photo, message=OUTAGE)
            paths.append(f"/photos/{photo}")
    report = photo_report(5, scene.SESSION)
    asked = [
        NeedsPerson(column="Bauphase", reason="Dieser Wert ist nicht sicher.", code=code)
        for code in (*CODES, "", "of-a-later-version")
    ]
    photo = PhotoId("p-needs")
    report = msgspec.structs.replace(report, photo_id=photo, needs_person=asked, verdict="needs_person")
    await write_photo_report(store, report)
    step = Step(agent="validation_reporter", started=1.0, seconds=2.0)
    record = dict(pairs(record_fields(step, "done", "", TRACEPARENT, scene.SESSION, "b.jpg")))
    client.hset(KEYS.photo(photo), mapping=record)  # type: ignore[arg-type]  # names and values
    for path in (*paths, f"/photos/{photo}"):
        if client.exists(key := KEYS.photo(path.rpartition("/")[2])):
            client.expire(key, 3600)
    return [*paths, f"/photos/{photo}"]


@pytest.mark.parametrize("language", ["en", "de"])
async def test_every_sentence_of_a_page_is_in_its_language(
    enter: Callable[..., Any], redis: Redis, client: PlainRedis, settings: Settings, language: str
) -> None:
    await scene.play(client, redis, settings.photo_store_url)
    await scene.keys(redis)
    beats(client, "photo_fetcher", ago=-120, unwell="the photo store is full: make room for it")
    paths = [*(await pictures.pages(redis)).values(), *await _photos(client, settings)]
    person = await enter("admin", language)
    wrong = {path: found for path in paths if (found := foreign((await person.get(path)).html, language))}
    assert wrong == {}
    # what a form was refused for is one as well
    for answer in (
        await person.refused("/keys", {"name": "-", "role": "viewer"}),
        await person.get("/ask/replay?older_than=soon"),
    ):
        assert "notice bad" in answer.html
        assert foreign(answer.html, language) == []


def test_a_sentence_of_the_other_language_is_found() -> None:
    assert foreign("<p>Das ist nicht sicher.</p>", "en")
    assert foreign('<p title="It is not there">ja</p>', "de")
    assert foreign("<p>Es scheitert: the host is away</p>", "de")
    assert not foreign('<p>Es scheitert: <q lang="en">the host is away</q></p>', "de")


async def test_a_chosen_language_goes_before_the_browsers_and_outlives_signing_out(
    enter: Callable[..., Any],
) -> None:
    stranger = await enter(None, "en")
    asked = await stranger.get("/login?next=/sessions")
    assert asked.hidden("back") == "/login?next=/sessions"
    answer = await stranger.post("/language", {"language": "de", "back": asked.hidden("back")})
    assert (answer.status, answer.headers["Location"]) == (303, "/login?next=/sessions")
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "SameSite=Lax" in answer.headers["Set-Cookie"]
    assert 'lang="de-CH"' in (await stranger.get("/login")).html
    person = await enter("viewer", "de-CH")
    assert (await person.get("/sessions")).hidden("back") == "/sessions"
    await person.post("/language", {"language": "en", "back": "/sessions"})
    for path in ("/sessions", "/nowhere", "/login"):
        assert '<html lang="en"' in (await person.get(path, Accept="text/html")).html
    await person.post("/logout")
    assert '<html lang="en"' in (await person.get("/login")).html


async def test_a_language_that_there_is_not_or_a_form_of_another_site_changes_nothing(
    enter: Callable[..., Any],
) -> None:
    person = await enter(None, "en")
    refused = (
        await person.post("/language", {"language": "fr", "back": "/"}),
        await person.post("/language", {"language": "de"}, Origin="https://elsewhere.example"),
    )
    assert [(one.status, "Set-Cookie" in one.headers) for one in refused] == [(400, False), (403, False)]
    away = await person.post("/language", {"language": "de", "back": "//elsewhere.example/"})
    assert away.headers["Location"] == "/"


async def test_the_language_of_the_answer_to_a_form_leads_back_to_the_page_with_the_form(
    enter: Callable[..., Any], client: PlainRedis
) -> None:
    operator = await enter("operator")
    page = f"/dead/photo_fetcher/{dies(client, 'photo_fetcher', 'schema.extracted')}"
    form = f"{operator.origin}{page}?x=1"
    refused = await operator.post(f"{page}/edit", {"data": "{"}, Referer=form)
    assert refused.hidden("back") == f"{page}?x=1"
