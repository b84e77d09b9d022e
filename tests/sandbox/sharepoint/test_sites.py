"""Sites, lists, drives and columns."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.sandbox.sharepoint.client import LIBRARY, SITE, Graph

FACETS = {
    "text",
    "choice",
    "number",
    "dateTime",
    "boolean",
    "lookup",
    "personOrGroup",
    "calculated",
    "currency",
    "geolocation",
    "hyperlinkOrPicture",
    "term",
    "thumbnail",
}


async def columns(graph: Graph, query: str = "") -> dict[str, dict[str, object]]:
    """The photo library's columns by name."""
    reply = await graph.get(f"{LIBRARY}/columns{query}")
    return {column["name"]: column for column in reply.json["value"]}


async def test_a_site_is_found_by_its_path_and_by_its_id(graph: Graph) -> None:
    by_path = await graph.get(SITE)
    assert by_path.status == 200
    host, collection, web = by_path.json["id"].split(",")
    assert host == "localhost"
    for address in (by_path.json["id"], f"{collection},{web}", "root:/sites/Bau", "localhost:/sites/Bau:"):
        assert (await graph.get(f"/sites/{address}")).json["id"] == by_path.json["id"]


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("localhost:/sites/Nirgends", 404, "itemNotFound"),
        ("elsewhere.sharepoint.com:/sites/Bau", 400, "invalidRequest"),
        ("localhost,0,0", 404, "itemNotFound"),
    ],
)
async def test_another_site_is_not_found(graph: Graph, address: str, status: int, code: str) -> None:
    reply = await graph.get(f"/sites/{address}")
    assert (reply.status, reply.code) == (status, code)


async def test_lists_are_filtered_by_display_name(graph: Graph) -> None:
    everything = await graph.get(f"{SITE}:/lists")
    assert {row["displayName"] for row in everything.json["value"]} >= {"Referenzfotos", "Dokumente"}
    one = await graph.get(f"{SITE}:/lists?$filter={quote('displayName eq ')}'Referenzfotos'")
    assert [row["list"]["template"] for row in one.json["value"]] == ["documentLibrary"]
    none = await graph.get(f"{SITE}:/lists?$filter={quote('displayName eq ')}'O''Neill'")
    assert none.json["value"] == []


async def test_a_library_and_its_drive_lead_to_each_other(graph: Graph) -> None:
    record = (await graph.get(LIBRARY)).json
    drive = (await graph.get(f"{SITE}:/lists/{record['id']}/drive")).json
    assert drive["driveType"] == "documentLibrary"
    assert (await graph.get(f"/drives/{drive['id']}/list")).json["id"] == record["id"]
    drives = (await graph.get(f"{SITE}:/drives")).json["value"]
    assert drive["id"] in [row["id"] for row in drives]


async def test_an_unknown_list_and_an_unknown_segment_are_refused(graph: Graph) -> None:
    missing = await graph.get(f"{SITE}:/lists/Nichts")
    assert (missing.status, missing.code) == (404, "itemNotFound")
    odd = await graph.get(f"{LIBRARY}/nonsense")
    assert (odd.status, odd.code) == (400, "invalidRequest")
    wrong_method = await graph.call("DELETE", f"{LIBRARY}/columns")
    assert wrong_method.status == 405


async def test_hidden_columns_come_only_if_select_names_hidden(graph: Graph) -> None:
    assert "Importkennung" not in await columns(graph)
    shown = await columns(graph, "?$select=name,hidden")
    assert shown["Importkennung"] == {"name": "Importkennung", "hidden": True}
    assert "Importkennung" not in await columns(graph, "?$select=name")


async def test_every_column_has_one_facet_but_those_that_v1_does_not_know(graph: Graph) -> None:
    found = await columns(graph)
    without = [name for name, column in found.items() if not FACETS & column.keys()]
    assert without == ["Projektseite"]
    assert all(len(FACETS & column.keys()) == 1 for name, column in found.items() if name not in without)


async def test_the_shipped_columns_are_what_a_timber_builder_has(graph: Graph) -> None:
    found = await columns(graph)
    assert found["Bauprojekt"]["required"] is True
    assert found["Geb_x00e4_udetyp"]["displayName"] == "Gebäudetyp"
    assert found["Qualit_x00e4_t"]["choice"] == {
        "allowTextEntry": False,
        "choices": ["gut", "mittel", "schlecht", "Prüfen"],
        "displayAs": "dropDownMenu",
    }
    for name in ("Bauteil", "Schlagworte"):
        choice = found[name]["choice"]
        assert isinstance(choice, dict)
        assert choice["displayAs"] == "checkBoxes"
        assert "Prüfen" in choice["choices"]
    assert found["Aufnahmedatum"]["dateTime"] == {"displayAs": "standard", "format": "dateOnly"}
    assert found["Bildlegende"]["readOnly"] is True


async def test_an_administrator_can_add_change_and_remove_columns(graph: Graph) -> None:
    column = {"name": "Los", "displayName": "Los", "number": {"minimum": 1}, "required": True}
    await graph.admin("PUT", "/lists/Referenzfotos/columns", column)
    assert (await columns(graph))["Los"]["number"] == {"minimum": 1}
    await graph.admin("PUT", "/lists/Referenzfotos/columns", {"name": "Los", "term": {}})
    assert "term" not in (await columns(graph))["Los"]
    await graph.admin("DELETE", "/lists/Referenzfotos/columns/Los")
    assert "Los" not in await columns(graph)


async def test_an_administrator_can_add_a_library(graph: Graph) -> None:
    await graph.admin(
        "POST", "/lists", {"displayName": "Baustelle Süd", "columns": [{"name": "A", "text": {}}]}
    )
    names = {row["name"] for row in (await graph.get(f"{SITE}:/drives")).json["value"]}
    assert "Baustelle Süd" in names


async def test_ids_are_on_every_answer_and_the_callers_own_comes_back(graph: Graph) -> None:
    good = await graph.get(SITE, headers={"client-request-id": "mine-1"})
    assert good.headers["client-request-id"] == "mine-1"
    assert good.headers["request-id"]
    assert "Date" in good.headers
    bad = await graph.get("/sites/localhost,0,0", headers={"client-request-id": "mine-2"})
    assert bad.headers["client-request-id"] == "mine-2"
    inner = bad.json["error"]["innerError"]
    assert inner["client-request-id"] == "mine-2"
    assert inner["request-id"] == bad.headers["request-id"]


async def test_only_loopback_names_are_answered(graph: Graph) -> None:
    reply = await graph.get(SITE, headers={"Host": "rebound.example"})
    assert reply.status == 400
