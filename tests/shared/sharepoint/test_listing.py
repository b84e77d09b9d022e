from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shared.photo_store import BlobStore
from shared.retry.errors import TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.listing import Watch, changes
from tests.shared.sharepoint.stub import Reply, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from shared.sharepoint.client import GraphClient
    from tests.shared.sharepoint.desk import Desk
    from tests.shared.sharepoint.stub import Stub

DELTA = "/v1.0/drives/d/root/delta"


def item(number: int, version: str = "h", **more: object) -> dict[str, object]:
    """A file as delta tells of it."""
    return {
        "id": f"i{number}",
        "name": f"{number}.jpg",
        "size": number,
        "cTag": f"c{number}",
        "file": {"mimeType": "image/jpeg", "hashes": {"quickXorHash": version}},
        "parentReference": {"driveId": "d", "path": "/drives/d/root:/2024/Mai"},
    } | more


def last(graph: Stub, *items: object, token: str = "end") -> Reply:
    return Reply(body={"value": items, "@odata.deltaLink": f"{graph.url}{DELTA}?token={token}"})


async def test_pages_are_followed_and_the_last_word_on_an_item_counts(
    graph: Stub, client: GraphClient
) -> None:
    graph.on("GET", DELTA, Reply(
        body={
            "value": [item(1, "old"), item(2), {"id": "f", "name": "Mai", "folder": {}}, item(3)],
            "@odata.nextLink": f"{graph.url}/v1.0/page2",
        }
    ))  # fmt: skip
    graph.on("GET", "/v1.0/page2", last(graph, item(1, "new"), {"id": "i3", "deleted": {"state": "deleted"}}))
    found = await changes(client, "d")
    assert [(entry.item_id, entry.version) for entry in found.entries] == [("i2", "h"), ("i1", "new")]
    assert found.deleted == {"i3"}
    assert found.complete
    assert found.delta_link.endswith("token=end")
    entry = found.entries[0]
    assert (entry.path, entry.source_url) == ("2024/Mai/2.jpg", "sharepoint:d/i2")


async def test_it_goes_on_where_it_was(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", DELTA, last(graph))
    found = await changes(client, "d", f"{graph.url}{DELTA}?token=before")
    assert not found.complete
    assert graph.calls("GET", DELTA)[0].path.endswith("?token=before")


@pytest.mark.parametrize("with_location", ["", "/v1.0/anew"])
async def test_a_forgotten_token_begins_again(graph: Stub, client: GraphClient, with_location: str) -> None:
    where = {"Location": graph.url + with_location} if with_location else {}
    gone = refusal(410, "resyncRequired", "resyncChangesApplyDifferences", **where)
    graph.on("GET", "/v1.0/old", gone)
    graph.on("GET", with_location or DELTA, last(graph, item(1)))
    found = await changes(client, "d", f"{graph.url}/v1.0/old")
    assert found.complete
    assert [entry.item_id for entry in found.entries] == ["i1"]


async def test_beginning_again_ends(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", DELTA, refusal(410, "resyncRequired"))
    with pytest.raises(TransientError, match="begin again"):
        await changes(client, "d")
    graph.on("GET", DELTA, refusal(403, "accessDenied"))
    with pytest.raises(GraphError):
        await changes(client, "d")


@pytest.mark.parametrize("body", [{"value": []}, {"value": [{"name": "no id"}]}, {"value": 3}])
async def test_an_answer_that_leads_nowhere_is_transient(
    graph: Stub, client: GraphClient, body: object
) -> None:
    graph.on("GET", DELTA, Reply(body=body))
    with pytest.raises(TransientError):
        await changes(client, "d")


async def test_a_file_without_hash_or_path_is_listed_too(graph: Stub, client: GraphClient) -> None:
    graph.on("GET", DELTA, last(graph, item(1, file={}, parentReference=None)))
    [entry] = (await changes(client, "d")).entries
    assert (entry.version, entry.path, entry.media_type, entry.is_photo) == ("c1", "", "", False)


async def test_a_watch_hands_over_each_photo_once(graph: Stub, client: GraphClient, tmp_path: Path) -> None:
    watch = Watch(client, BlobStore(str(tmp_path)), "d")
    pdf = item(9, file={"mimeType": "application/pdf"})
    graph.on("GET", DELTA, last(graph, item(1), item(2), pdf, token="1"))
    assert [entry.item_id for entry in await watch.look()] == ["i1", "i2"]
    # who dies before `keep` finds them again
    assert [entry.item_id for entry in await Watch(client, BlobStore(str(tmp_path)), "d").look()] == [
        "i1",
        "i2",
    ]
    await watch.keep()
    graph.on("GET", DELTA, last(graph, item(1), item(2, "other bytes"), item(3), token="2"))
    assert [entry.item_id for entry in await watch.look()] == ["i2", "i3"]
    assert graph.calls("GET", DELTA)[-1].path.endswith("token=1")
    await watch.keep()
    graph.on("GET", DELTA, last(graph))
    assert await watch.look() == []


async def test_a_photo_that_came_back_is_new(graph: Stub, client: GraphClient, tmp_path: Path) -> None:
    watch = Watch(client, BlobStore(str(tmp_path)), "d")
    for found in (item(1), item(1, deleted={}), item(1)):
        graph.on("GET", DELTA, last(graph, found))
        photos = await watch.look()
        await watch.keep()
        assert [entry.item_id for entry in photos] == ([] if "deleted" in found else ["i1"])


async def test_what_was_seen_and_cannot_be_read_lists_all(
    graph: Stub, client: GraphClient, tmp_path: Path
) -> None:
    store = BlobStore(str(tmp_path))
    await store.put("sharepoint/d/seen.json", b"{half")
    graph.on("GET", DELTA, last(graph, item(1)))
    assert len(await Watch(client, store, "d").look()) == 1


async def test_our_own_writing_of_fields_makes_no_photo_new(desk: Desk) -> None:
    watch = Watch(desk.client, desk.store, desk.library.drive_id)
    data = os.urandom(2_000)
    filed = await desk.filing.file(await desk.photo({"Ort": "Seewen"}, data))
    assert filed.item.item_id in [entry.item_id for entry in await watch.look()]
    await watch.keep()
    await desk.filing.file(await desk.photo({"Ort": "Brunnen"}, data, photo_id="p-2"))
    assert filed.item.item_id not in [entry.item_id for entry in await watch.look()]
