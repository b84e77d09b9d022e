from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from events.types import Target
from shared.retry.errors import PermanentError, status_of
from shared.settings import Settings
from shared.sharepoint.answers import GraphError
from shared.sharepoint.source import ByIds, ByPath, SharePointSource, parse
from tests.shared.sharepoint.stub import Reply, Stub, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.shared.sharepoint.desk import Desk


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sharepoint:b!aB-_1/01ABC", ByIds(drive_id="b!aB-_1", item_id="01ABC")),
        (
            "sharepoint:/sites/Bau/Referenzfotos/2024/a%20b.jpg",
            ByPath(site="/sites/Bau", library="Referenzfotos", path="2024/a b.jpg"),
        ),
        ("sharepoint:/teams/Bau/Fotos/", ByPath(site="/teams/Bau", library="Fotos", path="")),
        ("sharepoint:/Dokumente/a.jpg", ByPath(site="/", library="Dokumente", path="a.jpg")),
        (
            "sharepoint://contoso.sharepoint.com/sites/Bau/Fotos/B%C3%BCro/a.jpg",
            ByPath(site="contoso.sharepoint.com:/sites/Bau", library="Fotos", path="Büro/a.jpg"),
        ),
    ],
)
def test_an_address_is_by_ids_or_by_names(url: str, place: ByIds | ByPath) -> None:
    assert parse(url) == place
    if isinstance(place, ByIds):
        assert str(place) == url


@pytest.mark.parametrize(
    "url",
    [
        "sharepoint:",
        "sharepoint:b!1",
        "sharepoint:b!1/2/3",
        "sharepoint:/",
        "sharepoint:/sites/Bau",
        "sharepoint:/sites/Bau/Fotos/../Geheim/a.jpg",
        "sharepoint:/sites/Bau/Fotos/%2E%2E/a.jpg",
        "sharepoint:/sites/Bau/Fotos/a%2F..%2F..%2FGeheim/a.jpg",
        "sharepoint:/sites/Bau/Fotos/a%5C..%5Cb.jpg",
        "sharepoint:/sites/Bau/Fotos/%2E/a.jpg",
        "sharepoint:b!1%2F..%2Fb!2/2",
        "https://contoso.sharepoint.com/sites/Bau/Fotos/a.jpg",
        "sharepoint:/sites/Bau/Fotos/a.jpg?sig=SECRET",
    ],
)
def test_other_addresses_say_what_is_expected(url: str) -> None:
    with pytest.raises(PermanentError, match="expected sharepoint:<drive id>/<item id>") as caught:
        parse(url)
    assert "SECRET" not in str(caught.value)


@pytest.fixture
async def source(desk: Desk) -> AsyncIterator[SharePointSource]:
    source = SharePointSource(desk.settings)
    yield source
    await source.close()


def parse_path(url: str) -> ByPath:
    place = parse(url)
    assert isinstance(place, ByPath)
    return place


async def _read(source: SharePointSource, url: str) -> bytes:
    async with aclosing(source.download(url)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_file_is_downloaded_by_ids_and_by_names(desk: Desk, source: SharePointSource) -> None:
    data = os.urandom(700_000)
    item = (await desk.filing.file(await desk.photo({}, data))).item
    assert await _read(source, f"sharepoint:{desk.library.drive_id}/{item.item_id}") == data
    assert await _read(source, f"sharepoint:/sites/Bau/referenzfotos/{item.name}") == data


async def test_what_is_not_there_is_told(desk: Desk, source: SharePointSource) -> None:
    with pytest.raises(GraphError, match=r"downloading nix\.jpg: SharePoint answered 404"):
        await _read(source, "sharepoint:/sites/Bau/Referenzfotos/nix.jpg")
    with pytest.raises(GraphError, match="404"):
        await _read(source, f"sharepoint:{desk.library.drive_id}/01NIX")
    with pytest.raises(PermanentError, match="has no library 'Nix'"):
        await _read(source, "sharepoint:/sites/Bau/Nix/a.jpg")
    with pytest.raises(PermanentError, match="is a library, not a photo"):
        await _read(source, "sharepoint:/sites/Bau/Referenzfotos")


async def test_without_access_only_its_use_fails() -> None:
    source = SharePointSource(Settings())
    for _ in range(2):
        with pytest.raises(PermanentError, match="set AZURE_TENANT_ID"):
            await _read(source, "sharepoint:b!1/2")
    await source.close()


FOLDERS = "/".join("a" * 2_000)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_site_that_is_refused_is_asked_for_once_however_deep_the_folders(
    graph: Stub, settings: Settings, status: int
) -> None:
    """Nothing below it can be found either."""
    graph.on("GET", "/v1.0/sites/localhost:/sites/Nix", refusal(status, "accessDenied"))
    source = SharePointSource(settings)
    for _ in range(2):
        with pytest.raises(PermanentError, match="there is no site '/sites/Nix'") as caught:
            await source.place(parse_path(f"sharepoint:/sites/Nix/Fotos/{FOLDERS}"))
        assert status_of(caught.value) == status
    await source.close()
    assert len(graph.calls("GET")) == 1


async def test_a_library_is_looked_for_three_subsites_down_at_most(graph: Stub, settings: Settings) -> None:
    for depth in range(6):
        path = "/".join(["sites", "Bau", "Fotos", *"aaaa"][: depth + 2])
        graph.on("GET", f"/v1.0/sites/localhost:/{path}", Reply(body={"id": str(depth)}))
        graph.on("GET", f"/v1.0/sites/{depth}/lists", Reply(body={"value": []}))
    source = SharePointSource(settings)
    with pytest.raises(PermanentError, match="the site '/sites/Bau' has no library 'Fotos'"):
        await source.place(parse_path(f"sharepoint:/sites/Bau/Fotos/{FOLDERS}"))
    await source.close()
    assert [asked.path.rpartition("/")[2] for asked in graph.calls("GET")][::2] == ["Bau", "Fotos", "a", "a"]


@pytest.mark.parametrize("site", ["sites/Umbau", "sites/Bau/Umbau", "teams/Bau", "personal/a_b_ch", "Umbau"])
async def test_photos_come_from_other_sites_subsites_and_a_onedrive(
    desk: Desk, source: SharePointSource, site: str
) -> None:
    """A tenant has many sites; a site below another one looks like a library in it."""
    name = f"Fotos {site.replace('/', ' ')}"
    await desk.emulator.admin("POST", "/lists", {"displayName": name, "site": site})
    library, path = await source.place(parse_path(f"sharepoint:/{site}/{name}"))
    assert (library.library, path) == (name, "")
    data = os.urandom(1_000)
    await desk.client.send(
        "PUT", f"/drives/{library.drive_id}/root:/Jahr/a.jpg:/content", doing="preparing", data=data
    )
    for written in (site, site.title(), site.upper()):
        assert await _read(source, f"sharepoint:/{written}/{quote(name)}/Jahr/a.jpg") == data
        assert await _read(source, f"sharepoint://localhost/{written}/{quote(name)}/Jahr/a.jpg") == data
    with pytest.raises(PermanentError, match="is a library, not a photo"):
        await _read(source, f"sharepoint:/{site}/{quote(name)}")


async def test_photos_go_to_other_sites_and_subsites_too(desk: Desk) -> None:
    for site in ("sites/Ziel", "sites/Bau/Ziel"):
        name = f"Ablage {site.replace('/', ' ')}"
        await desk.emulator.admin("POST", "/lists", {"displayName": name, "site": site})
        for written in (f"localhost:/{site}", f"https://localhost/{site.title()}/", f"/{site.upper()}"):
            library = await desk.libraries.resolve(Target(site=written, library=name))
            assert library.web_url.endswith(f"/{site}/{quote(name)}")
        with pytest.raises(PermanentError, match="has no library"):
            await desk.libraries.resolve(Target(site="/sites/Bau", library=name))
