"""What Graph refuses and a lenient stand-in would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sandbox.sharepoint.client import LIBRARY

if TYPE_CHECKING:
    from tests.sandbox.sharepoint.client import Graph


@pytest.mark.parametrize(
    "path",
    [
        "{drive}/root:/a.jpg?$select=id,nothing",
        "{drive}/root:/a.jpg?$expand=listItem($select=nothing)",
        "{library}/columns?$select=id,nothing",
        "/sites/localhost:/sites/Bau:/lists?$select=nothing",
    ],
)
async def test_a_selected_property_must_exist(graph: Graph, path: str) -> None:
    """Source: OData 4.01 part 2, section 5.1.4; Graph: "Could not find a property named …"."""
    await graph.upload("a.jpg")
    reply = await graph.get(path.format(drive=graph.drive, library=LIBRARY))
    assert (reply.status, reply.code) == (400, "invalidRequest")
    assert "Could not find a property named 'nothing'" in reply.json["error"]["message"]


@pytest.mark.parametrize("body", [{"itme": {}}, {"item": {"size": 3}}])
async def test_an_upload_session_takes_known_properties_alone(graph: Graph, body: object) -> None:
    """Source: driveItemUploadableProperties resource type."""
    reply = await graph.call("POST", f"{graph.drive}/root:/a.jpg:/createUploadSession", json=body)
    assert (reply.status, reply.code) == (400, "invalidRequest")


async def test_a_patch_says_that_it_is_json(graph: Graph) -> None:
    """Source: "Use the Microsoft Graph API", request headers (Content-Type)."""
    item = (await graph.upload("a.jpg")).json
    path = f"{graph.drive}/items/{item['id']}/listItem/fields"
    for headers in ({}, {"Content-Type": "text/plain"}):
        reply = await graph.call("PATCH", path, data=b'{"Ort": "Goldau"}', headers=headers)
        assert reply.status == 400
    json = {"Content-Type": "application/json; charset=utf-8"}
    assert (await graph.call("PATCH", path, data=b'{"Ort": "Goldau"}', headers=json)).status == 200


async def test_items_are_ordered_by_indexed_columns_alone(graph: Graph) -> None:
    """Source: "List items": an index, or the Prefer header, as for a filter."""
    for name, project in (("a.jpg", "B"), ("b.jpg", "A")):
        item = (await graph.upload(name)).json
        await graph.patch(f"{graph.drive}/items/{item['id']}/listItem/fields", {"Bauprojekt": project})
    refused = await graph.get(f"{LIBRARY}/items?$orderby=fields/Ort")
    assert refused.status == 400
    ordered = await graph.get(f"{LIBRARY}/items?$orderby=fields/Bauprojekt&$expand=fields")
    assert [row["fields"]["Bauprojekt"] for row in ordered.json["value"]] == ["A", "B"]


async def test_skip_is_refused(graph: Graph) -> None:
    """Source: "Paging Microsoft Graph data": some resources page by their links alone."""
    for path in (f"{LIBRARY}/items", f"{graph.drive}/root/children"):
        assert (await graph.get(f"{path}?$skip=1")).status == 400


async def test_values_must_be_unique_and_valid_where_the_column_wants_it(graph: Graph) -> None:
    """Source of the first sentence: msgraph-sdk-dotnet issue 790."""
    for column in (
        {"name": "Nummer", "text": {}, "enforceUniqueValues": True},
        {"name": "Kuerzel", "text": {}, "validation": "-"},
    ):
        await graph.admin("PUT", "/lists/Referenzfotos/columns", column)
    paths = [
        f"{graph.drive}/items/{(await graph.upload(name)).json['id']}/listItem/fields"
        for name in ("a.jpg", "b.jpg")
    ]
    assert (await graph.patch(paths[0], {"Nummer": "7"})).status == 200
    taken = await graph.patch(paths[1], {"Nummer": "7"})
    assert (taken.status, "unique constraints" in taken.json["error"]["message"]) == (400, True)
    assert (await graph.patch(paths[0], {"Nummer": "7", "Kuerzel": "a-b"})).status == 200
    assert (await graph.patch(paths[0], {"Kuerzel": "ab"})).status == 400


async def test_a_rich_note_is_wrapped_and_names_with_an_underscore_are_special(graph: Graph) -> None:
    """Sources: microsoft-graph-docs-contrib issue 7829 (names), 63999 characters of HTML in rich text."""
    for column in (
        {"name": "Text", "text": {"allowMultipleLines": True, "textType": "richText"}},
        {"name": "_x00c4_hnliche", "text": {}},
    ):
        await graph.admin("PUT", "/lists/Referenzfotos/columns", column)
    path = f"{graph.drive}/items/{(await graph.upload('a.jpg')).json['id']}/listItem/fields"
    read = (await graph.patch(path, {"Text": "a\nb"})).json["Text"]
    assert (read.startswith("<div class="), read.endswith(">a b</div>")) == (True, True)
    assert (await graph.patch(path, {"_x00c4_hnliche": "x"})).status == 400
    assert (await graph.patch(path, {"OData__x00c4_hnliche": "x"})).status == 400
    await graph.admin("PUT", "/lists/Referenzfotos/settings", {"odata_names": True})
    assert (await graph.patch(path, {"OData__x00c4_hnliche": "x"})).json["OData__x00c4_hnliche"] == "x"
