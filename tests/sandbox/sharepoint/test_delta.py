"""What changed in a library since a token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sharepoint.model import timestamp

if TYPE_CHECKING:
    from tests.sandbox.sharepoint.client import Graph, Reply


async def read_all(graph: Graph, address: str) -> tuple[list[dict[str, Any]], str]:
    """All pages from an address on; the rows and the delta link at the end."""
    rows: list[dict[str, Any]] = []
    while True:
        reply = await graph.get(address)
        assert reply.status == 200, reply.data
        rows += reply.json["value"]
        if "@odata.deltaLink" in reply.json:
            return rows, reply.json["@odata.deltaLink"]
        address = reply.json["@odata.nextLink"]


def names(rows: list[dict[str, Any]]) -> list[str]:
    """The names of the rows; of deleted ones there is none."""
    return [row.get("name", "-") for row in rows]


async def test_without_a_token_everything_comes_in_pages_and_then_only_changes(graph: Graph) -> None:
    for number in range(5):
        await graph.upload(f"{number}.jpg")
    rows, link = await read_all(graph, f"{graph.drive}/root/delta?$top=2")
    assert names(rows) == ["root", "0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    rows, link = await read_all(graph, link)
    assert rows == []
    await graph.patch(f"{graph.drive}/root:/1.jpg:/listItem/fields", {"Ort": "Goldau"})
    await graph.upload("new.jpg")
    rows, link = await read_all(graph, link)
    assert names(rows) == ["1.jpg", "new.jpg"]


async def test_a_deleted_item_comes_with_the_deleted_facet(graph: Graph) -> None:
    item = (await graph.upload("a.jpg")).json
    _, link = await read_all(graph, f"{graph.drive}/root/delta")
    await graph.call("DELETE", f"{graph.drive}/items/{item['id']}")
    rows, _ = await read_all(graph, link)
    assert [(row["id"], row["deleted"]) for row in rows] == [(item["id"], {"state": "deleted"})]
    rows, _ = await read_all(graph, f"{graph.drive}/root/delta")
    assert names(rows) == ["root"]


async def test_an_item_changed_while_pages_are_read_comes_again(graph: Graph) -> None:
    for number in range(3):
        await graph.upload(f"{number}.jpg")
    first = (await graph.get(f"{graph.drive}/root/delta?$top=2")).json
    await graph.upload("0.jpg", b"changed")
    rest, _ = await read_all(graph, first["@odata.nextLink"])
    assert names(first["value"] + rest) == ["root", "0.jpg", "1.jpg", "2.jpg", "0.jpg"]


@pytest.mark.parametrize("form", ["delta?token=latest", "delta(token='latest')", "delta%28token='latest'%29"])
async def test_latest_gives_a_link_and_no_items(graph: Graph, form: str) -> None:
    await graph.upload("a.jpg")
    rows, link = await read_all(graph, f"{graph.drive}/root/{form}")
    assert rows == []
    await graph.upload("b.jpg")
    assert names((await read_all(graph, link))[0]) == ["b.jpg"]


async def test_a_time_is_a_token(graph: Graph) -> None:
    await graph.upload("a.jpg")
    before, after = timestamp(time.time() - 60), timestamp(time.time() + 60)
    assert (
        names((await read_all(graph, f"{graph.drive}/root/delta?token={before}"))[0]) == ["root", "a.jpg"][1:]
    )
    assert (await read_all(graph, f"{graph.drive}/root/delta(token='{after}')"))[0] == []


async def test_a_token_that_is_too_old_is_410_with_the_way_to_begin_anew(graph: Graph) -> None:
    await graph.upload("a.jpg")
    _, link = await read_all(graph, f"{graph.drive}/root/delta")
    await graph.admin("POST", "/expire/delta")
    gone: Reply = await graph.get(link)
    assert (gone.status, gone.code, gone.inner) == (410, "resyncRequired", "resyncChangesApplyDifferences")
    rows, _ = await read_all(graph, gone.headers["Location"])
    assert names(rows) == ["root", "a.jpg"]


@pytest.mark.parametrize("token", ["nonsense", "e30", "2026-99-99T00:00:00Z"])
async def test_a_made_up_token_is_refused(graph: Graph, token: str) -> None:
    reply = await graph.get(f"{graph.drive}/root/delta?token={token}")
    assert (reply.status, reply.code) == (400, "invalidRequest")


async def test_delta_is_of_the_whole_drive_only(graph: Graph) -> None:
    await graph.upload("x/a.jpg")
    assert (await graph.get(f"{graph.drive}/root:/x:/delta")).status == 400
