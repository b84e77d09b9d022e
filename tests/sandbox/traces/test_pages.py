"""The waterfall and the list: what they show, and that nothing from outside is more than text on them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from sandbox.traces.page import duration
from tests.sandbox.traces.conftest import Batch
from tests.tools import require

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sandbox.traces.conftest import Receiver

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\u202e"


class _Reader(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def photo(photo_id: str = "p-1") -> Batch:
    """A photo's way: two agents, a request, a retry."""
    batch = Batch()
    names = {"photo.id": photo_id, "session.id": "seewen-2026", "photo.file_name": f"{photo_id}.jpg"}
    batch.span("submit photo", number=1, end=0.02, kind="producer", service="upstream")
    for number, agent in ((2, "photo_fetcher"), (3, "vision_analyzer")):
        span = batch.span(
            f"agent_handoff.{agent}",
            number=number,
            parent=number - 1,
            start=number,
            end=number + 0.5,
            kind="consumer",
            resource={"agent": agent, "service.instance.id": f"bau-{number}"},
            attributes={**names, "agent": agent, "delivery.count": number},
        )
    batch.event(span, "retry", 3.1, {"attempt": 1, "wait_seconds": 0.2, "error.type": "TimeoutError"})
    batch.span(
        "GET",
        number=4,
        parent=2,
        start=2.1,
        end=2.2,
        kind="client",
        resource={"agent": "photo_fetcher", "service.instance.id": "bau-2"},
        attributes={"url.full": "http://host/photos/a.jpg", "http.response.status_code": 404},
        error="404",
    )
    return batch


async def test_the_waterfall_shows_every_span_who_did_it_and_how_long_it_took(receiver: Receiver) -> None:
    batch = photo()
    await receiver.send(batch)
    status, html, _ = await receiver.page(f"/trace/{batch.trace_id.hex()}")
    page = _Reader(html)
    assert status == 200
    assert page.tags.count("summary") == 4
    for said in (
        "p-1.jpg · Photo p-1", "submit photo", "vision_analyzer", "404 /photos/a.jpg", "seewen-2026",
        "500 ms",
        "failed", "1 retry", "delivery 3", "bau-3", batch.trace_id.hex(), "wait_seconds",
    ):  # fmt: skip
        assert said in page.text, said
    assert page.text.index("submit photo") < page.text.index("photo_fetcher", page.text.index("submit photo"))


async def test_long_paths_are_cut_in_the_middle_so_that_their_ends_differ(receiver: Receiver) -> None:
    batch = Batch()
    folder = "http://host/v1.0/drives/b!" + "x" * 60 + "/root:/Referenzfotos/"
    for number, name in enumerate(("Erni_2024_a.jpg", "Erni_2024_b.jpg"), start=1):
        batch.span("PUT", number=number, kind="client", attributes={"url.full": folder + name})
    await receiver.send(batch)
    _, html, _ = await receiver.page(f"/trace/{batch.trace_id.hex()}")
    shown = re.findall(r'<span class="sub"><bdi>(.*?)</bdi>', html)
    assert [one[-15:] for one in shown] == ["Erni_2024_a.jpg", "Erni_2024_b.jpg"]
    assert all(one.startswith("/v1.0/") and "…" in one and len(one) == 44 for one in shown)


async def test_nothing_from_outside_is_markup_and_no_style_or_script_is_inline(receiver: Receiver) -> None:
    batch = Batch()
    span = batch.span(
        HOSTILE,
        kind="client",
        service=HOSTILE,
        resource={HOSTILE: HOSTILE, "agent": HOSTILE},
        attributes={HOSTILE: HOSTILE, "photo.id": HOSTILE, "session.id": HOSTILE, "url.full": HOSTILE},
        error=HOSTILE,
    )
    batch.event(span, HOSTILE, 0.5, {HOSTILE: HOSTILE})
    batch.link(span, b"\x01" * 16, 1, {HOSTILE: HOSTILE})
    await receiver.send(batch)
    for path in (f"/trace/{batch.trace_id.hex()}", "/", f"/?tags={HOSTILE}&operation={HOSTILE}"):
        _, html, headers = await receiver.page(path)
        page = _Reader(html)
        assert not {"script", "img"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]
        (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert f"style-src 'sha256-{digest}'" in policy
        assert "frame-ancestors 'none'" in policy


async def test_odd_traces_are_drawn_all_the_same(receiver: Receiver) -> None:
    batch = Batch()
    batch.span("own parent", number=1, parent=1)
    batch.span("ring one", number=2, parent=3)
    batch.span("ring two", number=3, parent=2)
    batch.span("parent elsewhere", number=4, parent=99)
    batch.span("ends before it begins", number=5, start=5, end=1)
    deep = 6
    for number in range(deep, deep + 300):
        batch.span(f"deep {number}", number=number, parent=number - 1)
    await receiver.send(batch)
    _, html, _ = await receiver.page(f"/trace/{batch.trace_id.hex()}")
    assert _Reader(html).tags.count("summary") == 305


async def test_of_a_huge_trace_the_first_thousand_rows_are_drawn(receiver: Receiver) -> None:
    receiver.service.store._max_bytes = 10_000_000
    batch = Batch()
    for number in range(1, 1101):
        batch.span(number=number, start=number)
    await receiver.send(batch)
    _, html, _ = await receiver.page(f"/trace/{batch.trace_id.hex()}")
    assert "100 more spans are not drawn" in _Reader(html).text


async def test_the_list_finds_photos_and_says_when_it_finds_none(receiver: Receiver) -> None:
    assert "No trace has arrived yet" in _Reader((await receiver.page("/"))[1]).text
    for name in ("p-1", "p-2"):
        await receiver.send(photo(name))
    everything = _Reader((await receiver.page("/"))[1]).text
    assert "p-1" in everything
    assert "p-2" in everything
    one = _Reader((await receiver.page("/search", tags="photo.id=p-2 agent=photo_fetcher"))[1]).text
    assert "p-2" in one
    assert "p-1" not in one
    assert "No trace matches" in _Reader((await receiver.page("/", tags="photo.id=p-3"))[1]).text
    status, html, _ = await receiver.page("/", tags="nonsense")
    assert (status, "key=value" in _Reader(html).text) == (400, True)
    status, html, _ = await receiver.page("/trace/0af7651916cd43dd8448eb211c80319c")
    assert (status, "This trace is not here" in _Reader(html).text) == (404, True)


@pytest.mark.parametrize(
    ("nanoseconds", "said"),
    [
        (0, "0"),
        (4_000, "4 µs"),
        (4_200_000, "4.2 ms"),
        (42_000_000, "42 ms"),
        (4_200_000_000, "4.20 s"),
        (42_000_000_000, "42.0 s"),
        (62_000_000_000, "1 min 2 s"),
        (5_400_000_000_000, "1 h 30 min"),
        (90_000_000_000_000, "1 d 1 h"),
    ],
)
def test_a_duration_is_said_as_people_say_it(nanoseconds: int, said: str) -> None:
    assert duration(nanoseconds) == said


@pytest.mark.slow
@pytest.mark.needs("chromium")
async def test_a_browser_shows_it_with_its_style_under_its_own_policy(
    receiver: Receiver, tmp_path: Path
) -> None:
    batch = photo(HOSTILE)
    await receiver.send(batch)
    picture = tmp_path / "trace.png"
    browser = await asyncio.create_subprocess_exec(
        require("chromium"),
        *[
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--enable-logging=stderr",
        ],
        *["--disable-background-networking", "--disable-component-update", "--disable-sync"],
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}",
        f"{receiver.url}/trace/{batch.trace_id.hex()}",
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(browser.communicate(), 60)
    assert picture.stat().st_size > 20_000
    assert b"Content Security Policy" not in said
    assert b"CONSOLE" not in said
