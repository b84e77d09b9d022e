"""The page as people's browsers show it: on a desk, on a phone, on paper, with two thousand photos."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from shared.photo_store import store_key
from shared.reports.photo_report import write_photo_report
from shared.reports.session_report import write_session_report
from tests.shared.reports.browser import chromium
from tests.shared.reports.sample import SESSION, fill, letters, photo_report

if TYPE_CHECKING:
    from pathlib import Path

    from shared.photo_store import BlobStore

pytestmark = pytest.mark.needs("chromium")

VISIBLE = "[...document.querySelectorAll('.card')].filter(card => card.checkVisibility()).length"
SETTLED = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


async def _written(store: BlobStore, folder: Path, count: int) -> Path:
    facts = await fill(store, count)
    written = await write_session_report(store, facts, letters(), jaeger_url="http://localhost:16686")
    return folder / "store" / store_key(written.report_ref)


async def test_the_page_loads_nothing_runs_nothing_foreign_and_complains_of_nothing(
    store: BlobStore, tmp_path: Path
) -> None:
    evil = msgspec.structs.replace(
        photo_report(500), file_name="<img src=x onerror=\"document.title='hit'\">.jpg"
    )
    await write_photo_report(store, evil)
    page = await _written(store, tmp_path, 20)
    async with chromium(tmp_path / "profile") as tab:
        await tab.open(page)
        assert await tab.run("document.title") == f"{SESSION} · Fotobericht"
        assert await tab.run("document.querySelectorAll('.card').length") == 21
        assert await tab.run("document.body.innerText.includes('<img src=x onerror=')")
        assert set(tab.requests) == {page.as_uri(), "data:"}
        assert tab.complaints == []


async def test_markup_that_slipped_in_could_not_run(store: BlobStore, tmp_path: Path) -> None:
    page = await _written(store, tmp_path, 1)
    slipped = (
        b"<script>document.title='hit'</script>"
        b"<img src='http://127.0.0.1:9/x' onerror=\"document.title='hit'\">"
    )
    page.write_bytes(page.read_bytes().replace(b"<main", slipped + b"<main", 1))
    async with chromium(tmp_path / "profile") as tab:
        await tab.open(page)
        assert await tab.run("document.title") == f"{SESSION} · Fotobericht"
        assert sum("Content Security Policy" in text for text in tab.complaints) == 3


async def test_the_filter_finds_photos_by_text_state_and_column(store: BlobStore, tmp_path: Path) -> None:
    page = await _written(store, tmp_path, 60)
    async with chromium(tmp_path / "profile") as tab:
        await tab.open(page)
        assert await tab.run(VISIBLE) == 60

        await tab.run("document.querySelector('[data-state=check]').click()")
        to_check = await tab.run("document.querySelectorAll('.card.s-check').length")
        assert await tab.run(VISIBLE) == to_check > 0
        assert (
            await tab.run("document.querySelector('.filter output').textContent")
            == f"{to_check} von 60 Fotos"
        )

        await tab.run("document.querySelector('[data-state=all]').click()")
        column, count = await tab.run(
            "(chip => (chip.click(), [chip.dataset.column, Number(chip.querySelector('b').textContent)]))"
            "(document.querySelector('.chip[data-column]'))"
        )
        assert await tab.run(VISIBLE) == count
        assert await tab.run("document.querySelector('[data-off]').textContent") == column
        await tab.run("document.querySelector('[data-off]').click()")

        await tab.run(
            "(input => new Promise(done => {"
            " const told = document.querySelector('.filter output');"
            " new MutationObserver(done).observe(told, {childList: true});"
            " input.value = 'img_4007 bauphase'; input.dispatchEvent(new Event('input'));"
            " }))(document.querySelector('.search input'))"
        )
        assert await tab.run(VISIBLE) == 1
        assert tab.complaints == []


async def test_a_link_of_the_list_leads_to_its_card_even_if_the_filter_hides_it(
    store: BlobStore, tmp_path: Path
) -> None:
    page = await _written(store, tmp_path, 60)
    async with chromium(tmp_path / "profile") as tab:
        await tab.open(page)
        await tab.run("document.querySelector('[data-state=ok]').click()")
        target = await tab.run("(link => (link.click(), link.hash))(document.querySelector('.row a.name'))")
        assert await tab.run(f"document.querySelector('{target}').checkVisibility()")


async def test_the_lists_pictures_are_those_of_the_cards(store: BlobStore, tmp_path: Path) -> None:
    page = await _written(store, tmp_path, 60)
    async with chromium(tmp_path / "profile") as tab:
        await tab.open(page)
        await tab.run(SETTLED)
        assert await tab.run(
            "(mini => mini.src === document.querySelector(`#${mini.dataset.of} img`).src)"
            "(document.querySelector('img[data-of]'))"
        )


@pytest.mark.parametrize("width", [390, 768, 1366])
async def test_nothing_sticks_out_sideways(store: BlobStore, tmp_path: Path, width: int) -> None:
    await write_photo_report(
        store,
        msgspec.structs.replace(
            photo_report(500), file_name=f"{'sehr_langer_name_ohne_leerzeichen' * 4}.jpg"
        ),
    )
    page = await _written(store, tmp_path, 12)
    async with chromium(tmp_path / "profile") as tab:
        await tab.open(page, width=width)
        await tab.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        await tab.run(SETTLED)
        assert await tab.run("document.documentElement.scrollWidth") <= width
        too_small = await tab.run(
            "[...document.querySelectorAll('button, input')].filter(one => one.checkVisibility()"
            " && one.getBoundingClientRect().height < 34).length"
        )
        assert too_small == 0, "fingers need room"


async def test_paper_shows_every_photo_of_the_folded_list(store: BlobStore, tmp_path: Path) -> None:
    page = await _written(store, tmp_path, 30)
    async with chromium(tmp_path / "profile") as tab:
        await tab.open(page)
        paper = await tab.paper()
        assert paper.startswith(b"%PDF")
        pages = paper.count(b"/Type /Page\n") or paper.count(b"/Type /Page")
        assert 8 <= pages <= 20, "two or three photos a page"
        assert await tab.run("[...document.querySelectorAll('.rest')].every(rest => rest.open)")
        assert await tab.run("[...document.querySelectorAll('img[data-of]')].every(mini => mini.src)")


@pytest.mark.slow
async def test_two_thousand_photos_open_at_once_and_are_searched_while_typing(
    store: BlobStore, tmp_path: Path
) -> None:
    facts = await fill(store, 2000)
    began = time.perf_counter()
    written = await write_session_report(store, facts, letters())
    assert time.perf_counter() - began < 20
    assert written.size < 60_000_000
    async with chromium(tmp_path / "profile") as tab:
        began = time.perf_counter()
        await tab.open(tmp_path / "store" / store_key(written.report_ref))
        assert time.perf_counter() - began < 15
        decoded = await tab.run("[...document.images].filter(one => one.complete && one.naturalWidth).length")
        assert decoded < 200, "only what is near the window is decoded"
        millis = await tab.run(
            f"(async () => {{ const began = performance.now();"
            f" document.querySelector('[data-state=check]').click(); await {SETTLED};"
            " return performance.now() - began; })()"
        )
        assert millis < 1000
        assert await tab.run(VISIBLE) == len(written.needs_person)
