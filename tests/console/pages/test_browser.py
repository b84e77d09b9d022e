"""The console in a browser: what moves without a reload, what buttons do, what is not loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shared.operations import sign_in
from shared.operations.activity import Person
from shared.operations.bulk import Bulk
from shared.operations.dead_letters import DeadFilter
from shared.sessions.store import SessionStore
from tests.console.pages import scene
from tests.console.pipeline import KEYS, TRACEPARENT, dies, went
from tests.shared.delivery.harness import until
from tests.shared.reports.browser import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.operations.access_keys import Role
    from shared.settings import Settings
    from tests.shared.reports.browser import Tab

pytestmark = pytest.mark.needs("chromium")


class Screen:
    """A person before a browser."""

    def __init__(self, tab: Tab, origin: str, redis: Redis) -> None:
        self.tab = tab
        self.origin = origin
        self._redis = redis

    async def sign_in(self, role: Role) -> None:
        """Follow a link that signs in."""
        ticket = await sign_in.make_ticket(self._redis, f"petra-{role}", role)
        await self.tab.open(f"{self.origin}/login?for={role}#{ticket}")
        await self.see(f"petra-{role}")

    async def open(self, path: str, **size: int) -> None:
        await self.tab.open(self.origin + path, **size)

    async def see(self, text: str, seconds: float = 60.0) -> None:
        """Wait until a text stands on the page."""

        async def there() -> bool:
            return text in str(await self.tab.run("document.body ? document.body.innerText : ''"))

        try:
            await until(there, seconds)
        except TimeoutError:
            shown = await self.tab.run("document.body.innerText")
            raise AssertionError(f"{text!r} did not appear in:\n{shown}") from None

    async def click(self, text: str) -> None:
        """Press the button or link that says so, with the keyboard."""
        script = (
            "(() => { const one = [...document.querySelectorAll('a, button')]"
            f".find((it) => it.textContent.trim() === {text!r}); one?.focus();"
            " return !!one && document.activeElement === one })()"
        )

        async def focused() -> bool:
            return bool(await self.tab.run(script))

        await self.see(text)
        await until(focused)
        for kind in ("keyDown", "keyUp"):
            await self.tab.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                windowsVirtualKeyCode=13,
            )  # fmt: skip


@pytest.fixture
async def screen(enter: Callable[..., Any], redis: Redis, tmp_path: Path) -> AsyncIterator[Screen]:
    person = await enter(None)
    async with chromium(tmp_path / "profile") as tab:
        screen = Screen(tab, person.origin, redis)
        yield screen
        others = {one for one in tab.requests if not one.startswith((person.origin, "data:", "about:"))}
        assert not others, "the console asks nobody else"
        assert not [one for one in tab.complaints if "status of 4" not in one], tab.complaints


def _die(client: Any, number: int, first: int = 0) -> None:
    for n in range(first, first + number):
        dies(
            client,
            "sharepoint_uploader",
            "photo.analyzed",
            message=f"SharePoint answered 503 for IMG_{n}.jpg",
            photo=f"p-{n}",
            session="s1",
            file_name=f"IMG_{n}.jpg",
            fields={"id": f"e-{n}", "data": "{}"},
        )


async def test_dead_letters_appear_grouped_are_replayed_discarded_and_restored_by_keyboard(
    screen: Screen, client: Any
) -> None:
    await screen.sign_in("admin")
    await screen.open("/dead")
    await screen.see("No dead letter")
    await screen.tab.run("window.sameDocument = true")
    _die(client, 50)
    await screen.see("50 dead letters")
    await screen.see("A service did not answer, even after several attempts.")
    assert await screen.tab.run("window.sameDocument === true"), "without a reload"
    await screen.click("Replay all 50")
    await screen.see("Replay 50 dead letters?")
    await screen.click("Replay 50")
    await screen.see("50 of 50")
    await screen.see("done")
    assert client.xlen(KEYS.stream("photo.analyzed")) == 50
    _die(client, 3, first=50)
    await screen.open("/dead?session=s1")
    await screen.click("Discard all 3")
    await screen.see("They move into the archive. There they can be restored for 90 days.")
    await screen.click("Discard 3")
    await screen.see("3 of 3")
    await screen.open("/archive")
    await screen.click("Restore all 3")
    await screen.click("Restore 3")
    await screen.see("3 of 3")
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 3


async def test_a_photo_moves_while_somebody_looks(screen: Screen, client: Any) -> None:
    went(client, "schema_extractor")
    await screen.sign_in("viewer")
    await screen.open("/photos/p-1")
    await screen.see("on its way: Fetch photo")
    for agent in ("photo_fetcher", "vision_analyzer", "sharepoint_uploader", "validation_reporter"):
        went(client, agent)
    client.xadd(KEYS.stream("photo.validated"), {"data": "{}"})
    await screen.see("validated")
    assert await screen.tab.run("document.querySelectorAll('form[method=post]').length") == 2, (
        "to choose a language, to sign out"
    )


async def test_an_operation_renews_its_strip_and_not_the_page(
    screen: Screen, client: Any, redis: Redis
) -> None:
    _die(client, 3)
    await screen.sign_in("operator")
    await screen.open("/sessions")
    await screen.see("Sessions")
    await screen.tab.run(
        "window.fetched = []; window.plain = fetch;"
        " window.fetch = (to, ...more) => { fetched.push(to); return plain(to, ...more); }; 0"
    )
    bulk = Bulk(redis)
    selection = await bulk.select(DeadFilter(), "replay")
    await bulk.start("replay", selection, Person("me", "operator"), driver="command")
    await screen.see("0 of 3")
    assert set(await screen.tab.run("window.fetched")) == {"/running?back=%2Fsessions"}


async def test_an_event_is_edited_and_replayed(screen: Screen, client: Any) -> None:
    data = '{"photo_id":"p-1","source_url":"https://wrong.example/1.jpg"}'
    fields = {"id": "e1", "type": "photo.submitted", "traceparent": TRACEPARENT, "data": data}
    dead_id = dies(client, "schema_extractor", "photo.submitted", fields=fields, session=None)
    await screen.sign_in("operator")
    await screen.open(f"/dead/schema_extractor/{dead_id}")
    await screen.tab.run("document.querySelector('textarea').value = '{'")
    await screen.click("Replay with these data")
    await screen.see("This is no JSON")
    await screen.tab.run(
        "(() => { const box = document.querySelector('textarea');"
        f" box.value = {data.replace('wrong', 'right')!r} }})()"
    )
    await screen.click("Replay with these data")

    async def moved() -> bool:
        return bool(client.xlen(KEYS.stream("photo.submitted")))

    await until(moved)
    assert b"right.example" in client.xrange(KEYS.stream("photo.submitted"))[0][1][b"data"]


async def test_a_paused_page_stays_as_it_is_and_a_phone_scrolls_one_way(screen: Screen, client: Any) -> None:
    _die(client, 1)
    await screen.sign_in("viewer")
    await screen.open("/dead")
    await screen.click("Live")
    await screen.see("Updates off")
    _die(client, 2, first=1)
    await screen.open("/", width=390, height=844)
    for path in ("/", "/dead", "/sessions", "/activity", "/dead/list", "/archive"):
        await screen.open(path, width=390, height=844)
        wide = await screen.tab.run("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (path, wide)
        unnamed = await screen.tab.run(
            "[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a')].filter("
            "(it) => !(it.labels?.length || it.textContent.trim() || it.getAttribute('aria-label'))).length"
        )
        assert unnamed == 0, path


async def test_a_report_leads_back_into_the_console_without_signing_in_again(
    screen: Screen, redis: Redis, settings: Settings
) -> None:
    await scene.report(settings.photo_store_url)
    store = SessionStore(redis)
    await store.set(scene.OTHER, library="Referenzfotos", site="/sites/Bau", expected=30)
    await store.aclose()
    await screen.sign_in("viewer")
    await screen.open(f"/sessions/{scene.OTHER}/report")
    await screen.click(f"Back to the session {scene.OTHER} in the console")
    await screen.see("Photos in all")
    await screen.see("petra-viewer")
