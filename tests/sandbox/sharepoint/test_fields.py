"""The values of list items: what may be written, in which form, and what comes back."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.sandbox.sharepoint.client import LIBRARY, Graph, Reply


async def photo(graph: Graph) -> str:
    """The address of a new photo's list item."""
    item = (await graph.upload("a.jpg")).json
    return f"{graph.drive}/items/{item['id']}/listItem"


async def test_every_writable_kind_of_value_comes_back(graph: Graph) -> None:
    row = await photo(graph)
    values: dict[str, Any] = {
        "Bauprojekt": "Seewen",
        "Bauphase": "Rohbau",
        "Bauteil@odata.type": "Collection(Edm.String)",
        "Bauteil": ["Dach", "Fassade"],
        "Geb_x00e4_udetyp": "Schulhaus",
        "Beschreibung": "Zwei\nZeilen",
        "Gepr_x00fc_ft": True,
        "Geschoss": 3,
        "ProjektakteLookupId": "2",
        "Importkennung": "k-1",
    }
    reply = await graph.patch(f"{row}/fields", values)
    assert reply.status == 200
    select = ",".join([name for name in values if "@" not in name] + ["Projektakte", "Author", "Ort"])
    read = (await graph.get(f"{row}/fields?$select={select}")).json
    expected = {name: value for name, value in values.items() if "@" not in name}
    assert {name: read[name] for name in expected} == expected
    assert isinstance(read["Geschoss"], float)
    assert read["Projektakte"] == "Schulhaus Brunnen"
    assert "Author" in read
    assert "Ort" not in read


async def test_a_patch_keeps_the_other_values_and_null_clears_one(graph: Graph) -> None:
    row = await photo(graph)
    await graph.patch(f"{row}/fields", {"Ort": "Goldau", "Bauprojekt": "Halle"})
    reply = await graph.patch(f"{row}/fields", {"Ort": None})
    assert reply.json["Bauprojekt"] == "Halle"
    assert "Ort" not in reply.json


async def test_values_are_defaulted_calculated_and_hidden_as_the_columns_say(graph: Graph) -> None:
    row = await photo(graph)
    reply = await graph.patch(f"{row}/fields", {"Bauprojekt": "Halle", "Ort": "Goldau", "Importkennung": "1"})
    assert reply.json["Gepr_x00fc_ft"] is False
    assert reply.json["Bildlegende"] == "Halle, Goldau"
    assert "Importkennung" not in reply.json
    assert reply.json["FileLeafRef"] == "a.jpg"


@pytest.mark.parametrize(
    "values",
    [
        {"Bauteil": ["Dach"]},
        {"Bauteil": ["Dach"], "Bauteil@odata.type": "Collection(Edm.Int32)"},
        {"Bauteil": "Dach", "Bauteil@odata.type": "Collection(Edm.String)"},
        {"Bauteil": [1], "Bauteil@odata.type": "Collection(Edm.String)"},
        {"Bauteil@odata.type": "Collection(Edm.String)"},
        {"Bauphase": ["Rohbau"]},
        {"Bauprojekt": 5},
        {"Bauprojekt": "x" * 256},
        {"Gepr_x00fc_ft": "ja"},
        {"Geschoss": "drei"},
        {"Geschoss": 61},
        {"Geschoss": True},
        {"Geschoss": 10**400},
        {"Aufnahmedatum": "gestern"},
        {"Aufnahmedatum": "9999-12-31T23:59:59Z"},
        {"Aufnahmedatum": "0001-01-01T00:00:00Z"},
        {"Projektakte": "Schulhaus Brunnen"},
        {"ProjektakteLookupId": 999},
        {"OrtLookupId": 1},
        {"Nichts": 1},
    ],
)
async def test_a_value_of_the_wrong_form_changes_nothing(graph: Graph, values: dict[str, Any]) -> None:
    row = await photo(graph)
    before = (await graph.get(f"{row}/fields")).json
    reply = await graph.patch(f"{row}/fields", {"Ort": "Goldau", **values})
    assert (reply.status, reply.code) == (400, "invalidRequest")
    assert (await graph.get(f"{row}/fields")).json == before
    assert [effect["effect"] for effect in await graph.effects()] == ["upload"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Bildlegende", "x"),
        ("Created", "2026-01-01T00:00:00Z"),
        ("Modified", "2026-01-01T00:00:00Z"),
        ("AuthorLookupId", "1"),
        ("_UIVersionString", "9.0"),
        ("FileSizeDisplay", "1"),
        ("ContentType", "Dokument"),
        ("Projektseite", {"Url": "https://example.com", "Description": "x"}),
        ("Projektseite", "https://example.com"),
    ],
)
async def test_columns_that_cannot_be_written_say_so(graph: Graph, name: str, value: object) -> None:
    row = await photo(graph)
    reply = await graph.patch(f"{row}/fields", {name: value})
    assert (reply.status, reply.code, reply.inner) == (400, "invalidRequest", "propertyNotUpdateable")


async def test_a_name_that_begins_with_an_umlaut_is_not_recognized(graph: Graph) -> None:
    await graph.admin(
        "PUT",
        "/lists/Referenzfotos/columns",
        {"name": "_x00c4_hnliche", "displayName": "Ähnliche", "text": {"maxLength": 255}},
    )
    row = await photo(graph)
    reply = await graph.patch(f"{row}/fields", {"_x00c4_hnliche": "x"})
    assert (reply.status, reply.code) == (400, "invalidRequest")
    assert reply.json["error"]["message"] == "Field '_x00c4_hnliche' is not recognized"


async def test_a_value_outside_the_choices_is_accepted(graph: Graph) -> None:
    row = await photo(graph)
    reply = await graph.patch(f"{row}/fields", {"Bauphase": "Luftschloss"})
    assert (reply.status, reply.json["Bauphase"]) == (200, "Luftschloss")


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2026-05-12T12:00:00Z", "2026-05-11T22:00:00Z"),
        ("2026-05-12T00:00:00Z", "2026-05-11T22:00:00Z"),
        ("2026-05-11T22:00:00Z", "2026-05-11T22:00:00Z"),
        ("2026-05-12T23:30:00+02:00", "2026-05-11T22:00:00Z"),
        ("2026-05-12T23:30:00Z", "2026-05-12T22:00:00Z"),
        ("2026-01-12", "2026-01-11T23:00:00Z"),
    ],
)
async def test_a_date_is_a_day_of_the_sites_zone(graph: Graph, sent: str, read: str) -> None:
    row = await photo(graph)
    reply = await graph.patch(f"{row}/fields", {"Aufnahmedatum": sent})
    assert reply.json["Aufnahmedatum"] == read


async def test_writing_values_changes_the_etag_and_not_the_ctag(graph: Graph) -> None:
    item = (await graph.upload("a.jpg")).json
    path = f"{graph.drive}/items/{item['id']}"
    patched = await graph.patch(f"{path}/listItem/fields", {"Ort": "Goldau"})
    now = (await graph.get(path)).json
    assert now["cTag"] == item["cTag"]
    assert now["eTag"] != item["eTag"]
    assert patched.json["@odata.etag"] == (await graph.get(f"{path}/listItem")).json["eTag"]


async def test_if_match_refuses_a_write_over_anothers(graph: Graph) -> None:
    row = await photo(graph)
    seen = (await graph.get(row)).json["eTag"]
    edited = await graph.admin("POST", "/edit", {"name": "a.jpg", "fields": {"Ort": "Brunnen"}})
    reply = await graph.patch(f"{row}/fields", {"Ort": "Goldau"}, headers={"If-Match": seen})
    assert (reply.status, reply.code) == (412, "resourceModified")
    again = await graph.patch(f"{row}/fields", {"Ort": "Goldau"}, headers={"If-Match": edited["etag"]})
    assert again.status == 200


async def test_a_persons_edit_is_told_apart_from_ours(graph: Graph) -> None:
    row = await photo(graph)
    await graph.patch(f"{row}/fields", {"Ort": "Goldau"})
    assert "application" in (await graph.get(row)).json["lastModifiedBy"]
    await graph.admin(
        "POST", "/edit", {"name": "a.jpg", "fields": {"Bauteil": ["Dach"]}, "person": "Planung"}
    )
    edited = (await graph.get(f"{row}?$expand=fields($select=Bauteil,Editor)")).json
    assert edited["lastModifiedBy"]["user"]["displayName"] == "Planung"
    assert edited["fields"]["Bauteil"] == ["Dach"]
    effect = (await graph.effects())[-1]
    assert (effect["by"], effect["fields"], effect["changed"]) == ("person", ["Bauteil"], ["Bauteil"])


async def test_the_log_tells_what_was_sent_and_what_changed(graph: Graph) -> None:
    row = await photo(graph)
    await graph.patch(f"{row}/fields", {"Ort": "Goldau"})
    await graph.patch(f"{row}/fields", {"Ort": "Goldau", "Bauprojekt": "Halle"})
    effect = (await graph.effects())[-1]
    assert (effect["fields"], effect["changed"]) == (["Ort", "Bauprojekt"], ["Bauprojekt"])


async def test_writing_the_file_name_renames(graph: Graph) -> None:
    row = await photo(graph)
    reply = await graph.patch(f"{row}/fields", {"FileLeafRef": "b.jpg", "Ort": "Goldau"})
    assert (reply.json["FileLeafRef"], reply.json["Ort"]) == ("b.jpg", "Goldau")
    assert (await graph.get(f"{graph.drive}/root:/b.jpg")).status == 200
    assert (await graph.get(f"{graph.drive}/root:/a.jpg")).status == 404


async def test_list_items_are_listed_with_fields_and_drive_items(graph: Graph) -> None:
    for number in range(3):
        await graph.upload(f"{number}.jpg")
    reply = await graph.get(
        f"{LIBRARY}/items?$top=2&$expand=fields($select=FileLeafRef),driveItem($select=id)"
    )
    rows = reply.json["value"]
    reply = await graph.get(reply.json["@odata.nextLink"])
    rows += reply.json["value"]
    assert [row["fields"]["FileLeafRef"] for row in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert all(row["driveItem"]["id"].startswith("01") for row in rows)
    assert "@odata.nextLink" not in reply.json


async def test_the_list_side_and_the_drive_side_are_one_item(graph: Graph) -> None:
    row = await photo(graph)
    number = (await graph.get(row)).json["id"]
    reply = await graph.patch(f"{LIBRARY}/items/{number}/fields", {"Ort": "Goldau"})
    assert reply.status == 200
    drive_item = (await graph.get(f"{LIBRARY}/items/{number}/driveItem")).json
    assert drive_item["name"] == "a.jpg"
    through_item = await graph.patch(f"{LIBRARY}/items/{number}", {"fields": {"Ort": "Brunnen"}})
    assert through_item.status == 200
    assert (await graph.get(f"{row}/fields")).json["Ort"] == "Brunnen"
    assert (await graph.get(f"{LIBRARY}/items/99")).status == 404
    assert (await graph.call("DELETE", f"{LIBRARY}/items/{number}")).status == 204


async def filtered(graph: Graph, text: str, prefer: str = "") -> Reply:
    """The list's items under a filter."""
    return await graph.get(f"{LIBRARY}/items?$filter={quote(text)}", headers={"Prefer": prefer})


async def test_a_filter_needs_an_indexed_column_or_the_prefer_header(graph: Graph) -> None:
    row = await photo(graph)
    await graph.patch(f"{row}/fields", {"Bauprojekt": "Halle", "Ort": "Goldau"})
    assert len((await filtered(graph, "fields/Bauprojekt eq 'Halle'")).json["value"]) == 1
    assert (await filtered(graph, "startswith(fields/Bauprojekt,'Haus')")).json["value"] == []
    refused = await filtered(graph, "fields/Ort eq 'Goldau'")
    assert (refused.status, refused.code) == (400, "invalidRequest")
    asked = await filtered(graph, "fields/Ort eq 'Goldau'", "HonorNonIndexedQueriesWarningMayFailRandomly")
    assert len(asked.json["value"]) == 1
    assert (await filtered(graph, "fields/Ort gt 'x'")).status == 400


async def test_more_than_twelve_lookups_in_a_query_are_refused(graph: Graph) -> None:
    names = [f"P{number}" for number in range(13)]
    for name in names:
        await graph.admin("PUT", "/lists/Referenzfotos/columns", {"name": name, "personOrGroup": {}})
    row = await photo(graph)
    assert (await graph.get(f"{row}/fields?$select={','.join(names[:12])}")).status == 200
    assert (await graph.get(f"{row}/fields?$select={','.join(names)}")).status == 400
