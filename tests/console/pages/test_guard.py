"""Who gets in, and who does not: roles, foreign pages, frames, other host names, markup in names."""

from __future__ import annotations

import asyncio
import html
from typing import TYPE_CHECKING, Any

import pytest

from console.gateway.server import Gateway
from console.pages.console import Console
from events.connection import connect
from shared.operations import access_keys, sign_in
from tests.console.pages import pictures, scene
from tests.console.pipeline import KEYS, dies, went
from tests.shared.delivery.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis as PlainRedis
    from redis.asyncio import Redis

    from shared.settings import Settings

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>.jpg"


def _paths(console: Console, method: str) -> list[tuple[str, str | None]]:
    values = {"agent": "photo_fetcher", "id": "1-1", "name": "some", "kind": "replay", "format": "csv"}
    return [(route.path.format(**values), route.role) for route in console.routes if route.method == method]


async def test_nobody_sees_or_changes_anything_without_signing_in(
    enter: Callable[..., Any], settings: Settings, redis: Redis
) -> None:
    stranger = await enter(None)
    console = Console(redis, settings)
    for path, role in _paths(console, "GET"):
        seen = await stranger.get(path)
        if role is None:
            assert seen.status in (200, 404), path
        else:
            assert seen.status == 303, path
            assert seen.headers["Location"].startswith("/login")
    for path, role in _paths(console, "POST"):
        if role is not None:
            assert (await stranger.post(path)).status == 401, path


async def test_a_page_has_a_head_and_the_stream_of_changes_which_never_ends_has_none(
    enter: Callable[..., Any],
) -> None:
    person = await enter("viewer")
    for path, status in (("/", 200), ("/live", 405)):
        async with asyncio.timeout(20), person.http.head(person.origin + path) as answer:
            assert (answer.status, await answer.read()) == (status, b""), path


@pytest.mark.parametrize(("role", "more"), [("viewer", {"operator", "admin"}), ("operator", {"admin"})])
async def test_a_role_makes_no_request_of_a_higher_one(
    enter: Callable[..., Any], settings: Settings, redis: Redis, role: str, more: set[str]
) -> None:
    person = await enter(role)
    console = Console(redis, settings)
    higher = [
        path for method in ("GET", "POST") for path, needed in _paths(console, method) if needed in more
    ]
    assert len(higher) >= 5
    for path in higher:
        asks = (
            person.post
            if (path, None) not in _paths(console, "GET") and path in dict(_paths(console, "POST"))
            else person.get
        )
        assert (await asks(path)).status == 403, path


async def test_an_operator_discards_nothing(enter: Callable[..., Any], client: PlainRedis) -> None:
    dies(client, "photo_fetcher", "schema.extracted")
    admin, operator = await enter("admin"), await enter("operator")
    assert (await operator.get("/ask/discard")).status == 403
    fields = {"kind": "discard", "selection": (await admin.get("/ask/discard")).hidden("selection")}
    assert (await operator.post("/operations", fields)).status == 403
    path = (await admin.post("/operations", fields)).headers["Location"]
    assert (await operator.post(f"{path}/stop")).status == 403
    assert (await operator.post(f"{path}/resume")).status == 403


async def test_an_operator_deletes_nothing_from_the_archive_and_an_admin_does(
    enter: Callable[..., Any], redis: Redis, client: PlainRedis, settings: Settings
) -> None:
    await scene.play(client, redis, settings.photo_store_url)
    admin, operator = await enter("admin"), await enter("operator")
    assert "/ask/delete" not in (await operator.get("/archive")).html
    assert (await operator.get("/ask/delete")).status == 403
    asked = await admin.get("/ask/delete?agent=schema_extractor")
    fields = {"kind": "delete", "selection": asked.hidden("selection")}
    assert (await operator.post("/operations", fields)).status == 403
    where = (await admin.post("/operations", fields)).headers["Location"]
    assert (await operator.post(f"{where}/stop")).status == 403

    async def done() -> bool:
        return " deleted 6 " in (await admin.get(where)).text

    await until(done)
    assert client.xlen("erni:archive:schema_extractor") == 0


async def test_a_viewer_has_no_button(
    enter: Callable[..., Any], redis: Redis, client: PlainRedis, settings: Settings
) -> None:
    await scene.play(client, redis, settings.photo_store_url)
    await scene.keys(redis)
    viewer = await enter("viewer")
    for name, path in (await pictures.pages(redis)).items():
        seen = await viewer.get(path)
        forms = [part.partition('"')[0] for part in seen.html.split('<form method="post" action="')[1:]]
        assert forms == (["/language", "/logout"] if seen.status < 500 else ["/language"]), name
        assert 'href="/ask/' not in seen.html


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_a_form_of_another_site_changes_nothing(
    enter: Callable[..., Any], client: PlainRedis, headers: dict[str, str]
) -> None:
    admin = await enter("admin")
    seen = await admin.post("/agents/photo_fetcher/pause", **headers)
    assert seen.status == 403
    assert "did not come from a page of the console" in seen.text
    assert not client.exists(KEYS.paused)
    assert (await admin.post("/agents/photo_fetcher/pause")).status == 303
    assert client.exists(KEYS.paused)


async def test_no_page_can_be_framed_or_read_under_another_name(enter: Callable[..., Any]) -> None:
    admin = await enter("admin")
    for path in ("/", "/login", "/none"):
        seen = await admin.get(path, Accept="text/html")
        assert "frame-ancestors 'none'" in seen.headers["Content-Security-Policy"]
        assert "unsafe" not in seen.headers["Content-Security-Policy"]
        assert seen.headers["X-Frame-Options"] == "DENY"
        assert seen.headers["X-Content-Type-Options"] == "nosniff"
    rebound = await admin.get("/", Host="evil.example")
    assert rebound.status == 421


async def test_a_link_on_another_site_leads_to_the_page_and_not_to_the_login(
    enter: Callable[..., Any],
) -> None:
    viewer, stranger = await enter("viewer"), await enter(None)
    # the browser sends no SameSite cookie with it, so the page lets it ask again from here
    first = await stranger.get("/dead?session=s1", **{"Sec-Fetch-Site": "cross-site"})
    assert first.status == 200
    assert 'http-equiv="refresh" content="0"' in first.html
    again = await viewer.get("/dead?session=s1", **{"Sec-Fetch-Site": "same-origin"})
    assert "Dead letters" in again.text
    unknown = await stranger.get("/dead?session=s1", **{"Sec-Fetch-Site": "same-origin"})
    assert unknown.headers["Location"] == "/login?next=%2Fdead%3Fsession%3Ds1"
    fetched = await stranger.get("/dead", **{"Sec-Fetch-Dest": "empty"})
    assert fetched.status == 401


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    enter: Callable[..., Any], redis: Redis
) -> None:
    key = await access_keys.add(redis, "petra", "viewer")
    person = await enter(None)
    answer = await person.post("/login", {"key": key})
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert key not in cookie
    tls = await person.post("/login", {"key": key}, Origin=f"https{person.origin[4:]}")
    assert "Secure" in tls.headers["Set-Cookie"]


async def test_names_are_text_on_every_page(enter: Callable[..., Any], client: Any) -> None:
    dies(client, "photo_fetcher", "schema.extracted", message=f"no {EVIL}", photo="p-1", file_name=EVIL)
    went(client, "schema_extractor", photo="p-1")
    client.hset(KEYS.photo("p-1"), "file_name", EVIL)
    letter = client.xrange(KEYS.dead("photo_fetcher"))[0][0].decode()
    admin = await enter("admin")
    for path in (
        "/",
        "/dead",
        "/dead/list",
        f"/dead/photo_fetcher/{letter}",
        "/photos/p-1",
        f"/search?q={'%3Cscript%3E'}",
        "/ask/replay?photo=%3Cscript%3Ealert(1)",
    ):
        seen = await admin.get(path)
        if seen.status == 303:
            continue
        assert "<script>alert" not in seen.html, path
        assert "<img src=x" not in seen.html, path
    assert html.escape("<script>alert(1)") in (await admin.get("/dead")).html
    sheet = await admin.get("/dead.csv?photo=p-1")
    assert sheet.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path",
    [
        "/dead?id=abc",
        "/archive?id=abc",
        "/dead/list?id=1-2-3",
        "/dead.csv?id=abc",
        "/ask/replay?id=abc",
        '/dead/list?after={"photo_fetcher":"x"}',
        '/dead/list?after={"photo_fetcher":""}',
    ],
)
async def test_an_address_that_names_no_entry_is_refused_with_a_sentence(
    enter: Callable[..., Any], client: Any, path: str
) -> None:
    dies(client, "photo_fetcher", "schema.extracted")
    seen = await (await enter("operator")).get(path)
    assert seen.status == 400
    assert "Something in the address or form cannot be read" in seen.text


@pytest.mark.parametrize("path", ["/login", "/operations"])
async def test_a_form_of_too_many_fields_is_refused_with_a_sentence(
    enter: Callable[..., Any], path: str
) -> None:
    seen = await (await enter("operator")).post(path, {f"field-{n}": "x" for n in range(101)})
    assert seen.status == 400
    assert "Something in the address or form cannot be read" in seen.text


async def test_signing_out_removing_and_renewing_a_key_end_a_session(
    enter: Callable[..., Any], redis: Redis
) -> None:
    keys = {name: await access_keys.add(redis, name, "viewer") for name in ("one", "two", "three")}
    people = {name: await enter(None) for name in keys}
    for name, person in people.items():
        assert (await person.post("/login", {"key": keys[name]})).status == 303
        assert (await person.get("/")).status == 200
    await people["one"].post("/logout")
    await access_keys.remove(redis, "two")
    await access_keys.rotate(redis, "three")
    # a cookie that was just asked about is known for two seconds
    await asyncio.sleep(2.1)
    for person in people.values():
        assert (await person.get("/")).status == 303


async def test_wrong_keys_and_those_of_publishers_are_refused_with_a_sentence(
    enter: Callable[..., Any], redis: Redis
) -> None:
    person = await enter(None)
    assert "not known" in (await person.post("/login", {"key": "erni_x_" + "0" * 64})).text
    key = await access_keys.add(redis, "camera", "publisher", source="urn:x")
    seen = await person.post("/login", {"key": key})
    assert (seen.status, "Set-Cookie" in seen.headers) == (403, False)
    assert "system that publishes" in seen.text


async def test_a_link_signs_in_once(enter: Callable[..., Any], redis: Redis) -> None:
    ticket = await sign_in.make_ticket(redis, "petra", "operator")
    first, second = await enter(None), await enter(None)
    assert (await first.post("/login", {"ticket": ticket})).status == 303
    assert "Operator" in (await first.get("/")).text
    seen = await second.post("/login", {"ticket": ticket})
    assert seen.status == 403
    assert "used before" in seen.text


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "/\\evil.example", "x"])
async def test_the_way_after_signing_in_stays_here(
    enter: Callable[..., Any], redis: Redis, target: str
) -> None:
    person = await enter(None)
    ticket = await sign_in.make_ticket(redis, "petra", "viewer")
    answer = await person.post("/login", {"ticket": ticket, "next": target})
    assert answer.headers["Location"] == "/"


async def test_while_redis_is_away_a_page_says_so(settings: Settings, own_redis_server: Any) -> None:
    import aiohttp
    import msgspec

    from tests.console.pages.conftest import Person

    gateway = Gateway(msgspec.structs.replace(settings, redis_url=own_redis_server.url))
    await gateway.start()
    try:
        async with (
            connect(own_redis_server.url) as redis,
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
        ):
            person = Person(gateway.port, http)
            ticket = await sign_in.make_ticket(redis, "petra", "viewer")
            await person.post("/login", {"ticket": ticket})
            own_redis_server.stop()
            seen = await person.get("/dead")
            assert seen.status == 503
            assert "does not answer" in seen.text
            # what everybody may see needs no Redis
            assert (await person.get("/login")).status == 200
            assert (await person.get("/nix", Accept="text/html")).status == 404
    finally:
        await gateway.stop()


@pytest.mark.parametrize("path", ["/nix", "/dead/xyz", "/sessions/none/x"])
async def test_a_wrong_address_keeps_the_menu_of_who_is_signed_in(
    enter: Callable[..., Any], path: str
) -> None:
    for role, shown in (("viewer", True), (None, False)):
        person = await enter(role)
        seen = await person.get(path, Accept="text/html")
        assert seen.status == 404
        assert "There is no such page." in seen.text
        assert ('href="/activity"' in seen.html, 'action="/logout"' in seen.html) == (shown, shown)


async def test_a_slash_too_many_leads_to_the_page_and_never_elsewhere(enter: Callable[..., Any]) -> None:
    viewer = await enter("viewer")
    sent = await viewer.get("/activity/", Accept="text/html")
    assert (sent.status, sent.headers["Location"]) == (303, "/activity")
    for path in ("//elsewhere.example/", "/\\elsewhere.example/"):
        assert (await viewer.get(path, Accept="text/html")).headers.get("Location", "/").count(
            "elsewhere"
        ) == 0


async def test_the_page_to_sign_in_says_who_is_signed_in_and_takes_another_key(
    enter: Callable[..., Any], redis: Redis
) -> None:
    person = await enter("viewer")
    seen = await person.get("/login?next=/sessions")
    assert "You are signed in as viewer-" in seen.text
    assert '<a href="/sessions">Go on</a>' in seen.html
    assert 'href="/activity"' in seen.html
    key = await access_keys.add(redis, "boss", "admin")
    assert (await person.post("/login", {"key": key})).status == 303
    assert (await person.get("/keys")).status == 200
    stranger = await enter(None)
    assert "You are signed in" not in (await stranger.get("/login")).text
