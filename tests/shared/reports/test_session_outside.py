"""A session's page asks nobody for anything, and nothing from outside becomes markup."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import msgspec

from events.identities import SessionId, Sha256, StoreUrl
from events.types import NeedsPerson
from shared.reports.facts import SessionFacts
from shared.reports.photo_report import FieldReport, write_photo_report
from tests.shared.reports.sample import SESSION, fill, letters, photo_report
from tests.shared.reports.session_page import JAEGER, fine, page_of

if TYPE_CHECKING:
    from events.types import FieldText
    from shared.columns.schema import ColumnKind
    from shared.photo_store import BlobStore

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&{{7*7}}\u202e\x00"


async def test_links_lead_to_the_item_and_to_the_trace(store: BlobStore) -> None:
    report = fine(1)
    await write_photo_report(store, report)
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    targets = [attributes["href"] for attributes in page.all("a")]
    assert report.item.web_url in targets
    assert f"{JAEGER}/trace/{report.trace_id}" in targets
    outward = [attributes for attributes in page.all("a") if not attributes["href"].startswith("#")]
    assert all(attributes["rel"] == "noopener noreferrer" for attributes in outward)


async def test_an_untraced_photo_has_no_trace_link(store: BlobStore) -> None:
    await write_photo_report(store, fine(1, trace_id=""))
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert not any("/trace/" in attributes["href"] for attributes in page.all("a"))


async def test_every_text_from_outside_stays_text(store: BlobStore) -> None:
    plain, _ = await page_of(store, await fill(store, 1), letters()[:1])
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
    page, _ = await page_of(store, SessionFacts(session_id=SESSION), [letter])
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
    page, _ = await page_of(store, await fill(store, 2))
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
    page, _ = await page_of(store, await fill(store, 5), letters())
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
        store, fine(1, sha256=Sha256("0" * 64), preview_ref=StoreUrl("store:previews/gone.jpg"))
    )
    page, _ = await page_of(store, SessionFacts(session_id=SESSION))
    assert len(page.all("article")) == 1
    assert "Kein Vorschaubild" in page.text("fotos")


async def test_an_undecodable_file_name_does_not_spoil_the_page(store: BlobStore) -> None:
    letter = msgspec.structs.replace(letters()[0], file_name="Baustelle_\udcfc.jpg")
    page, _ = await page_of(store, SessionFacts(session_id=SessionId("s1")), [letter])
    assert "Baustelle_?.jpg" in page.text("gescheitert")
