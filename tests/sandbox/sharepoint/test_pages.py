"""What a person sees in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sandbox.sharepoint.client import Graph


async def test_an_items_web_url_shows_the_file_and_its_library_a_table(graph: Graph) -> None:
    item = (await graph.upload("Seewen/Dach & Wand.jpg", b"photo")).json
    shown = await graph.call("GET", item["webUrl"], token=False)
    assert (shown.status, shown.data, shown.headers["Content-Type"]) == (200, b"photo", "image/jpeg")
    page = await graph.call("GET", item["webUrl"].rpartition("/")[0], token=False)
    assert page.status == 200
    assert "Dach &amp; Wand.jpg" in page.data.decode()
    assert "Gebäudetyp" in page.data.decode()
    site = await graph.call("GET", f"{graph.origin}/sites/Bau", token=False)
    assert 'href="/sites/Bau/Referenzfotos"' in site.data.decode()
    assert (await graph.call("GET", f"{graph.origin}/sites/Bau/Nichts", token=False)).status == 404


async def test_what_comes_from_outside_is_text_on_the_page(graph: Graph) -> None:
    await graph.upload("a.jpg")
    await graph.patch(f"{graph.drive}/root:/a.jpg:/listItem/fields", {"Ort": "<script>alert(1)</script>"})
    page = await graph.call("GET", f"{graph.origin}/sites/Bau/Referenzfotos", token=False)
    assert "<script>" not in page.data.decode()
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


async def test_a_large_library_is_shown_in_pages(graph: Graph) -> None:
    for number in range(101):
        await graph.upload(f"{number:03}.jpg")
    first = (await graph.call("GET", f"{graph.origin}/sites/Bau/Referenzfotos", token=False)).data.decode()
    assert "100.jpg" not in first
    second = await graph.call("GET", f"{graph.origin}/sites/Bau/Referenzfotos?page=1", token=False)
    assert "100.jpg" in second.data.decode()
