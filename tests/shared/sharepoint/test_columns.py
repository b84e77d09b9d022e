from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from events.types import LibraryRef
from shared.columns.schema import Column
from shared.sharepoint.columns import columns, read_columns
from shared.sharepoint.wire import ColumnDefinition
from tests.shared.sharepoint.stub import Reply

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from tests.shared.sharepoint.stub import Stub


def column(**definition: object) -> Column:
    """What becomes of one of Graph's columns."""
    [found] = columns([msgspec.convert({"name": "Spalte", **definition}, ColumnDefinition)])
    return found


@pytest.mark.parametrize(
    ("facet", "kind", "writable"),
    [
        ({"text": {"allowMultipleLines": False, "maxLength": 255, "textType": "plain"}}, "text", True),
        ({"text": {"allowMultipleLines": True, "linesForEditing": 6}}, "note", True),
        ({"choice": {"choices": ["a"], "displayAs": "dropDownMenu"}}, "choice", True),
        ({"choice": {"choices": ["a"], "displayAs": "radioButtons"}}, "choice", True),
        ({"choice": {"choices": ["a"], "displayAs": "checkBoxes"}}, "multi_choice", True),
        ({"number": {"decimalPlaces": "automatic", "displayAs": "number"}}, "number", True),
        ({"currency": {"locale": "de-ch"}}, "number", True),
        ({"dateTime": {"displayAs": "default", "format": "dateOnly"}}, "date", True),
        ({"dateTime": {"displayAs": "default", "format": "dateTime"}}, "date_time", True),
        ({"boolean": {}}, "boolean", True),
        ({"lookup": {"listId": "1", "columnName": "Title"}}, "lookup", False),
        ({"personOrGroup": {"allowMultipleSelection": False}}, "person", False),
        ({"calculated": {"formula": "=[A]", "outputType": "text"}}, "calculated", False),
        ({"geolocation": {}}, "unsupported", False),
        ({"hyperlinkOrPicture": {"isPicture": False}}, "unsupported", False),
        ({"term": {"allowMultipleValues": True}}, "unsupported", False),
        ({"thumbnail": {}}, "unsupported", False),
        ({"contentApprovalStatus": {}}, "unsupported", False),
        ({}, "unsupported", False),
        ({"text": {}, "number": {}}, "unsupported", False),
        ({"text": {}, "readOnly": True}, "text", False),
        ({"text": {}, "hidden": True}, "text", False),
    ],
)
def test_the_one_facet_says_the_kind(facet: dict[str, object], kind: str, *, writable: bool) -> None:
    found = column(**facet)
    assert (found.kind, found.writable) == (kind, writable)


def test_everything_else_is_carried_over() -> None:
    found = column(
        name="Geb_x00e4_udetyp",
        displayName="Gebäudetyp",
        description="Was es ist",
        required=True,
        defaultValue={"value": "Anbau"},
        choice={"choices": ["Anbau", "Brücke"], "allowTextEntry": True, "displayAs": "dropDownMenu"},
    )
    assert found == Column(
        name="Geb_x00e4_udetyp",
        display_name="Gebäudetyp",
        kind="choice",
        description="Was es ist",
        choices=("Anbau", "Brücke"),
        allow_other=True,
        required=True,
        default="Anbau",
    )
    assert column(text={"maxLength": 100}).max_length == 100
    number = column(number={"minimum": -5, "maximum": 60.5})
    assert (number.minimum, number.maximum) == (-5, 60.5)


def test_bounds_that_are_none_are_none() -> None:
    found = column(number={"minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308})
    assert (found.minimum, found.maximum) == (None, None)


def test_nulls_and_missing_names_are_no_trouble() -> None:
    found = column(
        displayName=None,
        description=None,
        hidden=None,
        readOnly=None,
        required=None,
        defaultValue={"formula": "=TODAY()"},
        choice={"choices": None, "displayAs": None},
    )
    assert found == Column(name="Spalte", display_name="Spalte", kind="choice")


@pytest.mark.parametrize(
    "name", ["ContentType", "Created", "Author", "_UIVersionString", "FileLeafRef", "DocIcon"]
)
def test_sharepoints_own_columns_are_left_out(name: str) -> None:
    assert columns([msgspec.convert({"name": name, "text": {}}, ColumnDefinition)]) == ()


async def test_hidden_columns_are_asked_for_by_name_and_pages_followed(
    graph: Stub, client: GraphClient
) -> None:
    library = LibraryRef(site_id="h,1,2", list_id="l", drive_id="d", site="s", library="Fotos", web_url="")
    path = "/v1.0/sites/h,1,2/lists/l/columns"
    one = {"name": "A", "text": {}, "id": "x", "@odata.type": "#x", "hidden": True}
    more = {"value": [one], "@odata.nextLink": f"{graph.url}{path}/2"}
    graph.on("GET", path, Reply(body=more))
    graph.on("GET", f"{path}/2", Reply(body={"value": [{"name": "B", "boolean": {}}]}))
    found = await read_columns(client, library)
    assert [(each.name, each.kind, each.hidden) for each in found] == [
        ("A", "text", True),
        ("B", "boolean", False),
    ]
    assert ",hidden," in graph.calls("GET", path)[0].path
