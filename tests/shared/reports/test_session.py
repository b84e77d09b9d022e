"""A session's page: what stands on it, in which order, and what it adds up."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import msgspec

import shared.reports.session_report as session_module
from events.identities import PhotoId
from events.types import Analysis, NeedsPerson
from shared.reports import totals
from shared.reports.facts import PostponedPhoto, SessionFacts
from shared.reports.page import render
from shared.reports.photo_report import write_photo_report
from shared.reports.session_report import write_session_report
from shared.vision.local import model as local_model
from tests.shared.reports.markup import Markup
from tests.shared.reports.sample import SESSION, fill, letters
from tests.shared.reports.session_page import fine, page_of

if TYPE_CHECKING:
    import pytest

    from shared.photo_store import BlobStore
    from shared.reports.page import Page


async def test_the_page_lies_beside_its_photos_and_says_what_it_holds(store: BlobStore) -> None:
    facts = await fill(store, 30)
    page, written = await page_of(store, facts, letters())
    assert written.report_ref == f"store:reports/{SESSION}/report.html"
    assert (written.validated, written.dead) == (30, 3)
    assert written.size == len(await store.get(written.report_ref))
    assert len(page.all("article")) == 30
    assert SESSION in page.text()
    assert "Vollständig Alle Fotos dieser Sitzung sind durch: 30 geprüft, 3 gescheitert." in page.text()


async def test_what_needs_a_person_comes_before_what_died_before_the_photos(store: BlobStore) -> None:
    page, written = await page_of(store, await fill(store, 30), letters())
    assert list(page.sections) == ["", "pruefen", "gescheitert", "ablauf", "fotos"]
    assert written.needs_person
    for photo in written.needs_person:
        assert photo.file_name is not None
        assert photo.file_name in page.text("pruefen")
        assert photo.reason.partition(": ")[2].partition("; ")[0] in page.text("pruefen")
    for letter in letters():
        assert letter.message in page.text("gescheitert")
        assert letter.file_name is not None
        assert letter.file_name in page.text("gescheitert")
    states = [article["data-state"] for article in page.all("article")]
    assert states == sorted(states, key=["check", "diff", "ok"].index)


async def test_the_dead_are_named_as_the_event_names_them(store: BlobStore) -> None:
    _, written = await page_of(store, await fill(store, 1), letters())
    assert [(photo.file_name, photo.reason) for photo in written.dead_photos] == [
        (letter.file_name, letter.message) for letter in letters()
    ]


async def test_a_dead_letter_that_could_not_be_read_is_listed_by_its_entry(store: BlobStore) -> None:
    unread = msgspec.structs.replace(
        letters()[0], photo_id=None, file_name=None, reason="undecodable", cause=""
    )
    page, written = await page_of(store, SessionFacts(session_id=SESSION), [unread])
    assert f"Eintrag {unread.entry_id}" in page.text("gescheitert")
    assert "Der Auftrag ist nicht lesbar." in page.text("gescheitert")
    assert written.dead_photos[0].photo_id is None


async def test_a_session_with_more_photos_than_announced_counts_those_that_came(store: BlobStore) -> None:
    facts = msgspec.structs.replace(
        await fill(store, 3), completion=0, completed_at=None, expected=1, counters={"received": 5}
    )
    page, _ = await page_of(store, facts, letters()[:1])
    assert "Unvollständig Noch unterwegs: 1 von 5 Fotos; 3 geprüft, 1 gescheitert." in page.text()


async def test_an_incomplete_session_says_so_and_how_many_are_missing(store: BlobStore) -> None:
    facts = msgspec.structs.replace(
        await fill(store, 3), completion=0, completed_at=None, expected=10, counters={"received": 7}
    )
    page, _ = await page_of(store, facts, letters()[:1])
    assert "Unvollständig Noch unterwegs: 6 von 10 Fotos; 3 geprüft, 1 gescheitert." in page.text()
    assert "Unterwegs6" in page.text().replace(" ", "")


async def test_a_session_whose_size_nobody_told_is_incomplete_too(store: BlobStore) -> None:
    facts = SessionFacts(session_id=SESSION, counters={"received": 5})
    page, _ = await page_of(store, facts)
    assert (
        "Unvollständig Wie viele Fotos die Sitzung hat, ist nicht angegeben; noch unterwegs: 5;"
        in page.text()
    )
    assert "Kein Foto braucht einen Menschen" in page.text("pruefen")


async def test_counters_that_say_otherwise_than_the_reports_are_explained(store: BlobStore) -> None:
    facts = msgspec.structs.replace(await fill(store, 2), counters={"validated": 3, "dead": 0})
    page, _ = await page_of(store, facts)
    assert "Gezählt wurden 3 Einträge als geprüft, hier stehen 2 Fotos" in page.text()
    assert "als gescheitert" not in page.text()


async def test_a_second_completion_writes_over_the_first_and_says_so(store: BlobStore) -> None:
    facts = await fill(store, 2)
    first = await write_session_report(store, facts, letters())
    page, second = await page_of(store, msgspec.structs.replace(facts, completion=2))
    assert second.report_ref == first.report_ref
    assert "Das ist der 2. Abschluss dieser Sitzung." in page.text()


async def test_costs_and_times_are_added_up(store: BlobStore) -> None:
    analysis = Analysis(model="gpt-4o", prompt_version="3", prompt_tokens=6000, completion_tokens=250)
    for seed in range(2):
        await write_photo_report(
            store, fine(seed, analysis=analysis, cost=0.25, currency="CHF", photo_id=PhotoId(f"p-{seed}"))
        )
    facts = SessionFacts(
        session_id=SESSION, completion=1, created_at=1_778_590_000, completed_at=1_778_590_090
    )
    page, _ = await page_of(store, facts)
    assert "KostenCHF 0.5012\N{RIGHT SINGLE QUOTATION MARK}500 Tokens" in page.text()
    assert "Dauer1 min 30 s45.0 s je Foto" in page.text()
    assert "12.05.2026, 14:46 bis 14:48 MESZ" in page.text()
    assert "Bild beschreiben" in page.text("ablauf")
    assert len([rect for rect in page.all("rect") if rect.get("class") == "median"]) == 5
    assert "lokale Analysator" not in page.text("ablauf")


async def test_the_local_analyzer_is_called_what_it_is(store: BlobStore) -> None:
    await write_photo_report(
        store, fine(1, analysis=Analysis(model="efficientnet-lite0", prompt_version="1"), cost=None)
    )
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Der lokale Analysator erkennt Gegenstände" in page.text("ablauf")
    assert "Kosten\N{EN DASH}lokale Analyse" in page.text()


async def test_an_answer_of_which_nothing_can_be_used_is_no_result_and_no_local_analysis(
    store: BlobStore,
) -> None:
    good = fine(1, photo_id=PhotoId("p-good"))
    fields = [
        msgspec.structs.replace(field, value=None, sent=None, stored=None, source=None, confidence=None)
        if field.source == "vision"
        else field
        for field in good.fields
    ]
    unsure = NeedsPerson(column="Bauphase", reason="Die Bildanalyse gab keinen lesbaren Wert.", code="unsure")
    analysis = Analysis(model="gpt-4o", prompt_version="3")
    bad = msgspec.structs.replace(
        good,
        photo_id=PhotoId("p-bad"),
        fields=fields,
        needs_person=[unsure],
        verdict="needs_person",
        analysis=analysis,
        cost=None,
    )
    for report in (good, bad):
        await write_photo_report(store, report)
    page, written = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Ohne verwertbare Antwort der Bildanalyse: 1 Foto." in page.text("ablauf")
    assert (await store.get(written.report_ref)).count(b"gpt-4o, ohne verwertbare Antwort") == 1
    assert "lokale" not in page.text()


async def test_a_kept_answer_and_a_service_that_counts_no_tokens_are_no_local_analysis(
    store: BlobStore,
) -> None:
    for place, cached in enumerate((True, False)):
        analysis = Analysis(model="gpt-4o", prompt_version="3", cached=cached)
        report = fine(place, analysis=analysis, cost=None, photo_id=PhotoId(f"p-{place}"))
        await write_photo_report(store, report)
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "lokale" not in page.text()
    assert "Preis nicht bekannt" in page.text()


def test_the_local_model_is_known_by_its_name() -> None:
    assert totals.LOCAL_MODEL == local_model.MODEL


async def test_building_the_page_does_not_hold_up_the_event_loop(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = await fill(store, 3)
    loop, turning = asyncio.get_running_loop(), threading.Event()

    def while_the_loop_turns(page: Page) -> bytes:
        loop.call_soon_threadsafe(turning.set)
        assert turning.wait(10), "the event loop stood still while the page was built"
        return render(page)

    monkeypatch.setattr(session_module, "render", while_the_loop_turns)
    await write_session_report(store, facts, letters())
    assert turning.is_set()


async def test_what_can_never_get_through_is_not_to_be_replayed(store: BlobStore) -> None:
    file, other, outage = letters()
    page, _ = await page_of(store, SessionFacts(session_id=SESSION), [file, other])
    assert "erni dead replay" not in page.text("gescheitert")
    assert "Bei 2 Fotos hilft keine Wiederholung" in page.text("gescheitert")
    page, _ = await page_of(store, SessionFacts(session_id=SESSION), [file, outage])
    said = f"schickt erni dead replay --session {SESSION} das eine noch einmal auf den Weg. Bei 1 Foto hilft"
    assert said in page.text("gescheitert")
    page, _ = await page_of(store, SessionFacts(session_id=SESSION), [outage])
    assert "keine Wiederholung" not in page.text("gescheitert")


async def test_why_a_photo_died_is_said_in_the_language_of_the_page(store: BlobStore) -> None:
    file, *_ = letters()
    source = msgspec.structs.replace(file, cause="source")
    old = msgspec.structs.replace(file, cause="", reason="exhausted")
    for letter, sentence in (
        (file, "Die Datei ist kein Foto, das sich verwenden lässt."),
        (source, "Das Foto liess sich nicht von seiner Adresse holen."),
        (old, "Ein Dienst hat auch nach mehreren Versuchen nicht geantwortet."),
    ):
        page, _ = await page_of(store, SessionFacts(session_id=SESSION), [letter])
        assert sentence in page.text("gescheitert")


async def test_a_page_says_which_photos_wait_why_and_until_when(store: BlobStore) -> None:
    waiting = PostponedPhoto(
        name="Dach.jpg",
        agent="sharepoint_uploader",
        reason="the library 'Fotos': its storage quota is used up: make room or raise it",
        attempts=2,
        until=1_800_000_900,
    )
    facts = SessionFacts(session_id=SESSION, expected=1, postponed=[waiting])
    written = await write_session_report(store, facts, [])
    text = " ".join(" ".join(Markup(await store.get(written.report_ref)).sections.values()).split())
    assert "Dach.jpg ist zurückgestellt und kommt wieder am 15.01.2027, 09:15" in text
    assert "2 Anläufe): the library 'Fotos': its storage quota is used up" in text
