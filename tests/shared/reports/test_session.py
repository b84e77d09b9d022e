"""A session's page: what stands on it, in which order, and that nothing from outside becomes markup."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

import shared.reports.session_report as session_module
from events.identities import PhotoId, SessionId, Sha256, StoreUrl
from events.types import Analysis, NeedsPerson
from shared.reports import totals
from shared.reports.facts import PostponedPhoto, SessionFacts
from shared.reports.page import LIST_AT_ONCE, render
from shared.reports.photo_report import FieldReport, PhotoReport, write_photo_report
from shared.reports.session_report import WrittenReport, write_session_report
from shared.vision.local import model as local_model
from tests.shared.reports.markup import Markup
from tests.shared.reports.sample import SESSION, Letter, fill, letters, photo_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events.types import FieldText, Source
    from shared.columns.schema import ColumnKind
    from shared.photo_store import BlobStore
    from shared.reports.page import Page

JAEGER = "http://localhost:16686"
EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&{{7*7}}\u202e\x00"


async def _page(
    store: BlobStore, facts: SessionFacts, dead: Sequence[Letter] = ()
) -> tuple[Markup, WrittenReport]:
    written = await write_session_report(store, facts, dead, jaeger_url=JAEGER)
    return Markup(await store.get(written.report_ref)), written


def _fine(seed: int, **changes: object) -> PhotoReport:
    """A photo with nothing to complain about, except for the changes."""
    report = msgspec.structs.replace(
        photo_report(seed),
        fields=[
            FieldReport(
                column="Bauphase",
                display_name="Bauphase",
                kind="choice",
                value="Rohbau",
                source="vision",
                confidence=0.62,
                sent="Rohbau",
                stored="Rohbau",
            )
        ],
        needs_person=[],
        verdict="ok",
        file_same=True,
    )
    return msgspec.structs.replace(report, **changes)


async def test_the_page_lies_beside_its_photos_and_says_what_it_holds(store: BlobStore) -> None:
    facts = await fill(store, 30)
    page, written = await _page(store, facts, letters())
    assert written.report_ref == f"store:reports/{SESSION}/report.html"
    assert (written.validated, written.dead) == (30, 3)
    assert written.size == len(await store.get(written.report_ref))
    assert len(page.all("article")) == 30
    assert SESSION in page.text()
    assert "Vollständig Alle Fotos dieser Sitzung sind durch: 30 geprüft, 3 gescheitert." in page.text()


async def test_what_needs_a_person_comes_before_what_died_before_the_photos(store: BlobStore) -> None:
    page, written = await _page(store, await fill(store, 30), letters())
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
    _, written = await _page(store, await fill(store, 1), letters())
    assert [(photo.file_name, photo.reason) for photo in written.dead_photos] == [
        (letter.file_name, letter.message) for letter in letters()
    ]


async def test_a_dead_letter_that_could_not_be_read_is_listed_by_its_entry(store: BlobStore) -> None:
    unread = msgspec.structs.replace(
        letters()[0], photo_id=None, file_name=None, reason="undecodable", cause=""
    )
    page, written = await _page(store, SessionFacts(session_id=SESSION), [unread])
    assert f"Eintrag {unread.entry_id}" in page.text("gescheitert")
    assert "Der Auftrag ist nicht lesbar." in page.text("gescheitert")
    assert written.dead_photos[0].photo_id is None


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
    await write_photo_report(store, _fine(1, fields=[people, *_fine(1).fields]))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "Personen erkennbar Ja Hinweis, keine Prüfung" in page.text("fotos")
    assert page.text("fotos").count("Hinweis, keine Prüfung") == 1


async def test_what_a_person_said_about_people_is_no_hint_and_neither_is_nothing(store: BlobStore) -> None:
    empty = FieldReport(column="Personen", display_name="Personen erkennbar", kind="boolean")
    edited = msgspec.structs.replace(
        empty, value=True, source="vision", stored=False, same=False, cause="edited"
    )
    await write_photo_report(store, _fine(1, fields=[empty]))
    await write_photo_report(store, _fine(2, fields=[edited]))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert page.text("fotos").count("Personen erkennbar") == 2
    assert "Hinweis, keine Prüfung" not in page.text("fotos")


async def test_a_value_shows_its_source_and_how_sure_we_are(store: BlobStore) -> None:
    await write_photo_report(store, _fine(1))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "Bauphase Rohbau Bildanalyse62 %" in page.text("fotos")
    marks = [attributes["class"] for attributes in page.all("span") if "sure" in attributes.get("class", "")]
    assert marks == ["sure middle c4"]


async def test_a_difference_shows_what_was_sent_and_what_is_stored(store: BlobStore) -> None:
    field = _fine(1).fields[0]
    edited = msgspec.structs.replace(field, stored="Ausbau", same=False, cause="edited")
    await write_photo_report(store, _fine(1, fields=[edited]))
    page, written = await _page(store, SessionFacts(session_id=SESSION))
    assert "Rohbau→Ausbau In SharePoint geändert und nicht überschrieben. SharePoint" in page.text("fotos")
    assert page.all("del")
    assert [article["data-state"] for article in page.all("article")] == ["diff"]
    assert not written.needs_person, "a person has decided already"


async def test_a_repaired_value_says_so_and_is_no_difference(store: BlobStore) -> None:
    repaired = msgspec.structs.replace(_fine(1).fields[0], cause="repaired")
    await write_photo_report(store, _fine(1, fields=[repaired]))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "einmal korrigiert" in page.text("fotos")
    assert [article["data-state"] for article in page.all("article")] == ["ok"]


async def test_links_lead_to_the_item_and_to_the_trace(store: BlobStore) -> None:
    report = _fine(1)
    await write_photo_report(store, report)
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    targets = [attributes["href"] for attributes in page.all("a")]
    assert report.item.web_url in targets
    assert f"{JAEGER}/trace/{report.trace_id}" in targets
    outward = [attributes for attributes in page.all("a") if not attributes["href"].startswith("#")]
    assert all(attributes["rel"] == "noopener noreferrer" for attributes in outward)


async def test_an_untraced_photo_has_no_trace_link(store: BlobStore) -> None:
    await write_photo_report(store, _fine(1, trace_id=""))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert not any("/trace/" in attributes["href"] for attributes in page.all("a"))


async def test_a_session_with_more_photos_than_announced_counts_those_that_came(store: BlobStore) -> None:
    facts = msgspec.structs.replace(
        await fill(store, 3), completion=0, completed_at=None, expected=1, counters={"received": 5}
    )
    page, _ = await _page(store, facts, letters()[:1])
    assert "Unvollständig Noch unterwegs: 1 von 5 Fotos; 3 geprüft, 1 gescheitert." in page.text()


async def test_an_incomplete_session_says_so_and_how_many_are_missing(store: BlobStore) -> None:
    facts = msgspec.structs.replace(
        await fill(store, 3), completion=0, completed_at=None, expected=10, counters={"received": 7}
    )
    page, _ = await _page(store, facts, letters()[:1])
    assert "Unvollständig Noch unterwegs: 6 von 10 Fotos; 3 geprüft, 1 gescheitert." in page.text()
    assert "Unterwegs6" in page.text().replace(" ", "")


async def test_a_session_whose_size_nobody_told_is_incomplete_too(store: BlobStore) -> None:
    facts = SessionFacts(session_id=SESSION, counters={"received": 5})
    page, _ = await _page(store, facts)
    assert (
        "Unvollständig Wie viele Fotos die Sitzung hat, ist nicht angegeben; noch unterwegs: 5;"
        in page.text()
    )
    assert "Kein Foto braucht einen Menschen" in page.text("pruefen")


async def test_counters_that_say_otherwise_than_the_reports_are_explained(store: BlobStore) -> None:
    facts = msgspec.structs.replace(await fill(store, 2), counters={"validated": 3, "dead": 0})
    page, _ = await _page(store, facts)
    assert "Gezählt wurden 3 Einträge als geprüft, hier stehen 2 Fotos" in page.text()
    assert "als gescheitert" not in page.text()


async def test_a_second_completion_writes_over_the_first_and_says_so(store: BlobStore) -> None:
    facts = await fill(store, 2)
    first = await write_session_report(store, facts, letters())
    page, second = await _page(store, msgspec.structs.replace(facts, completion=2))
    assert second.report_ref == first.report_ref
    assert "Das ist der 2. Abschluss dieser Sitzung." in page.text()


async def test_costs_and_times_are_added_up(store: BlobStore) -> None:
    analysis = Analysis(model="gpt-4o", prompt_version="3", prompt_tokens=6000, completion_tokens=250)
    for seed in range(2):
        await write_photo_report(
            store, _fine(seed, analysis=analysis, cost=0.25, currency="CHF", photo_id=PhotoId(f"p-{seed}"))
        )
    facts = SessionFacts(
        session_id=SESSION, completion=1, created_at=1_778_590_000, completed_at=1_778_590_090
    )
    page, _ = await _page(store, facts)
    assert "KostenCHF 0.5012\N{RIGHT SINGLE QUOTATION MARK}500 Tokens" in page.text()
    assert "Dauer1 min 30 s45.0 s je Foto" in page.text()
    assert "12.05.2026, 14:46 bis 14:48 MESZ" in page.text()
    assert "Bild beschreiben" in page.text("ablauf")
    assert len([rect for rect in page.all("rect") if rect.get("class") == "median"]) == 5
    assert "lokale Analysator" not in page.text("ablauf")


async def test_the_local_analyzer_is_called_what_it_is(store: BlobStore) -> None:
    await write_photo_report(
        store, _fine(1, analysis=Analysis(model="efficientnet-lite0", prompt_version="1"), cost=None)
    )
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "Der lokale Analysator erkennt Gegenstände" in page.text("ablauf")
    assert "Kosten\N{EN DASH}lokale Analyse" in page.text()


async def test_an_answer_of_which_nothing_can_be_used_is_no_result_and_no_local_analysis(
    store: BlobStore,
) -> None:
    good = _fine(1, photo_id=PhotoId("p-good"))
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
    page, written = await _page(store, SessionFacts(session_id=SESSION))
    assert "Ohne verwertbare Antwort der Bildanalyse: 1 Foto." in page.text("ablauf")
    assert (await store.get(written.report_ref)).count(b"gpt-4o, ohne verwertbare Antwort") == 1
    assert "lokale" not in page.text()


async def test_a_kept_answer_and_a_service_that_counts_no_tokens_are_no_local_analysis(
    store: BlobStore,
) -> None:
    for place, cached in enumerate((True, False)):
        analysis = Analysis(model="gpt-4o", prompt_version="3", cached=cached)
        report = _fine(place, analysis=analysis, cost=None, photo_id=PhotoId(f"p-{place}"))
        await write_photo_report(store, report)
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "lokale" not in page.text()
    assert "Preis nicht bekannt" in page.text()


def test_the_local_model_is_known_by_its_name() -> None:
    assert totals.LOCAL_MODEL == local_model.MODEL


async def test_alike_reasons_of_a_photo_stand_together(store: BlobStore) -> None:
    reason = "Kein Wert gefunden: Die Bildanalyse nennt keinen."
    needs = [NeedsPerson(column=name, reason=reason) for name in ("Holzart", "Bauteil")]
    await write_photo_report(store, _fine(1, needs_person=needs, verdict="needs_person"))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert f"Holzart, Bauteil {reason}" in page.text("pruefen")
    assert page.text("pruefen").count(reason) == 1


async def test_a_long_list_is_folded_after_the_first_rows(store: BlobStore) -> None:
    need = [NeedsPerson(column="Bauphase", reason="Nicht erkannt.")]
    for seed in range(LIST_AT_ONCE + 5):
        await write_photo_report(store, _fine(seed, needs_person=need, verdict="needs_person"))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "Weitere 5 anzeigen" in page.text("pruefen")
    assert f"Bauphase {LIST_AT_ONCE + 5}" in page.text("pruefen")


async def test_every_text_from_outside_stays_text(store: BlobStore) -> None:
    plain, _ = await _page(store, await fill(store, 1), letters()[:1])
    base = photo_report(0)
    values: list[tuple[ColumnKind, FieldText]] = [
        ("text", EVIL),
        ("multi_choice", [EVIL, EVIL]),
        ("date", EVIL),
    ]
    fields = [
        FieldReport(
            column=EVIL,
            display_name=EVIL,
            kind=kind,
            required=True,
            value=value,
            source="hint",
            confidence=1.0,
            sent=value,
            stored=EVIL,
            same=False,
            cause="edited",
        )
        for kind, value in values
    ]
    evil = msgspec.structs.replace(
        base,
        file_name=EVIL,
        source=EVIL,
        camera=EVIL,
        taken_at=EVIL,
        library=EVIL,
        library_url="javascript:alert(1)",
        item=msgspec.structs.replace(base.item, name=EVIL, web_url="javascript:alert(1)"),
        fields=fields,
        needs_person=[NeedsPerson(column=EVIL, reason=EVIL), NeedsPerson(column="Datei", reason=EVIL)],
        verdict="needs_person",
        analysis=msgspec.structs.replace(base.analysis, model=EVIL),
        currency=EVIL,
        time_zone=EVIL,
    )
    await write_photo_report(store, evil)
    letter = msgspec.structs.replace(
        letters()[0], agent=EVIL, message=EVIL, photo_id=EVIL, file_name=EVIL, reason=EVIL
    )
    page, _ = await _page(store, SessionFacts(session_id=SESSION), [letter])
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"del", "abbr", "small"}
    assert page.raw == plain.raw, "our own style and script, and no other"
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [target for target in page.all("a") if not target["href"].startswith(("#", "http"))]
    assert all(
        source["src"].startswith("data:image/jpeg;base64,") for source in page.all("img") if "src" in source
    )
    assert "<img src=x onerror=alert(1)>" in page.text("fotos")
    assert "{{7*7}}" in page.text("fotos")


async def test_the_policy_admits_the_pages_own_style_and_script_alone(store: BlobStore) -> None:
    page, _ = await _page(store, await fill(store, 2))
    (policy,) = [
        meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for name in ("style", "script"):
        (text,) = page.raw[name]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    assert not [attributes for _, attributes in page.elements if "style" in attributes]


async def test_the_page_asks_nobody_for_anything(store: BlobStore) -> None:
    page, _ = await _page(store, await fill(store, 5), letters())
    loading = {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}
    asked = [
        value
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in loading or (tag in ("link", "use", "image") and name == "href")
    ]
    assert asked
    assert all(value.startswith("data:") for value in asked)
    assert "url(" not in page.raw["style"][0]
    assert "@import" not in page.raw["style"][0]


async def test_a_photo_without_a_preview_is_shown_all_the_same(store: BlobStore) -> None:
    await write_photo_report(
        store, _fine(1, sha256=Sha256("0" * 64), preview_ref=StoreUrl("store:previews/gone.jpg"))
    )
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert len(page.all("article")) == 1
    assert "Kein Vorschaubild" in page.text("fotos")


async def test_an_undecodable_file_name_does_not_spoil_the_page(store: BlobStore) -> None:
    letter = msgspec.structs.replace(letters()[0], file_name="Baustelle_\udcfc.jpg")
    page, _ = await _page(store, SessionFacts(session_id=SessionId("s1")), [letter])
    assert "Baustelle_?.jpg" in page.text("gescheitert")


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


def _undecided(seed: int, **stored: FieldText) -> PhotoReport:
    """A photo that is in order, of which some columns say that nobody knows yet."""
    fields = [
        FieldReport(
            column=name,
            display_name=name,
            kind="multi_choice" if isinstance(value, list) else "choice",
            value=value,
            source="vision",
            confidence=0.0,
            sent=value,
            stored=value,
        )
        for name, value in stored.items()
    ]
    return _fine(seed, fields=[*_fine(seed).fields, *fields])


async def test_columns_that_say_nobody_knows_need_a_person_and_stand_in_the_one_list(
    store: BlobStore,
) -> None:
    await write_photo_report(store, _undecided(1, Holzart="Prüfen", Bauteil=["Prüfen"]))
    await write_photo_report(store, _undecided(2, Holzart="Prüfen"))
    await write_photo_report(store, _fine(3))
    page, written = await _page(store, SessionFacts(session_id=SESSION))
    assert not written.needs_person, "what a photo must have it has"
    assert "Bitte prüfen23 Felder" in page.text()
    assert "Braucht einen Menschen 2" in page.text("pruefen")
    assert page.text("pruefen").count("Steht auf «Prüfen»") == 2
    assert [chip["data-column"] for chip in page.all("button") if "data-column" in chip] == [
        "Holzart",
        "Bauteil",
    ]
    assert sorted(article["data-state"] for article in page.all("article")) == ["check", "check", "ok"]


async def test_what_can_never_get_through_is_not_to_be_replayed(store: BlobStore) -> None:
    file, other, outage = letters()
    page, _ = await _page(store, SessionFacts(session_id=SESSION), [file, other])
    assert "erni dead replay" not in page.text("gescheitert")
    assert "Bei 2 Fotos hilft keine Wiederholung" in page.text("gescheitert")
    page, _ = await _page(store, SessionFacts(session_id=SESSION), [file, outage])
    said = f"schickt erni dead replay --session {SESSION} das eine noch einmal auf den Weg. Bei 1 Foto hilft"
    assert said in page.text("gescheitert")
    page, _ = await _page(store, SessionFacts(session_id=SESSION), [outage])
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
        page, _ = await _page(store, SessionFacts(session_id=SESSION), [letter])
        assert sentence in page.text("gescheitert")


async def test_what_a_person_decided_is_not_undecided_any_more(store: BlobStore) -> None:
    undecided = _undecided(1, Holzart="Prüfen")
    decided = msgspec.structs.replace(undecided.fields[1], stored="Fichte", same=False, cause="edited")
    await write_photo_report(store, msgspec.structs.replace(undecided, fields=[undecided.fields[0], decided]))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "Nichts zu tun" in page.text("pruefen")


async def test_a_text_that_happens_to_read_unknown_is_a_text(store: BlobStore) -> None:
    place = msgspec.structs.replace(_fine(1).fields[0], kind="text", sent="Unbekannt", stored="Unbekannt")
    await write_photo_report(store, _fine(1, fields=[place]))
    page, _ = await _page(store, SessionFacts(session_id=SESSION))
    assert "Nichts zu tun" in page.text("pruefen")


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
