"""Refusals of fields, answer by answer; the rest about writing is in test_filing and its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from events.identities import PhotoId, Sha256
from events.types import LibraryRef
from shared.columns.schema import Column, LibrarySchema
from shared.photo_store import BlobStore
from shared.retry.errors import PermanentError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.items import Item
from shared.sharepoint.notes import Memory
from shared.sharepoint.writing import FieldsRefusedError, FieldWriter
from tests.shared.sharepoint.stub import Reply, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from events.types import FieldText
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.writing import Written
    from tests.shared.sharepoint.stub import Stub

FIELDS = "/v1.0/drives/d/items/1/listItem/fields"
LIBRARY = LibraryRef(site_id="s", list_id="l", drive_id="d", site="/sites/Bau", library="Fotos", web_url="")
SCHEMA = LibrarySchema(
    library="Fotos",
    columns=tuple(
        Column(name=name, display_name=f"Spalte {name}", kind="text")
        for name in ("A", "B", "C", "_x00c4_hnliche")
    ),
)
ITEM = Item(
    item_id="1",
    name="a.jpg",
    size=1,
    web_url="",
    etag="e1",
    fields_etag='"f,1"',
    quick_xor_hash="h",
    fields={},
    touched_by_person=False,
)


@pytest.fixture
def written(client: GraphClient, tmp_path: Path) -> Writer:
    return Writer(client, BlobStore(str(tmp_path)))


class Writer:
    """Writes fields to the one item."""

    def __init__(self, client: GraphClient, store: BlobStore) -> None:
        self._writer = FieldWriter(client)
        self._memory = Memory(store)

    async def __call__(
        self, fields: dict[str, FieldText], *, picture: str = "0", one_by_one: bool = False
    ) -> Written:
        recall, _ = await self._memory.recall(LIBRARY, Sha256(picture), name="a.jpg", photo_id=PhotoId("p"))
        return await self._writer.write(
            LIBRARY, SCHEMA, ITEM, fields, recall, photo_id="p", quick_xor_hash="h", one_by_one=one_by_one
        )


def accepted(number: int) -> Reply:
    return Reply(body={"@odata.etag": f'"f,{number}"', "id": "1"})


async def test_one_write_carries_all_fields_and_the_state_it_was_decided_on(
    graph: Stub, written: Writer
) -> None:
    graph.on("PATCH", FIELDS, accepted(2))
    result = await written({"A": "1", "B": "2", "C": None})
    [asked] = graph.calls("PATCH")
    assert (asked.json, asked.headers["If-Match"]) == ({"A": "1", "B": "2"}, '"f,1"')
    assert (result.sent, result.etag) == (("A", "B"), '"f,2"')


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "invalidRequest", message="Invalid request"),
        refusal(400, "generalException"),
        refusal(400, "invalidRequest", "propertyNotUpdateable"),
    ],
)
async def test_a_refusal_of_all_is_told_apart(graph: Stub, written: Writer, answer: Reply) -> None:
    graph.on("PATCH", FIELDS, answer)
    with pytest.raises(FieldsRefusedError):
        await written({"A": "1", "B": "2"})


async def test_one_by_one_the_refused_column_is_named_and_the_others_are_written(
    graph: Stub, written: Writer
) -> None:
    graph.on("PATCH", FIELDS, accepted(2), refusal(400, "invalidRequest", message="too long"), accepted(3))
    with pytest.raises(
        PermanentError, match=r"refuses the column 'Spalte B' \(B\): .*400 invalidRequest \(too long\)"
    ):
        await written({"A": "1", "B": "2", "C": "3"}, one_by_one=True)
    asked = graph.calls("PATCH")
    assert [each.json for each in asked] == [{"A": "1"}, {"B": "2"}, {"C": "3"}]
    assert [each.headers["If-Match"] for each in asked] == ['"f,1"', '"f,2"', '"f,2"']


async def test_what_passes_one_by_one_is_written(graph: Stub, written: Writer) -> None:
    graph.on("PATCH", FIELDS, accepted(2), accepted(3))
    assert (await written({"A": "1", "B": "2"}, one_by_one=True)).sent == ("A", "B")


async def test_a_limit_of_graphs_is_learned_once(graph: Stub, written: Writer) -> None:
    fields: dict[str, FieldText] = {"A": "1", "_x00c4_hnliche": "2"}
    unknown = refusal(400, "invalidRequest", message="Field '_x00c4_hnliche' is not recognized")
    graph.on("PATCH", FIELDS, unknown, accepted(2), unknown, unknown, accepted(3))
    with pytest.raises(FieldsRefusedError):
        await written(fields)
    result = await written(fields, one_by_one=True)
    assert (result.sent, result.refused) == (("A",), ("_x00c4_hnliche",))
    result = await written(fields, picture="1")
    assert graph.calls("PATCH")[-1].json == {"A": "1"}
    assert result.refused == ("_x00c4_hnliche",)


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_other_refusals_pass_through(graph: Stub, written: Writer, status: int) -> None:
    graph.on("PATCH", FIELDS, refusal(status, "x"))
    with pytest.raises(GraphError) as caught:
        await written({"A": "1"})
    assert caught.value.status == status
