"""What the pages do, request by request: pause, close, forget, keys, search, files to download, reports."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from shared.operations import access_keys, activity, webhooks
from shared.operations.activity import Person
from shared.operations.bulk import Bulk
from shared.operations.dead_letters import DeadFilter
from shared.operations.search import Search
from shared.photo_store import BlobStore
from tests.console.pages import scene
from tests.console.pipeline import KEYS, TRACEPARENT, beats, dies
from tests.console.webhook_notices import POSTPONED, notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from shared.settings import Settings


@pytest.fixture
async def played(redis: Redis, client: Any, settings: Settings) -> None:
    await scene.play(client, redis, settings.photo_store_url)


async def test_an_agent_is_paused_and_resumed_and_the_page_says_who_did(
    enter: Callable[..., Any], client: Any
) -> None:
    operator = await enter("operator")
    assert (await operator.post("/agents/vision_analyzer/pause")).headers["Location"] == "/#vision_analyzer"
    assert client.hexists(KEYS.paused, "vision_analyzer")
    assert "paused Describe picture" in (await operator.get("/activity")).text
    await operator.post("/agents/vision_analyzer/resume")
    assert not client.exists(KEYS.paused)
    assert (await operator.post("/agents/nobody/pause")).status == 404


async def test_a_filter_is_kept_and_an_operation_can_be_stopped_continued_and_repeated(
    enter: Callable[..., Any], client: Any
) -> None:
    for number in range(30):
        dies(client, "photo_fetcher", "schema.extracted", photo=f"p-{number}", session="a b&c")
    operator = await enter("operator")
    listed = await operator.get(f"/dead?session={quote('a b&c')}")
    assert "Replay all 30" in listed.text
    asked = await operator.get(f"/ask/replay?session={quote('a b&c')}&back={quote('/dead?session=x')}")
    assert 'href="/dead?session=x"' in asked.html
    fields = {"kind": "replay", "selection": asked.hidden("selection"), "rate": "1"}
    path = (await operator.post("/operations", fields)).headers["Location"]
    await operator.post(f"{path}/stop")
    shown = await operator.get(path)
    assert "stopped" in shown.text
    assert "of 30" in shown.text
    assert "Session: a b&amp;c" in shown.text
    assert f"/ask/replay?session={quote('a b&c', safe='+').replace('%20', '+')}" in shown.html
    await operator.post(f"{path}/resume")
    assert "running" in (await operator.get(path)).text
    await operator.post(f"{path}/stop")


@pytest.mark.parametrize(
    "query", ["agent=nobody", "newer_than=never", "after={", "after=%7B%22a%22%3A1%7D", "before=x"]
)
async def test_an_address_that_means_nothing_is_refused_with_a_sentence(
    enter: Callable[..., Any], query: str
) -> None:
    viewer = await enter("viewer")
    path = "/activity" if query.startswith("before") else "/dead/list"
    seen = await viewer.get(f"{path}?{query}")
    assert seen.status == 400
    assert "This did not work" in seen.text


@pytest.mark.parametrize(
    "fields", [{}, {"kind": "replay"}, {"kind": "replay", "selection": "[]"}, {"kind": "x"}]
)
async def test_a_form_that_means_nothing_orders_nothing(
    enter: Callable[..., Any], client: Any, fields: dict[str, str]
) -> None:
    admin = await enter("admin")
    assert (await admin.post("/operations", fields)).status in (400, 404)
    assert not client.exists("erni:operations")


@pytest.mark.usefixtures("played")
async def test_a_session_with_more_photos_than_announced_shows_those_that_came(
    enter: Callable[..., Any], client: Any
) -> None:
    client.hset(KEYS.session(scene.OTHER), "expected", 1)
    viewer = await enter("viewer")
    assert "Photos in all 12 validated 12" in (await viewer.get(f"/sessions/{scene.OTHER}")).text
    assert "12 of 12" in (await viewer.get("/sessions")).text


@pytest.mark.usefixtures("played")
async def test_a_session_is_closed_and_forgotten(enter: Callable[..., Any], client: Any) -> None:
    admin = await enter("admin")
    assert (await admin.post("/sessions/muttenz-b3/close", {"expected": "x"})).status == 400
    assert (await admin.post("/sessions/muttenz-b3/close", {"expected": "41"})).status == 303
    assert client.hget(KEYS.session("muttenz-b3"), "expected") == b"41"
    moving = await admin.get("/sessions/muttenz-b3/forget")
    assert moving.status == 409
    assert "still on their way" in moving.text
    asked = await admin.get(f"/sessions/{scene.OTHER}/forget")
    assert "0 dead letters" in asked.text
    assert (await admin.post(f"/sessions/{scene.OTHER}/forget")).headers["Location"] == "/sessions"
    assert not client.exists(KEYS.session(scene.OTHER))


@pytest.mark.usefixtures("played")
async def test_a_forgotten_session_is_named_by_no_operation_and_no_activity_any_more(
    enter: Callable[..., Any], redis: Redis, client: Any
) -> None:
    for session, photo in ((scene.OTHER, "p-1"), ("another", "p-of-another-session")):
        dies(client, "photo_fetcher", "schema.extracted", session=session, photo=photo)
    admin = await enter("admin")
    await admin.order("discard", f"session={scene.OTHER}")
    await admin.order("replay", "photo=p-of-another-session")
    await activity.note(redis, Person("petra", "operator"), "close session", f"{scene.OTHER}: 12")
    assert scene.OTHER in (await admin.get("/activity.json")).html
    kept = client.scard("erni:operations") + len(client.keys("erni:operation:*"))
    assert kept >= 2
    assert (await admin.post(f"/sessions/{scene.OTHER}/forget")).status == 303
    lines = [one for one in await activity.newest(redis, most=100) if scene.OTHER in one.what]
    # who did it, and when
    assert [one.action for one in lines] == ["forget session"]
    orders = [client.hget(key, "order") for key in client.keys("erni:operation:*")]
    assert not any(scene.OTHER.encode() in order for order in orders)
    assert any(b"p-of-another-session" in order for order in orders)


async def test_a_report_is_served_where_it_can_do_no_harm(
    enter: Callable[..., Any], settings: Settings
) -> None:
    viewer = await enter("viewer")
    assert (await viewer.get(f"/sessions/{scene.OTHER}/report")).status == 404
    store = BlobStore(settings.photo_store_url)
    await store.replace(f"reports/{scene.OTHER}/report.html", b"<p>the report</p>")
    seen = await viewer.get(f"/sessions/{scene.OTHER}/report")
    assert seen.text == "the report"
    policy = seen.headers["Content-Security-Policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy


async def test_a_report_leads_back_to_its_session(enter: Callable[..., Any], settings: Settings) -> None:
    await scene.report(settings.photo_store_url)
    for language, words in (("en", "Back to the session"), ("de", "Zurück zur Sitzung")):
        seen = await (await enter("viewer", language)).get(f"/sessions/{scene.OTHER}/report")
        assert f'<a href="/sessions/{scene.OTHER}">{words} {scene.OTHER}' in seen.html
        # what stands in front of the page's own content is on the screen, not on paper
        assert seen.html.index("<body>") < seen.html.index('class="wrap back"') < seen.html.index("<h1>")


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    ("text", "leads_to"),
    [
        (scene.PHOTO, f"/photos/{scene.PHOTO}"),
        ("img_2041", f"/photos/{scene.PHOTO}"),
        (scene.SESSION, f"/sessions/{scene.SESSION}"),
    ],
)
async def test_a_search_leads_to_the_one_that_is_meant(
    enter: Callable[..., Any], text: str, leads_to: str
) -> None:
    viewer = await enter("viewer")
    assert (await viewer.get(f"/search?q={quote(text)}")).headers["Location"] == leads_to


@pytest.mark.usefixtures("played")
async def test_a_search_finds_traces_addresses_and_dead_letters(
    enter: Callable[..., Any], client: Any
) -> None:
    viewer = await enter("viewer")
    trace = TRACEPARENT[3:35]
    seen = await viewer.get(f"/search?q={quote(f'http://localhost:16686/trace/{trace}')}")
    assert "IMG_2041.jpg" in seen.text
    assert "17 dead letters" in seen.text
    assert f"/dead?trace={trace}" in seen.html
    address = "https://sharepoint.example/sites/Bau/Referenz%20fotos/a.jpg"
    item = {"photo_id": scene.PHOTO, "item": {"web_url": address}}
    client.xadd(KEYS.stream("photo.validated"), {"data": json.dumps(item)})
    found = await viewer.get(
        f"/search?q={quote('https://sharepoint.example/sites/Bau/Referenz fotos/a.jpg')}"
    )
    assert found.headers["Location"] == f"/photos/{scene.PHOTO}"
    assert "1 dead letter" in (await viewer.get("/search?q=IMG_2013.jpg")).text
    assert "Nothing was found" in (await viewer.get("/search?q=nowhere.jpg")).text


async def test_the_strip_of_running_operations_is_renewed_alone(
    enter: Callable[..., Any], client: Any, redis: Redis
) -> None:
    for number in range(3):
        dies(client, "photo_fetcher", "schema.extracted", photo=f"p-{number}")
    operator = await enter("operator")
    bulk = Bulk(redis)
    selection = await bulk.select(DeadFilter(), "replay")
    operation = await bulk.start("replay", selection, Person("me", "operator"), rate=0.001, driver="command")
    strip = await operator.get("/running?back=/dead%3Fphoto%3Dp-1")
    assert strip.status == 200
    assert f"/operations/{operation.id}/stop" in strip.html
    assert strip.hidden("back") == "/dead?photo=p-1"
    assert (await operator.get("/running?back=//elsewhere.example")).hidden("back") == "/"
    assert "<main" not in strip.html
    # a page forgets no other change when it renewed the strip
    assert set(json.loads(html.unescape(strip.html.partition('data-versions="')[2].partition('"')[0]))) == {
        "running"
    }
    whole = await operator.get("/dead?photo=p-1")
    assert f"/operations/{operation.id}/stop" in whole.html
    assert len(strip.body) < len(whole.body) / 3


@pytest.mark.parametrize("text", ["https://sharepoint.example/a.jpg", "nowhere.jpg"])
async def test_a_search_that_ran_out_of_time_says_so_and_not_that_nothing_was_found(
    enter: Callable[..., Any], client: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for _ in range(501):
        client.xadd(KEYS.stream("photo.validated"), {"data": "{}"})
    defaults = {"seconds": -1.0}
    monkeypatch.setattr(Search.find, "__kwdefaults__", defaults)
    for language, said, nothing in (
        ("en", "not everything was looked at", "Nothing was found"),
        ("de", "es wurde nicht alles durchsucht", "Nichts gefunden"),
    ):
        viewer = await enter("viewer", language)
        found = (await viewer.get(f"/search?q={quote(text)}")).text
        assert said in found
        assert nothing not in found
        defaults["seconds"] = 60.0
        found = (await viewer.get(f"/search?q={quote(text)}")).text
        assert said not in found
        assert nothing in found
        defaults["seconds"] = -1.0


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("a;=1+1.jpg", "a;'=1+1.jpg"),
        ("a,+1.jpg", "a,'+1.jpg"),
        ("a\t@x|-1", "a\t'@x|'-1"),
        ("a\r\n=1", "a\r\n'=1"),
        ('a;"=1', "a;\"'=1"),
        ("\n=1", "'\n'=1"),
        ("bühl-1;2=3.jpg", "bühl-1;2=3.jpg"),
    ],
)
async def test_a_sheet_is_read_by_excel_and_no_part_of_a_cell_is_a_formula(
    enter: Callable[..., Any], client: Any, name: str, cell: str
) -> None:
    dies(client, "photo_fetcher", "schema.extracted", file_name=name)
    sheet = (await (await enter("viewer")).get("/dead.csv")).body
    # the byte order mark, without which Excel takes UTF-8 for Latin
    assert sheet.startswith(b"\xef\xbb\xbfid,")
    [row] = csv.DictReader(io.StringIO(sheet.decode("utf-8-sig"), newline=""))
    assert row["file_name"] == cell


async def test_lists_are_downloaded_whole_and_hold_no_formula(enter: Callable[..., Any], client: Any) -> None:
    for number in range(1200):
        dies(client, "photo_fetcher", "schema.extracted", photo=f"p-{number}", file_name="=HYPERLINK(1).jpg")
    viewer = await enter("viewer")
    rows = list(csv.DictReader(io.StringIO((await viewer.get("/dead.csv")).body.decode("utf-8-sig"))))
    assert len(rows) == 1200
    assert rows[0]["file_name"] == "'=HYPERLINK(1).jpg"
    document = json.loads((await viewer.get("/dead.json?photo=p-7")).body)
    assert [one["photo_id"] for one in document] == ["p-7"]
    assert json.loads((await viewer.get("/archive.json")).body) == []
    assert json.loads((await viewer.get("/sessions.json")).body) == []
    assert "who,role" in (await viewer.get("/activity.csv")).html
    assert (await viewer.get("/dead.xml")).status == 404
    # and pages of a hundred lead to all of them
    seen, path = 0, "/dead/list"
    while path:
        page = await viewer.get(path)
        seen += page.html.count("/dead/photo_fetcher/")
        path = page.html.partition('href="/dead/list?after=')[2].partition('"')[0]
        path = path and f"/dead/list?after={path}"
    assert seen == 1200


async def test_keys_are_added_renewed_and_removed(enter: Callable[..., Any], redis: Redis) -> None:
    admin = await enter("admin")
    wrong = await admin.refused("/keys", {"name": "Not A Name", "role": "viewer"})
    assert "cannot be used" in wrong.text
    made = await admin.post("/keys", {"name": "petra", "role": "viewer"})
    key = made.html.partition('id="fresh">')[2].partition("<")[0]
    assert key.startswith("erni_petra_")
    assert key not in (await admin.get("/keys")).html
    person = await enter(None)
    assert (await person.post("/login", {"key": key})).status == 303
    assert " never " not in (await admin.get("/keys")).text
    assert (await access_keys.last_uses(redis))["petra"] == pytest.approx(time.time(), abs=60)
    renewed = await admin.post("/keys/petra/rotate")
    assert key not in renewed.html
    assert (await person.post("/login", {"key": key})).status == 403
    key = renewed.html.partition('id="fresh">')[2].partition("<")[0]
    renewed = await admin.post("/keys/petra/rotate", {"grace": "1"})
    assert "The key before it works until" in renewed.text
    assert (await person.post("/login", {"key": key})).status == 303
    again = await admin.refused("/keys/petra/rotate", {"grace": "1"})
    assert "the key before that still works" in again.text
    await admin.post("/keys/petra/remove")
    assert (await admin.get("/keys/petra")).status == 404
    did = [one.action for one in await activity.newest(redis, most=6)]
    assert did == ["key remove", "sign in", "key rotate", "key rotate", "sign in", "key add"]


async def test_an_edited_letter_and_what_took_its_place_lead_to_each_other(
    enter: Callable[..., Any], client: Any
) -> None:
    operator = await enter("operator")
    data = '{"photo_id":"p-1","source_url":"https://wrong.example/1.jpg"}'
    fields = {"id": "e1", "type": "photo.submitted", "traceparent": TRACEPARENT, "data": data}
    dead_id = dies(client, "schema_extractor", "photo.submitted", fields=fields, session=None)
    sent = {"data": data.replace("wrong", "right")}
    assert (await operator.post(f"/dead/schema_extractor/{dead_id}/edit", sent)).status == 303
    [(archived, _)] = client.xrange(KEYS.archive("schema_extractor"))
    page = await operator.get(f"/archive/schema_extractor/{archived.decode()}")
    assert "edited and replayed: its photo went on with a corrected event" in page.text
    assert 'href="/photos/p-1"' in page.html
    # it would be refused
    assert "/ask/restore" not in page.html
    [(_, entry)] = client.xrange(KEYS.stream("photo.submitted"))
    again = [part for pair in entry.items() for part in pair]
    failed = dies(client, "schema_extractor", "photo.submitted", original=again, session=None)
    page = await operator.get(f"/dead/schema_extractor/{failed}")
    assert f"schema_extractor/{dead_id}" in page.text
    assert 'href="/archive/list?photo=p-1"' in page.html
    assert archived.decode() in (await operator.get("/archive/list?photo=p-1")).html


async def test_a_web_hook_is_added_switched_renewed_and_removed(
    enter: Callable[..., Any], redis: Redis, client: Any
) -> None:
    operator, viewer = await enter("operator"), await enter("viewer")
    given = {"url": "https://camera.example.org/hook?token=hidden", "source": "urn:camera-app"}
    given |= {"signature": "v1", "photo.failed": "on"}
    refused = await operator.refused("/webhooks", given | {"url": "https://127.0.0.1/"})
    assert "private" in refused.text or "public" in refused.text, refused.text
    assert (
        "no event is named"
        in (await operator.refused("/webhooks", given | {"photo.failed": ""})).text.lower()
    )
    made = await operator.post("/webhooks", given)
    secret = made.html.partition('id="fresh">')[2].partition("<")[0]
    assert secret.startswith("whsec_")
    [endpoint] = await webhooks.all_webhooks(redis)
    assert (endpoint.url, endpoint.events) == (given["url"], ("photo.failed",))
    seen = await viewer.get("/webhooks")
    assert "https://camera.example.org " in seen.text
    assert "camera.example.org/hook" not in seen.html
    assert secret not in seen.html
    assert "token=" not in seen.html
    where = f"/webhooks/{endpoint.id}"
    assert (await operator.post(f"{where}/disable")).status == 303
    [off] = await webhooks.all_webhooks(redis)
    assert off.state == "off"
    assert "switched it off" in (await viewer.get("/webhooks")).text
    assert (await operator.post(f"{where}/enable")).status == 303
    assert (await webhooks.all_webhooks(redis))[0].state == "on"
    renewed = await operator.post(f"{where}/rotate")
    assert "whsec_" in renewed.html
    assert secret not in renewed.html
    again = await operator.refused(f"{where}/rotate", {})
    assert "rotated less than a day ago" in again.text
    for action in ("rotate", "enable", "disable", "remove"):
        assert (await viewer.post(f"{where}/{action}")).status == 403
    assert (await viewer.get(where)).status == 403
    assert (await viewer.post("/webhooks", given)).status == 403
    assert (await operator.post(f"{where}/remove")).status == 303
    assert await webhooks.all_webhooks(redis) == []
    for action in ("rotate", "enable", "disable", "remove"):
        assert (await operator.post(f"{where}/{action}")).status == 404
    did = [one.action for one in await activity.newest(redis, most=5)]
    assert did == [f"webhook {word}" for word in ("remove", "rotate", "enable", "disable", "add")]


async def test_a_refused_form_is_shown_once_by_the_page_itself_with_what_was_typed(
    enter: Callable[..., Any], redis: Redis
) -> None:
    """Back in the browser then meets a page: a browser asks before it sends a form a second time."""
    operator = await enter("operator")
    given = {"url": "https://127.0.0.1/hook?token=s", "source": "urn:camera-app", "signature": "v1a"}
    answer = await operator.post("/webhooks", given | {"photo.failed": "on"})
    assert (answer.status, answer.headers["Location"]) == (303, "/webhooks")
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/webhooks", "Max-Age=60"))
    seen = await operator.get("/webhooks")
    assert (seen.status, 'role="alert"' in seen.html) == (200, True)
    assert 'value="https://127.0.0.1/hook?token=s"' in seen.html
    assert '<option value="v1a" selected>' in seen.html
    assert 'role="alert"' not in (await operator.get("/webhooks")).html
    # what is too long for a cookie is said all the same
    long = await operator.refused("/webhooks", given | {"source": "x" * 5000})
    assert 'role="alert"' in long.html
    assert await webhooks.all_webhooks(redis) == []
    for broken in ("%%%", "bm90IGpzb24", "e30", "[" * 3000):
        seen = await operator.get("/webhooks", Cookie=f"erni_refused={broken}")
        assert seen.status in (200, 303)


async def test_the_page_of_web_hooks_shows_what_waits_and_what_was_given_up(
    enter: Callable[..., Any], client: Any, played: None
) -> None:
    down: dict[str, Any] = {"breakers_open": [f"webhook/{scene.HOOK}"], "breaker_reasons": {}}
    beats(client, "webhook_notifier", ago=-120, **down)
    dies(client, "webhook_notifier", "notice.queued")
    client.zadd(KEYS.delayed("webhook_notifier"), {"a notice": (time.time() + 300) * 1000})
    page = await (await enter("viewer")).get("/webhooks")
    assert "held back" in page.text
    assert 'href="/dead?agent=webhook_notifier"' in page.html
    assert re.search(r"next try \d\d:\d\d:\d\d CES?T|next try \d+ \w+ \d+ \d\d:\d\d CES?T", page.text)
    assert "Failing since" in page.text
    assert scene.REFUSED in page.text
    assert "Off since" in page.text
    client.delete(KEYS.delayed("webhook_notifier"))
    assert "Next try" not in (await (await enter("viewer")).get("/webhooks")).text
    client.zadd(POSTPONED, {notice(scene.FAILING_HOOK): (time.time() + 400) * 1000})
    page = await (await enter("viewer")).get("/webhooks")
    assert re.search(r"Next try \d\d:\d\d:\d\d CES?T|Next try \d+ \w+ \d+ \d\d:\d\d CES?T", page.text)
    client.delete(KEYS.delayed("webhook_notifier"))


async def test_a_viewer_sees_the_host_of_a_web_hook_and_not_its_path(
    enter: Callable[..., Any], redis: Redis, settings: Any
) -> None:
    made = await webhooks.add(redis, settings, "https://hooks.example.org/in/T0-secret", source="urn:a")
    pages = {role: (await (await enter(role)).get("/webhooks")).html for role in ("viewer", "operator")}
    assert "https://hooks.example.org<" in pages["viewer"]
    assert "T0-secret" not in pages["viewer"]
    assert "https://hooks.example.org/in/T0-secret" in pages["operator"]
    await webhooks.remove(redis, made.endpoint.id)


async def test_dead_notices_of_web_hooks_are_at_the_same_desk(enter: Callable[..., Any], client: Any) -> None:
    dead_id = dies(client, "webhook_notifier", "webhook.queued", photo=None, session="s1", file_name=None)
    operator = await enter("operator")
    for path in ("/dead", "/dead?session=s1", f"/dead/webhook_notifier/{dead_id}"):
        assert "Notify web hooks" in (await operator.get(path)).text, path
    await operator.order("replay", "agent=webhook_notifier")
