"""The values on a session's page: where they came from, what differs, and what a person has to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from events.types import NeedsPerson
from shared.reports.facts import SessionFacts
from shared.reports.page import LIST_AT_ONCE
from shared.reports.photo_report import FieldReport, write_photo_report
from tests.shared.reports.sample import SESSION
from tests.shared.reports.session_page import fine, page_of, undecided

if TYPE_CHECKING:
    from events.types import Source
    from shared.photo_store import BlobStore


@pytest.mark.parametrize("source", ["vision", "default", "hint"])
async def test_a_value_about_people_is_marked_as_a_hint_wherever_it_came_from(
    store: BlobStore, source: Source
) -> None:
    people = FieldReport(
        column="Personen",
        display_name="Personen erkennbar",
        kind="boolean",
        value=True,
        source=source,
        confidence=0.99,
        sent=True,
        stored=True,
    )
    await write_photo_report(store, fine(1, fields=[people, *fine(1).fields]))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Personen erkennbar Ja Hinweis, keine Prüfung" in page.text("fotos")
    assert page.text("fotos").count("Hinweis, keine Prüfung") == 1


async def test_a_value_that_says_nobody_knows_is_no_hint(store: BlobStore) -> None:
    people = FieldReport(
        column="Personen",
        display_name="Personen erkennbar",
        kind="choice",
        value="Prüfen",
        source="vision",
        confidence=0.0,
        sent="Prüfen",
        stored="Prüfen",
    )
    await write_photo_report(store, fine(1, fields=[people]))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Personen erkennbar Prüfen" in page.text("fotos")
    assert "Hinweis, keine Prüfung" not in page.text("fotos")


async def test_what_a_person_said_about_people_is_no_hint_and_neither_is_nothing(store: BlobStore) -> None:
    empty = FieldReport(column="Personen", display_name="Personen erkennbar", kind="boolean")
    edited = msgspec.structs.replace(
        empty, value=True, source="vision", stored=False, same=False, cause="edited"
    )
    await write_photo_report(store, fine(1, fields=[empty]))
    await write_photo_report(store, fine(2, fields=[edited]))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert page.text("fotos").count("Personen erkennbar") == 2
    assert "Hinweis, keine Prüfung" not in page.text("fotos")


async def test_a_value_shows_its_source_and_how_sure_we_are(store: BlobStore) -> None:
    await write_photo_report(store, fine(1))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Bauphase Rohbau Bildanalyse62 %" in page.text("fotos")
    marks = [attributes["class"] for attributes in page.all("span") if "sure" in attributes.get("class", "")]
    assert marks == ["sure middle c4"]


async def test_a_difference_shows_what_was_sent_and_what_is_stored(store: BlobStore) -> None:
    field = fine(1).fields[0]
    edited = msgspec.structs.replace(field, stored="Ausbau", same=False, cause="edited")
    await write_photo_report(store, fine(1, fields=[edited]))
    page, written = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Rohbau→Ausbau In SharePoint geändert und nicht überschrieben. SharePoint" in page.text("fotos")
    assert page.all("del")
    assert [article["data-state"] for article in page.all("article")] == ["diff"]
    assert not written.needs_person, "a person has decided already"


async def test_a_repaired_value_says_so_and_is_no_difference(store: BlobStore) -> None:
    repaired = msgspec.structs.replace(fine(1).fields[0], cause="repaired")
    await write_photo_report(store, fine(1, fields=[repaired]))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "einmal korrigiert" in page.text("fotos")
    assert [article["data-state"] for article in page.all("article")] == ["ok"]


async def test_alike_reasons_of_a_photo_stand_together(store: BlobStore) -> None:
    reason = "Kein Wert gefunden: Die Bildanalyse nennt keinen."
    needs = [NeedsPerson(column=name, reason=reason) for name in ("Holzart", "Bauteil")]
    await write_photo_report(store, fine(1, needs_person=needs, verdict="needs_person"))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert f"Holzart, Bauteil {reason}" in page.text("pruefen")
    assert page.text("pruefen").count(reason) == 1


async def test_a_long_list_is_folded_after_the_first_rows(store: BlobStore) -> None:
    need = [NeedsPerson(column="Bauphase", reason="Nicht erkannt.")]
    for seed in range(LIST_AT_ONCE + 5):
        await write_photo_report(store, fine(seed, needs_person=need, verdict="needs_person"))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Weitere 5 anzeigen" in page.text("pruefen")
    assert f"Bauphase {LIST_AT_ONCE + 5}" in page.text("pruefen")


async def test_columns_that_say_nobody_knows_need_a_person_and_stand_in_the_one_list(
    store: BlobStore,
) -> None:
    await write_photo_report(store, undecided(1, Holzart="Prüfen", Bauteil=["Prüfen"]))
    await write_photo_report(store, undecided(2, Holzart="Prüfen"))
    await write_photo_report(store, fine(3))
    page, written = await page_of(store, SessionFacts(session_id=SESSION))
    assert not written.needs_person, "what a photo must have it has"
    assert "Bitte prüfen23 noch offen" in page.text()
    assert "Bitte prüfen 2" in page.text("pruefen")
    assert "Noch auf «Prüfen» stehen 3 Felder von 2 Fotos." in page.text("pruefen")
    assert "Einen Menschen" not in page.text("pruefen")
    assert page.text("pruefen").count("Steht auf «Prüfen»") == 2
    assert [chip["data-column"] for chip in page.all("button") if "data-column" in chip] == [
        "Holzart",
        "Bauteil",
    ]
    assert sorted(article["data-state"] for article in page.all("article")) == ["check", "check", "ok"]


async def test_what_needs_a_person_and_what_is_only_open_are_counted_apart(store: BlobStore) -> None:
    need = NeedsPerson(column="Bauprojekt", reason="Pflichtfeld ohne Wert.", code="missing")
    for seed in (1, 2):
        report = undecided(seed, Holzart="Prüfen", Bauteil=["Prüfen"])
        asked = msgspec.structs.replace(report, needs_person=[need], verdict="needs_person")
        await write_photo_report(store, asked)
    page, written = await page_of(store, SessionFacts(session_id=SESSION))
    assert len(written.needs_person) == 2
    assert "Bitte prüfen22 Felder, 4 noch offen" in page.text()
    assert "Einen Menschen brauchen 2 Fotos (2 Felder). Noch auf «Prüfen» stehen 4 Felder" in page.text(
        "pruefen"
    )


async def test_what_a_person_decided_is_not_undecided_any_more(store: BlobStore) -> None:
    before = undecided(1, Holzart="Prüfen")
    decided = msgspec.structs.replace(before.fields[1], stored="Fichte", same=False, cause="edited")
    await write_photo_report(store, msgspec.structs.replace(before, fields=[before.fields[0], decided]))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Nichts zu tun" in page.text("pruefen")


async def test_a_text_that_happens_to_read_unknown_is_a_text(store: BlobStore) -> None:
    place = msgspec.structs.replace(fine(1).fields[0], kind="text", sent="Unbekannt", stored="Unbekannt")
    await write_photo_report(store, fine(1, fields=[place]))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert "Nichts zu tun" in page.text("pruefen")
