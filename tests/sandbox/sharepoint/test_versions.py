"""Versions, check-out, drafts, approval and computed defaults, as a library's owner sets them up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sandbox.sharepoint.client import Graph


async def set_up(graph: Graph, **settings: object) -> None:
    await graph.admin("PUT", "/lists/Referenzfotos/settings", settings)


async def publication(graph: Graph, item: dict[str, Any]) -> dict[str, Any]:
    reply = await graph.get(f"{graph.drive}/items/{item['id']}?$select=id,publication")
    found: dict[str, Any] = reply.json["publication"]
    return found


async def test_every_change_is_a_version_with_its_author_the_newest_first(graph: Graph) -> None:
    """Source: "Listing versions of a ListItem"; ``$expand=fields`` as in microsoft-graph-docs issue 5754."""
    item = (await graph.upload("a.jpg")).json
    row = f"{graph.drive}/items/{item['id']}/listItem"
    await graph.patch(f"{row}/fields", {"Ort": "Goldau"})
    await graph.admin("POST", "/edit", {"item_id": item["id"], "fields": {"Ort": "Seewen"}})
    versions = (await graph.get(f"{row}/versions?$expand=fields")).json["value"]
    assert [(each["id"], each["fields"].get("Ort")) for each in versions] == [
        ("3.0", "Seewen"),
        ("2.0", "Goldau"),
        ("1.0", None),
    ]
    assert ["application" in each["lastModifiedBy"] for each in versions] == [False, True, True]
    plain = (await graph.get(f"{row}/versions")).json["value"]
    assert all("fields" not in each for each in plain)


async def test_a_library_without_versions_has_the_current_one_alone(graph: Graph) -> None:
    await set_up(graph, versions=False)
    item = (await graph.upload("a.jpg")).json
    row = f"{graph.drive}/items/{item['id']}/listItem"
    await graph.patch(f"{row}/fields", {"Ort": "Goldau"})
    versions = (await graph.get(f"{row}/versions?$expand=fields")).json["value"]
    assert [(each["id"], each["fields"]["Ort"]) for each in versions] == [("1.0", "Goldau")]


async def test_publication_is_shown_only_if_it_is_selected(graph: Graph) -> None:
    """Source: driveItem resource type, "publication: … This property isn't returned by default"."""
    item = (await graph.upload("a.jpg")).json
    assert "publication" not in item
    assert await publication(graph, item) == {"level": "published", "versionId": "1.0"}


async def test_where_check_out_is_required_a_new_file_is_checked_out_until_it_is_checked_in(
    graph: Graph,
) -> None:
    """Sources: "driveItem: checkin", publicationFacet resource type."""
    await set_up(graph, requires_checkout=True)
    item = (await graph.upload("a.jpg")).json
    place = f"{graph.drive}/items/{item['id']}"
    found = await publication(graph, item)
    assert (found["level"], found["versionId"]) == ("checkout", "0.1")
    assert (await graph.patch(f"{place}/listItem/fields", {"Ort": "Goldau"})).status == 200
    checked_in = await graph.call("POST", f"{place}/checkin", json={"comment": "x"})
    assert (checked_in.status, checked_in.data) == (204, b"")
    assert await publication(graph, item) == {"level": "published", "versionId": "1.0"}
    locked = await graph.patch(f"{place}/listItem/fields", {"Ort": "Seewen"})
    assert locked.status == 423
    assert (await graph.call("POST", f"{place}/checkout")).status == 204
    assert (await graph.patch(f"{place}/listItem/fields", {"Ort": "Seewen"})).status == 200
    wrong = await graph.call("POST", f"{place}/checkin", json={"checkInAs": "draft"})
    assert wrong.status == 400


async def test_a_file_that_is_not_checked_out_cannot_be_checked_in(graph: Graph) -> None:
    """Source of the sentence: msgraph-sdk-dotnet issue 628."""
    item = (await graph.upload("a.jpg")).json
    reply = await graph.call("POST", f"{graph.drive}/items/{item['id']}/checkin", json={})
    assert reply.status == 400
    assert reply.json["error"]["message"] == "The file is not checked out."


async def test_a_discarded_check_out_takes_back_what_was_written_in_it(graph: Graph) -> None:
    """Source: "driveItem: discardCheckout"."""
    item = (await graph.upload("a.jpg")).json
    place = f"{graph.drive}/items/{item['id']}"
    await graph.patch(f"{place}/listItem/fields", {"Ort": "Goldau"})
    await graph.call("POST", f"{place}/checkout")
    await graph.patch(f"{place}/listItem/fields", {"Ort": "Seewen"})
    reply = await graph.call("POST", f"{place}/discardCheckout")
    assert (reply.status, reply.data) == (204, b"")
    assert await publication(graph, item) == {"level": "published", "versionId": "2.0"}
    assert (await graph.get(f"{place}/listItem/fields")).json["Ort"] == "Goldau"
    versions = (await graph.get(f"{place}/listItem/versions?$expand=fields")).json["value"]
    assert [each["fields"].get("Ort") for each in versions] == ["Goldau", None]
    assert (await graph.call("POST", f"{place}/discardCheckout")).status == 400


async def test_drafts_are_published_by_a_check_in_as_published(graph: Graph) -> None:
    """Source: "driveItem: checkin", ``checkInAs``."""
    await set_up(graph, minor_versions=True)
    item = (await graph.upload("a.jpg")).json
    place = f"{graph.drive}/items/{item['id']}"
    reply = await graph.patch(f"{place}/listItem/fields", {"Ort": "Goldau"})
    assert reply.json["_UIVersionString"] == "0.2"
    await graph.call("POST", f"{place}/checkout")
    await graph.call("POST", f"{place}/checkin", json={"checkInAs": "published"})
    assert await publication(graph, item) == {"level": "published", "versionId": "1.0"}
    assert (await graph.get(f"{place}/listItem/fields")).json["Ort"] == "Goldau"


async def test_what_waits_for_approval_may_be_hidden_from_the_app(graph: Graph) -> None:
    """Source: microsoft-graph-docs pull request 10153."""
    await set_up(graph, approval=True)
    item = (await graph.upload("a.jpg")).json
    place = f"{graph.drive}/items/{item['id']}"
    assert (await graph.get(f"{place}/listItem/fields")).json["_ModerationStatus"] == 2
    assert (await graph.get(place)).status == 200
    await set_up(graph, approval=True, hides_unapproved=True)
    assert (await graph.get(place)).status == 404


async def test_defaults_are_computed_when_the_file_arrives(graph: Graph) -> None:
    """Source: columnDefinition resource type, defaultColumnValue (``value`` or ``formula``)."""
    columns: list[dict[str, Any]] = [
        {"name": "Heute", "dateTime": {"format": "dateTime"}, "defaultValue": {"formula": "=[today]"}},
        {
            "name": "Teile",
            "choice": {"displayAs": "checkBoxes", "choices": ["Dach", "Wand"]},
            "defaultValue": {"value": "Dach;#Wand"},
        },
        {"name": "Zahl", "number": {}, "defaultValue": {"value": "3"}},
    ]
    for column in columns:
        await graph.admin("PUT", "/lists/Referenzfotos/columns", column)
    await set_up(graph, title_from_file=True)
    item = (await graph.upload("a.jpg")).json
    fields = (await graph.get(f"{graph.drive}/items/{item['id']}/listItem/fields")).json
    assert fields["Heute"][:10] == datetime.now(UTC).date().isoformat()
    assert (fields["Teile"], fields["Zahl"], fields["Title"]) == (["Dach", "Wand"], 3.0, "a")
