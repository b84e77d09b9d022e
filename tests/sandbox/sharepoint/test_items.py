"""Drive items: found by id and by path, listed in pages, downloaded, renamed, deleted."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from sandbox.sharepoint import shipped
from sandbox.sharepoint.model import Content, Item, item_id, stable_id
from sandbox.sharepoint.store import Store
from tests.sandbox.sharepoint.client import LIBRARY, Graph

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sandbox.sharepoint.conftest import Open


def photo(*, exif: bool = True) -> bytes:
    """A small JPEG that says when and where it was taken."""
    picture = Image.new("RGB", (40, 30), "brown")
    tags = Image.Exif()
    if exif:
        tags[Base.Make] = "Alp"
        tags[Base.Orientation] = 6
        tags.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2026:05:12 14:03:21"
        tags.get_ifd(IFD.GPSInfo).update(
            {
                GPS.GPSLatitudeRef: "N",
                GPS.GPSLatitude: (47.0, 1.0, 30.0),
                GPS.GPSLongitudeRef: "E",
                GPS.GPSLongitude: (8.0, 38.0, 0.0),
            }
        )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=tags)
    return buffer.getvalue()


async def test_an_item_is_the_same_by_id_by_path_and_percent_encoded(graph: Graph) -> None:
    item = (await graph.upload("Büro & Halle 100%.jpg")).json
    name = quote(item["name"], safe="")
    for path in (
        f"items/{item['id']}",
        f"root:/{name}",
        f"root:/{name}:",
        f"items/root:/{name}:/",
        f"root%3A%2F{name}%3A",
    ):
        reply = await graph.get(f"{graph.drive}/{path}")
        assert (reply.status, reply.json["id"]) == (200, item["id"]), path
    assert (await graph.get(f"{graph.drive}/root:/{name.upper()}")).json["id"] == item["id"]


async def test_what_is_not_there_is_404(graph: Graph) -> None:
    for path in ("items/01NOTHING", "root:/nothing.jpg", "root:/a/b/c.jpg", "root:/nothing.jpg:/children"):
        reply = await graph.get(f"{graph.drive}/{path}")
        assert (reply.status, reply.code) == (404, "itemNotFound"), path
    assert (await graph.get("/drives/b!nothing/root")).status == 404


async def test_a_photo_shows_what_the_service_reads_from_it(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", photo())).json
    assert item["image"] == {"width": 40, "height": 30}
    assert item["photo"] == {"cameraMake": "Alp", "takenDateTime": "2026-05-12T14:03:21Z", "orientation": 6}
    assert item["location"] == {"latitude": 47.025, "longitude": pytest.approx(8.6333333)}
    assert item["file"]["mimeType"] == "image/jpeg"
    assert item["parentReference"]["path"].endswith("/root:")


async def test_a_broken_picture_is_a_file_without_picture_facets(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", photo()[:60])).json
    assert "image" not in item
    assert "hashes" in item["file"]


async def test_select_and_expand_shape_an_item(graph: Graph) -> None:
    await graph.upload("a.jpg")
    some = (await graph.get(f"{graph.drive}/root:/a.jpg?$select=id,name")).json
    assert {key for key in some if not key.startswith("@odata")} == {"id", "name"}
    expanded = (
        await graph.get(f"{graph.drive}/root:/a.jpg?$expand=listItem($expand=fields($select=Title))")
    ).json
    assert expanded["listItem"]["fields"].keys() == {"@odata.etag"}
    wrong = await graph.get(f"{graph.drive}/root:/a.jpg?$expand=nonsense")
    assert (wrong.status, wrong.code) == (400, "invalidRequest")


async def test_children_come_in_pages_behind_opaque_absolute_links(graph: Graph) -> None:
    for number in range(7):
        await graph.upload(f"{number}.jpg")
    reply = await graph.get(f"{graph.drive}/root/children?$top=3&$select=name")
    pages = [[row["name"] for row in reply.json["value"]]]
    while link := reply.json.get("@odata.nextLink"):
        assert link.startswith(graph.origin)
        reply = await graph.get(link)
        pages.append([row["name"] for row in reply.json["value"]])
        assert all(row.keys() == {"name"} for row in reply.json["value"])
    assert pages == [["0.jpg", "1.jpg", "2.jpg"], ["3.jpg", "4.jpg", "5.jpg"], ["6.jpg"]]


async def test_paging_goes_on_where_the_last_item_was_removed(graph: Graph) -> None:
    for number in range(4):
        await graph.upload(f"{number}.jpg")
    first = await graph.get(f"{graph.drive}/root/children?$top=2")
    await graph.call("DELETE", f"{graph.drive}/root:/1.jpg")
    rest = await graph.get(first.json["@odata.nextLink"])
    assert [row["name"] for row in rest.json["value"]] == ["2.jpg", "3.jpg"]


@pytest.mark.parametrize("top", ["0", "-1", "many", ""])
async def test_a_page_size_that_is_none_is_refused(graph: Graph, top: str) -> None:
    reply = await graph.get(f"{graph.drive}/root/children?$top={top}")
    assert (reply.status, reply.code) == (400, "invalidRequest")


async def test_a_made_up_page_token_is_refused(graph: Graph) -> None:
    reply = await graph.get(f"{graph.drive}/root/children?$skiptoken=nonsense")
    assert (reply.status, reply.code) == (400, "invalidRequest")


async def test_content_redirects_to_another_origin_that_wants_no_token(graph: Graph) -> None:
    data = photo()
    item = (await graph.upload("a.jpg", data)).json
    redirect = await graph.get(f"{graph.drive}/items/{item['id']}/content")
    assert redirect.status == 302
    location = redirect.headers["Location"]
    assert urlsplit(location).netloc != urlsplit(graph.origin).netloc
    plain = await graph.call("GET", location, token=False)
    assert (plain.status, plain.data, plain.headers["Content-Type"]) == (200, data, "image/jpeg")
    assert (await graph.get(location)).status == 401


async def test_a_range_is_served_at_the_pre_authenticated_address(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", b"0123456789")).json
    url = item["@microsoft.graph.downloadUrl"]
    part = await graph.call("GET", url, headers={"Range": "bytes=2-4"}, token=False)
    assert (part.status, part.data, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    tail = await graph.call("GET", url, headers={"Range": "bytes=-3"}, token=False)
    assert (tail.status, tail.data) == (206, b"789")
    beyond = await graph.call("GET", url, headers={"Range": "bytes=20-"}, token=False)
    assert (beyond.status, beyond.code, beyond.headers["Content-Range"]) == (
        416,
        "invalidRange",
        "bytes */10",
    )
    unreadable = await graph.call("GET", url, headers={"Range": "lines=1-2"}, token=False)
    assert (unreadable.status, unreadable.data) == (200, b"0123456789")
    head = await graph.call("HEAD", url, token=False)
    assert (head.status, head.headers["Content-Length"], head.data) == (200, "10", b"")


async def test_a_neighbour_with_a_longer_name_is_never_sent_instead(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", b"photo")).json
    await graph.upload("a.jpg.gz", b"archive")
    reply = await graph.call("GET", item["@microsoft.graph.downloadUrl"], token=False)
    assert reply.data == b"photo"


async def test_a_pre_authenticated_address_cannot_be_altered_or_kept(graph: Graph) -> None:
    item = (await graph.upload("a.jpg")).json
    url = urlsplit(item["@microsoft.graph.downloadUrl"])
    query = dict(parse_qsl(url.query))
    longer = url._replace(query=urlencode(query | {"expires": str(int(time.time()) + 10**6)})).geturl()
    assert (await graph.call("GET", longer, token=False)).status == 401
    unsigned = url._replace(query="").geturl()
    assert (await graph.call("GET", unsigned, token=False)).status == 401


async def test_content_that_is_known_already_is_304(graph: Graph) -> None:
    item = (await graph.upload("a.jpg")).json
    path = f"{graph.drive}/items/{item['id']}"
    for tag in (item["eTag"], item["cTag"]):
        reply = await graph.get(f"{path}/content", headers={"If-None-Match": tag})
        assert (reply.status, reply.data) == (304, b"")


async def test_a_folder_has_no_content(graph: Graph) -> None:
    assert (await graph.get(f"{graph.drive}/root/content")).status == 400


async def test_folders_are_made_listed_and_not_made_twice(graph: Graph) -> None:
    body = {"name": "Seewen", "folder": {}, "@microsoft.graph.conflictBehavior": "fail"}
    made = await graph.call("POST", f"{graph.drive}/root/children", json=body)
    assert (made.status, made.json["folder"]) == (201, {"childCount": 0})
    again = await graph.call("POST", f"{graph.drive}/root/children", json=body)
    assert (again.status, again.code) == (409, "nameAlreadyExists")
    other = await graph.call(
        "POST", f"{graph.drive}/root/children", json=body | {"@microsoft.graph.conflictBehavior": "rename"}
    )
    assert other.json["name"] == "Seewen 1"


async def test_a_rename_keeps_the_item_and_moves_its_file(graph: Graph, folder: Path) -> None:
    item = (await graph.upload("old.jpg", b"bytes")).json
    path = f"{graph.drive}/items/{item['id']}"
    renamed = await graph.patch(path, {"name": "new.jpg"}, headers={"If-Match": item["eTag"]})
    assert (renamed.status, renamed.json["name"], renamed.json["id"]) == (200, "new.jpg", item["id"])
    assert renamed.json["cTag"] == item["cTag"]
    library = folder / "library" / "Referenzfotos"
    assert [path.name for path in library.iterdir()] == ["new.jpg"]
    stale = await graph.patch(path, {"name": "newer.jpg"}, headers={"If-Match": item["eTag"]})
    assert (stale.status, stale.code) == (412, "resourceModified")
    await graph.upload("taken.jpg")
    taken = await graph.patch(path, {"name": "TAKEN.jpg"})
    assert (taken.status, taken.code) == (409, "nameAlreadyExists")


async def test_a_move_into_itself_is_refused(graph: Graph) -> None:
    await graph.upload("a/b/c.jpg")
    outer = (await graph.get(f"{graph.drive}/root:/a")).json["id"]
    inner = (await graph.get(f"{graph.drive}/root:/a/b")).json["id"]
    reply = await graph.patch(f"{graph.drive}/items/{outer}", {"parentReference": {"id": inner}})
    assert (reply.status, reply.code) == (400, "invalidRequest")
    good = await graph.patch(f"{graph.drive}/root:/a/b/c.jpg", {"parentReference": {"id": outer}})
    assert good.status == 200
    assert (await graph.get(f"{graph.drive}/root:/a/c.jpg")).status == 200


async def test_deleting_takes_the_file_and_what_is_below(graph: Graph, folder: Path) -> None:
    await graph.upload("a/b.jpg")
    assert (await graph.call("DELETE", f"{graph.drive}/root:/a")).status == 204
    assert (await graph.get(f"{graph.drive}/root:/a/b.jpg")).status == 404
    assert list((folder / "library" / "Referenzfotos").iterdir()) == []
    assert (await graph.get(f"{LIBRARY}/items")).json["value"] == []


@pytest.fixture
def two_thousand(folder: Path) -> None:
    """The records of 2,000 photos, as they lie in the folder."""
    Store(folder).close()
    library = shipped.lists(strict=False)[0]
    content = Content(size=1, sha256="", quick_xor_hash="", media_type="image/jpeg")
    for number in range(1, 2_001):
        guid = stable_id("photo", str(number))
        item = Item(
            id=item_id(guid),
            guid=guid,
            kind="file",
            number=number,
            list_id=library.id,
            parent_id=library.root_id,
            name=f"{number:04}.jpg",
            fields={"Bauprojekt": "Halle", "Bauteil": ["Dach", "Fassade"]},
            content=content,
            created="2026-05-12T10:00:00Z",
            modified="2026-05-12T10:00:00Z",
        )
        (folder / "state" / "items" / f"{item.id}.json").write_bytes(msgspec.json.encode(item))


@pytest.mark.usefixtures("two_thousand")
async def test_two_thousand_items_are_no_burden(open_graph: Open) -> None:
    started = time.perf_counter()
    async with open_graph() as graph:
        assert time.perf_counter() - started < 2
        for request in (
            graph.upload("new.jpg"),
            graph.get(f"{graph.drive}/root/children?$top=200"),
            graph.get(f"{LIBRARY}/items?$top=200&$expand=fields"),
            graph.get(f"{graph.drive}/root/delta?$top=200"),
        ):
            started = time.perf_counter()
            assert (await request).status in (200, 201)
            assert time.perf_counter() - started < 1
