from __future__ import annotations

import aiohttp
import msgspec
import pytest

from shared.retry.classify import Kind, classify
from shared.retry.errors import (
    HttpStatusError,
    PermanentError,
    PostponeError,
    TransientError,
    dependency_of,
)
from shared.sharepoint.answers import GraphError
from shared.sharepoint.client import GraphClient, segment
from shared.sharepoint.target import about
from shared.sharepoint.wire import Drive, Site
from tests.shared.sharepoint.stub import Reply, Stub, refusal

TOKEN = "/tenant/oauth2/v2.0/token"
THING = "/v1.0/drives/d/items/1"


async def test_a_call_says_who_it_is_and_carries_an_id_of_its_own(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", THING, Reply(body={"id": "1"}))
    await client.get("/drives/d/items/1", Drive, doing="reading")
    await client.get("/drives/d/items/1", Drive, doing="reading")
    first, second = graph.calls("GET")
    assert first.headers["Authorization"] == "Bearer token-1"
    assert first.headers["User-Agent"].startswith("NONISV|Erni|FotoAgency/")
    assert len(first.headers["client-request-id"]) == 36
    assert first.headers["client-request-id"] != second.headers["client-request-id"]


async def test_query_options_keep_their_dollar_and_everything_else_is_encoded(
    graph: Stub, client: GraphClient
) -> None:
    name = segment("Über uns #1 100%?.jpg")
    graph.on("GET", f"/v1.0/drives/d/root:/{name}", Reply(body={"id": "1"}))
    await client.get(
        f"/drives/d/root:/{name}",
        Drive,
        doing="reading",
        params={"$expand": "listItem($expand=fields)", "$filter": "name eq 'a&b'"},
    )
    [asked] = graph.calls("GET")
    assert asked.path == (
        "/v1.0/drives/d/root:/%C3%9Cber%20uns%20%231%20100%25%3F.jpg"
        "?$expand=listItem($expand=fields)&$filter=name%20eq%20%27a%26b%27"
    )


# Every row of Graph's own list of errors (learn.microsoft.com, "Microsoft Graph error responses").
@pytest.mark.parametrize(
    ("status", "code", "inner"),
    [
        (400, "invalidRequest", ()),
        (400, "generalException", ()),
        (400, "invalidRequest", ("propertyNotUpdateable",)),
        (403, "accessDenied", ()),
        (404, "itemNotFound", ()),
        (405, "notAllowed", ()),
        (409, "nameAlreadyExists", ()),
        (410, "resyncRequired", ("resyncChangesApplyDifferences",)),
        (412, "resourceModified", ("entityTagDoesNotMatch",)),
        (413, "invalidRequest", ("maxFileSizeExceeded",)),
        (416, "invalidRange", ("fragmentOverlap",)),
        (403, "malwareDetected", ()),
        (500, "generalException", ()),
        (501, "notSupported", ()),
        (503, "serviceNotAvailable", ()),
        (504, "serviceNotAvailable", ()),
        (507, "quotaLimitReached", ("insufficientQuota",)),
        (509, "activityLimitReached", ()),
    ],
)
async def test_every_refusal_is_one_error_with_status_and_codes(
    graph: Stub, client: GraphClient, status: int, code: str, inner: tuple[str, ...]
) -> None:
    graph.on("GET", THING, refusal(status, code, *inner, request_id="srv-1"))
    with pytest.raises(GraphError, match=f"reading it: SharePoint answered {status} {code}") as caught:
        await client.send("GET", "/drives/d/items/1", doing="reading it")
    error = caught.value
    assert (error.status, error.codes) == (status, (code, *inner))
    assert "request-id srv-1" in str(error)
    assert dependency_of(error) == "sharepoint"
    assert len(graph.calls("GET")) == 1  # trying again is not for the client to decide


async def test_throttling_tells_how_long_and_the_next_call_is_not_even_sent(
    graph: Stub, client: GraphClient
) -> None:
    graph.on("GET", THING, refusal(429, "activityLimitReached", Retry_After="31"))
    with pytest.raises(GraphError) as caught:
        await client.send("GET", "/drives/d/items/1", doing="reading")
    assert caught.value.retry_after == 31
    with pytest.raises(HttpStatusError, match="nothing is sent") as second:
        await client.send("GET", "/drives/d/items/1", doing="reading")
    assert second.value.status == 429
    assert dependency_of(second.value) == "sharepoint"
    assert len(graph.calls("GET")) == 1


async def test_a_locked_file_is_asked_for_again_later(graph: Stub, client: GraphClient) -> None:
    graph.on("PUT", THING, refusal(423, "resourceLocked"))
    with pytest.raises(PostponeError, match="checked out or open") as caught:
        await client.send("PUT", "/drives/d/items/1", doing="uploading", data=b"x")
    assert caught.value.seconds == 300
    assert dependency_of(caught.value) == "sharepoint"


async def test_after_a_401_there_is_one_more_try_with_a_new_token(graph: Stub, client: GraphClient) -> None:
    graph.on("PUT", THING, refusal(401, "InvalidAuthenticationToken"), Reply(body={"id": "1"}))
    graph.on(
        "POST",
        TOKEN,
        Reply(body={"expires_in": 3599, "access_token": "old"}),
        Reply(body={"expires_in": 3599, "access_token": "new"}),
    )
    await client.send("PUT", "/drives/d/items/1", doing="uploading", data=b"all of it")
    first, second = graph.calls("PUT")
    assert (first.headers["Authorization"], second.headers["Authorization"]) == ("Bearer old", "Bearer new")
    assert second.body == b"all of it"


async def test_after_a_second_401_the_photos_wait_behind_the_breaker_of_all_sharepoint(
    graph: Stub, client: GraphClient
) -> None:
    graph.on("GET", THING, refusal(401, "unauthenticated"))
    with pytest.raises(TransientError, match="it does not take our token") as caught, about("Fotos"):
        await client.send("GET", "/drives/d/items/1", doing="reading")
    assert (classify(caught.value), dependency_of(caught.value)) == (Kind.TRANSIENT, "sharepoint")
    assert len(graph.calls("GET")) == 2


@pytest.mark.parametrize(
    ("reply", "whose"),
    [
        (refusal(500, "generalException"), "sharepoint/Fotos"),
        (refusal(503, "serviceNotAvailable"), "sharepoint/Fotos"),
        (refusal(507, "quotaLimitReached"), "sharepoint/Fotos"),
        (refusal(403, "accessDenied"), "sharepoint/Fotos"),
        (refusal(404, "itemNotFound"), "sharepoint/Fotos"),
        (refusal(429, "activityLimitReached"), "sharepoint"),
        (Reply(status=503, headers={"Retry-After": "1"}), "sharepoint"),
        (Reply(drop=True), "sharepoint"),
    ],
)
async def test_an_answer_is_the_librarys_unless_it_concerns_the_whole_app(
    graph: Stub, client: GraphClient, reply: Reply, whose: str
) -> None:
    graph.on("PATCH", THING, reply)
    with pytest.raises((GraphError, aiohttp.ClientError)) as caught, about("Fotos"):
        await client.send("PATCH", "/drives/d/items/1", doing="writing", json={})
    assert dependency_of(caught.value) == whose


async def test_a_cut_connection_passes_through_as_what_it_is(graph: Stub, client: GraphClient) -> None:
    graph.on("PATCH", THING, Reply(drop=True))
    with pytest.raises(aiohttp.ClientConnectionError) as caught:
        await client.send("PATCH", "/drives/d/items/1", doing="writing", json={})
    assert dependency_of(caught.value) == "sharepoint"


async def test_nobody_there_passes_through_too(graph: Stub, settings_url_closed: GraphClient) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await settings_url_closed.send("GET", "/sites/root", doing="looking")


@pytest.fixture
async def settings_url_closed(graph: Stub, client: GraphClient) -> GraphClient:
    """A client whose server has gone."""
    await graph.stop()
    return client


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"id": ', b'{"name": "no id"}', b""])
async def test_an_answer_that_is_not_graphs_is_transient(
    graph: Stub, client: GraphClient, body: bytes
) -> None:
    graph.on("GET", THING, Reply(body=body))
    with pytest.raises(TransientError, match="reading: SharePoint's answer cannot be read"):
        await client.get("/drives/d/items/1", Site, doing="reading")


async def test_pages_are_followed_to_the_end(graph: Stub, client: GraphClient) -> None:
    graph.on(
        "GET",
        "/v1.0/sites/s/lists",
        Reply(
            body={
                "value": [{"id": "1"}, {"id": "2"}],
                "@odata.nextLink": f"{graph.url}/v1.0/more?$skiptoken=x%20y",
            }
        ),
    )
    graph.on("GET", "/v1.0/more", Reply(body={"value": [{"id": "3"}]}))
    found = [drive.id async for drive in client.pages("/sites/s/lists", Drive, doing="listing")]
    assert found == ["1", "2", "3"]
    assert graph.calls("GET", "/v1.0/more")[0].path.endswith("?$skiptoken=x%20y")


async def test_a_link_to_another_host_is_not_followed_with_our_token(
    graph: Stub, client: GraphClient
) -> None:
    thief = Stub()
    await thief.start()
    link = {"value": [], "@odata.nextLink": f"{thief.url}/v1.0/more"}
    graph.on("GET", "/v1.0/sites/s/lists", Reply(body=link))
    with pytest.raises(PermanentError, match=r"links to http://127\.0\.0\.1"):
        [drive async for drive in client.pages("/sites/s/lists", Drive, doing="listing")]
    await thief.stop()
    assert thief.asked == []


async def test_content_comes_from_the_redirect_which_never_sees_the_token(
    graph: Stub, client: GraphClient
) -> None:
    graph.on("GET", f"{THING}/content", Reply(302, headers={"Location": f"{graph.url}/dl/a%20b?tempauth=x"}))
    graph.on("GET", "/dl/a%20b", Reply(body=b"12" * 300_000))
    chunks = [chunk async for chunk in client.stream("/drives/d/items/1/content", doing="downloading")]
    assert b"".join(chunks) == b"12" * 300_000
    assert len(chunks) > 1
    [download] = graph.calls("GET", "/dl/a%20b")
    assert "Authorization" not in download.headers
    assert download.path.endswith("?tempauth=x")


@pytest.mark.parametrize("status", [302, 403, 404, 503])
async def test_a_download_address_that_does_not_deliver_is_an_error_without_its_query(
    graph: Stub, client: GraphClient, status: int
) -> None:
    graph.on("GET", f"{THING}/content", Reply(302, headers={"Location": f"{graph.url}/dl?tempauth=SECRET"}))
    graph.on("GET", "/dl", Reply(status, headers={"Location": "http://127.0.0.1:1/elsewhere"}))
    with pytest.raises(GraphError, match=f"downloading: SharePoint answered {status}") as caught:
        [chunk async for chunk in client.stream("/drives/d/items/1/content", doing="downloading")]
    assert "SECRET" not in str(caught.value)
    assert dependency_of(caught.value) == "sharepoint"


async def test_a_content_answer_without_address_is_transient(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", f"{THING}/content", Reply(200, b"bytes"))
    with pytest.raises(TransientError, match="without a download address"):
        [chunk async for chunk in client.stream("/drives/d/items/1/content", doing="downloading")]


async def test_a_body_cut_off_halfway_passes_through(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", f"{THING}/content", Reply(302, headers={"Location": f"{graph.url}/dl"}))
    graph.on("GET", "/dl", Reply(200, b"a whole body", cut_after=4))
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        [chunk async for chunk in client.stream("/drives/d/items/1/content", doing="downloading")]


async def test_pre_authenticated_calls_carry_nothing_of_ours(graph: Stub, client: GraphClient) -> None:
    graph.on("PUT", "/up", Reply(202, {}))
    await client.plain("PUT", f"{graph.url}/up?sig=a%2Fb", doing="uploading", data=b"x")
    [asked] = graph.calls("PUT")
    assert not {"Authorization", "client-request-id"} & set(asked.headers)
    assert asked.path == "/up?sig=a%2Fb"
    assert graph.calls("POST", TOKEN) == []


async def test_a_client_that_is_not_open_says_so(client: GraphClient) -> None:
    await client.close()
    with pytest.raises(RuntimeError, match="before it is opened"):
        await client.send("GET", "/sites/root", doing="looking")
    await client.close()


def test_answers_ignore_what_we_do_not_know() -> None:
    site = msgspec.json.decode(b'{"id": "1", "displayName": null, "new": {"x": [1]}}', type=Site)
    assert (site.id, site.display_name, site.web_url) == ("1", None, "")
