from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.retry.errors import PermanentError
from shared.sharepoint.sites import SiteAddress, find_library, find_site, site_address
from shared.sharepoint.wire import Site
from tests.shared.sharepoint.stub import Reply, refusal

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from tests.shared.sharepoint.stub import Stub

SITE = Site(id="host,1,2")
LISTS = "/v1.0/sites/host,1,2/lists"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contoso.sharepoint.com:/sites/Bau", SiteAddress(host="contoso.sharepoint.com", path="sites/Bau")),
        (
            "https://contoso.sharepoint.com/sites/B%C3%BCro/",
            SiteAddress(host="contoso.sharepoint.com", path="sites/Büro"),
        ),
        ("host:/sites/B%C3%BCro", SiteAddress(host="host", path="sites/Büro")),
        ("/sites/Bau", SiteAddress(path="sites/Bau")),
        ("/", SiteAddress()),
        (" contoso.sharepoint.com ", SiteAddress(host="contoso.sharepoint.com")),
        ("host,11-22,33-44", SiteAddress(id="host,11-22,33-44", host="host")),
    ],
)
def test_a_site_can_be_written_in_several_ways(text: str, expected: SiteAddress) -> None:
    assert site_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "Bau auf", "http://contoso.sharepoint.com/sites/Bau", "a/b", "host:sites/Bau"]
)
def test_what_is_no_site_is_told(text: str) -> None:
    with pytest.raises(PermanentError, match=r"^the site "):
        site_address(text)


def test_userinfo_and_query_are_not_repeated() -> None:
    with pytest.raises(PermanentError) as caught:
        site_address("ftp://user:secret@host/sites/Bau?sig=secret")
    assert "secret" not in str(caught.value)


async def test_a_site_without_host_is_on_the_configured_one(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", "/v1.0/sites/localhost:/sites/B%C3%BCro", Reply(body={"id": "1"}))
    assert (await find_site(client, "/sites/Büro", main="localhost:/sites/Bau")).id == "1"


async def test_a_site_without_a_host_anywhere_is_told(graph: Stub, client: GraphClient) -> None:
    for main in ("", "/sites/Bau"):
        with pytest.raises(PermanentError, match=r"write it as contoso\.sharepoint\.com:/sites/Bau"):
            await find_site(client, "/sites/Bau", main=main)
    assert graph.calls("GET") == []  # an app that may see single sites could not ask for the host


async def test_a_configured_id_names_the_host_too(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", "/v1.0/sites/localhost:/sites/Neu", Reply(body={"id": "1"}))
    assert (await find_site(client, "/sites/Neu", main="localhost,11-22,33-44")).id == "1"


@pytest.mark.parametrize(
    ("text", "site", "library"),
    [
        (
            "https://contoso.sharepoint.com/sites/Bau/Freigegebene%20Dokumente/Forms/AllItems.aspx?id=%2Fsites",
            "contoso.sharepoint.com:/sites/Bau",
            "Freigegebene Dokumente",
        ),
        ("/sites/Bau/Referenzfotos/Forms/AllItems.aspx", "/sites/Bau", "Referenzfotos"),
        (
            "contoso.sharepoint.com:/sites/Bau/Sub/Fotos/Forms/x.aspx",
            "contoso.sharepoint.com:/sites/Bau/Sub",
            "Fotos",
        ),
        ("https://contoso.sharepoint.com/Fotos/Forms/AllItems.aspx", "contoso.sharepoint.com", "Fotos"),
    ],
)
def test_the_address_of_a_librarys_page_is_taken_apart(text: str, site: str, library: str) -> None:
    with pytest.raises(PermanentError, match="goes on into a library") as caught:
        site_address(text)
    assert str(caught.value).endswith(f"set SHAREPOINT_SITE={site} and SHAREPOINT_LIBRARY={library}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/sites/Bau/SitePages/Home.aspx", "the address of a page: the site is host:/sites/Bau"),
        ("https://host/sites/Bau/_layouts/15/viewlsts.aspx", "the site is host:/sites/Bau"),
        ("https://host/:f:/r/sites/Bau/Referenzfotos", "a link to share something by"),
    ],
)
def test_the_address_of_another_page_is_no_site(text: str, expected: str) -> None:
    with pytest.raises(PermanentError, match=expected):
        site_address(text)


def test_a_site_may_be_called_like_a_page() -> None:
    assert site_address("host:/sites/Lists").path == "sites/Lists"


@pytest.mark.parametrize("status", [403, 404])
async def test_a_site_that_is_not_seen_may_be_mistyped_or_not_granted(
    graph: Stub, client: GraphClient, status: int
) -> None:
    graph.on("GET", "/v1.0/sites/localhost:/sites/Nix", refusal(status, "accessDenied"))
    with pytest.raises(PermanentError) as caught:
        await find_site(client, "localhost:/sites/Nix")
    assert str(caught.value) == (
        f"there is no site 'localhost:/sites/Nix', or the app may not see it (SharePoint answered {status}"
        " accessDenied): check the address, then that the app has been granted this site (Sites.Selected)"
    )


@pytest.mark.parametrize(
    ("text", "path", "site"),
    [
        ("localhost:/sites/Bau/Referenzfotos", "/sites/Bau/Referenzfotos", "localhost:/sites/Bau"),
        ("https://localhost/Referenzfotos/", "/Referenzfotos", "localhost"),
    ],
)
async def test_a_library_at_the_end_of_a_site_is_told_where_the_lookup_fails(
    graph: Stub, client: GraphClient, text: str, path: str, site: str
) -> None:
    with pytest.raises(PermanentError) as caught:
        await find_site(client, text)
    assert str(caught.value).endswith(
        f"If 'Referenzfotos' is a library, the site ends before it: set SHAREPOINT_SITE={site} and"
        " SHAREPOINT_LIBRARY=Referenzfotos"
    )
    graph.on("GET", f"/v1.0/sites/localhost:{path}", Reply(body={"id": "1"}))
    assert (await find_site(client, text)).id == "1"  # a subsite's address looks the same


def _library(number: int, name: str, display_name: str, **more: object) -> dict[str, object]:
    return {
        "id": f"l{number}",
        "name": name,
        "displayName": display_name,
        "webUrl": f"https://host/sites/Bau/{name.replace(' ', '%20')}",
        "list": {"template": "documentLibrary"},
    } | more


@pytest.fixture
def libraries(graph: Stub) -> None:
    """Two pages of lists; not all of them are libraries that people see."""
    graph.on(
        "GET",
        LISTS,
        Reply(
            body={
                "value": [
                    _library(1, "Freigegebene Dokumente", "Dokumente"),
                    _library(2, "Aufgaben", "Aufgaben", list={"template": "genericList"}),
                    _library(
                        3, "Stil", "Stilbibliothek", list={"template": "documentLibrary", "hidden": True}
                    ),
                ],
                "@odata.nextLink": f"{graph.url}{LISTS}/more",
            }
        ),
    )
    graph.on(
        "GET",
        f"{LISTS}/more",
        Reply(
            body={
                "value": [
                    _library(4, "Dokumente", "Referenzfotos"),
                    _library(5, "Bilder", "Bilder alt", list={"template": "pictureLibrary"}),
                ]
            }
        ),
    )
    for number in range(1, 6):
        graph.on(
            "GET", f"{LISTS}/l{number}/drive", Reply(body={"id": f"b!{number}", "webUrl": "https://drive"})
        )


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Referenzfotos", 4),
        ("referenzfotos ", 4),
        ("Dokumente", 1),  # the display name first, although another's address says so too
        ("Bilder", 5),
        ("Freigegebene Dokumente", 1),
    ],
)
async def test_a_library_is_found_by_what_people_call_it(client: GraphClient, asked: str, found: int) -> None:
    library = await find_library(client, SITE, "/sites/Bau", asked)
    assert (library.list_id, library.drive_id) == (f"l{found}", f"b!{found}")
    assert (library.site, library.site_id) == ("/sites/Bau", "host,1,2")
    assert library.web_url.startswith("https://host/sites/Bau/")


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("asked", ["Nix", "Aufgaben", "Stilbibliothek", ""])
async def test_an_unknown_library_names_those_that_there_are(client: GraphClient, asked: str) -> None:
    with pytest.raises(PermanentError, match="it has: Bilder alt, Dokumente, Referenzfotos"):
        await find_library(client, SITE, "/sites/Bau", asked)
