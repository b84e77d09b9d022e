from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.retry.errors import PermanentError
from shared.sharepoint.answers import GraphError
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
        ("/sites/Bau", SiteAddress(path="sites/Bau")),
        ("/", SiteAddress()),
        (" contoso.sharepoint.com ", SiteAddress(host="contoso.sharepoint.com")),
        ("host,11-22,33-44", SiteAddress(id="host,11-22,33-44")),
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


@pytest.mark.parametrize(
    "root",
    [{"id": "0", "siteCollection": {"hostname": "main"}}, {"id": "0", "webUrl": "https://main/sites/x"}],
)
async def test_else_on_the_tenants_main_one(graph: Stub, client: GraphClient, root: object) -> None:
    graph.on("GET", "/v1.0/sites/root", Reply(body=root))
    graph.on("GET", "/v1.0/sites/main:/sites/Bau", Reply(body={"id": "1"}))
    assert (await find_site(client, "/sites/Bau")).id == "1"


async def test_a_tenant_without_a_host_is_told(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", "/v1.0/sites/root", Reply(body={"id": "0"}))
    with pytest.raises(PermanentError, match="names no host"):
        await find_site(client, "/sites/Bau")


async def test_a_site_that_is_not_there_is_permanent_but_no_access_is_an_answer(
    graph: Stub, client: GraphClient
) -> None:
    with pytest.raises(PermanentError, match="there is no site 'localhost:/sites/Nix'"):
        await find_site(client, "localhost:/sites/Nix")
    graph.on("GET", "/v1.0/sites/localhost:/sites/Bau", refusal(403, "accessDenied"))
    with pytest.raises(GraphError, match=r"Sites\.Selected"):
        await find_site(client, "localhost:/sites/Bau")


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
