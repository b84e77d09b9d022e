from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.columns.schema import Column, LibrarySchema
from shared.retry.errors import PermanentError
from shared.sharepoint.fields import default_of, from_graph, same, to_graph

if TYPE_CHECKING:
    from events.types import FieldText
    from shared.columns.schema import ColumnKind


def _column(kind: ColumnKind, *, name: str = "S", default: str | None = None) -> Column:
    return Column(name=name, display_name=f"Spalte {name}", kind=kind, default=default)


def _schema(*columns: Column, zone: str = "Europe/Zurich") -> LibrarySchema:
    return LibrarySchema(library="Fotos", columns=columns, time_zone=zone)


@pytest.mark.parametrize(
    ("kind", "value", "body"),
    [
        ("text", "Ort", {"S": "Ort"}),
        ("note", "zwei\nZeilen", {"S": "zwei\nZeilen"}),
        ("choice", "Rohbau", {"S": "Rohbau"}),
        ("multi_choice", ["Dach", "Wand"], {"S@odata.type": "Collection(Edm.String)", "S": ["Dach", "Wand"]}),
        ("number", 3, {"S": 3}),
        ("number", 0, {"S": 0}),
        ("boolean", False, {"S": False}),
        ("date", "2024-05-12", {"S": "2024-05-12T10:00:00Z"}),  # noon in summer
        ("date", "2024-12-31", {"S": "2024-12-31T11:00:00Z"}),  # noon in winter
        ("date_time", "2024-05-12T10:30:00+02:00", {"S": "2024-05-12T08:30:00Z"}),
        ("date_time", "2024-05-12T08:30:00Z", {"S": "2024-05-12T08:30:00Z"}),
        ("text", "", {}),
        ("text", None, {}),
        ("multi_choice", [], {}),
    ],
)
def test_values_are_written_as_graph_wants_them(
    kind: ColumnKind, value: FieldText, body: dict[str, object]
) -> None:
    assert to_graph(_schema(_column(kind)), {"S": value}) == body


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", 3),
        ("choice", ["Rohbau"]),
        ("multi_choice", "Dach"),
        ("number", "3"),
        ("number", True),
        ("boolean", "ja"),
        ("date", "gestern"),
        ("date", 2024),
    ],
)
def test_a_value_of_another_kind_is_permanent_and_names_the_column(
    kind: ColumnKind, value: FieldText
) -> None:
    with pytest.raises(PermanentError, match="is no value for the column 'Spalte S'"):
        to_graph(_schema(_column(kind)), {"S": value})


@pytest.mark.parametrize("kind", ["lookup", "person", "calculated", "unsupported"])
def test_what_may_not_be_written_is_not_sent(kind: ColumnKind) -> None:
    with pytest.raises(PermanentError, match="'Spalte S' of 'Fotos' cannot be written"):
        to_graph(_schema(_column(kind)), {"S": "x"})
    with pytest.raises(PermanentError, match="has no column 'T'"):
        to_graph(_schema(_column(kind)), {"T": "x"})


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("text", "Ort", "Ort"),
        ("text", 12, "12"),
        ("text", {"Url": "https://host/p?sig=SECRET", "Description": "d"}, "https://host/p"),
        ("multi_choice", ["Dach"], ["Dach"]),
        ("multi_choice", "Dach", None),
        ("number", 3.0, 3.0),
        ("number", "3", None),
        ("boolean", True, True),
        ("boolean", "Yes", None),
        ("date", "2024-05-11T22:00:00Z", "2024-05-12"),  # midnight in Zurich
        ("date", "2024-12-30T23:00:00Z", "2024-12-31"),
        ("date_time", "2024-05-12T08:30:00Z", "2024-05-12T08:30:00Z"),
        ("date", "", None),
        ("text", None, None),
    ],
)
def test_graphs_values_are_read_as_ours(kind: ColumnKind, raw: object, value: FieldText) -> None:
    assert from_graph(_schema(_column(kind)), {"S": raw}) == {"S": value}


def test_columns_that_we_do_not_write_are_not_read_and_missing_ones_are_none() -> None:
    schema = _schema(_column("text", name="A"), _column("person", name="B"), _column("boolean", name="C"))
    assert from_graph(schema, {"A": "x", "BLookupId": "7", "Fremd": 1}) == {"A": "x", "C": None}


def test_a_name_that_begins_with_an_escape_may_come_back_with_a_prefix() -> None:
    schema = _schema(_column("text", name="_x00c4_hnliche"))
    assert from_graph(schema, {"OData__x00c4_hnliche": "x"}) == {"_x00c4_hnliche": "x"}


@given(
    day=st.dates(
        min_value=datetime(1990, 1, 1, tzinfo=UTC).date(), max_value=datetime(2099, 1, 1, tzinfo=UTC).date()
    ),
    zone=st.sampled_from(["Europe/Zurich", "Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata", "UTC"]),
)
def test_a_day_stays_the_same_day_in_every_zone(day: object, zone: str) -> None:
    """SharePoint keeps the midnight, in the site's zone, of the day that a written time falls on."""
    schema = _schema(_column("date"), zone=zone)
    written = datetime.fromisoformat(str(to_graph(schema, {"S": str(day)})["S"])).astimezone(ZoneInfo(zone))
    midnight = written.replace(hour=0).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert from_graph(schema, {"S": midnight}) == {"S": str(day)}


@given(st.datetimes(datetime(1990, 1, 1), datetime(2099, 1, 1)), st.integers(-14, 14))  # noqa: DTZ001  an offset follows
def test_a_time_comes_back_as_the_same_instant(when: datetime, hours: int) -> None:
    schema = _schema(column := _column("date_time"))
    sent = when.replace(microsecond=0).isoformat() + f"{hours:+03d}:00"
    stored = from_graph(schema, to_graph(schema, {"S": sent}))["S"]
    assert same(column, sent, stored)


@pytest.mark.parametrize(
    ("kind", "sent", "stored"),
    [
        ("text", "Ort", "Ort "),
        ("text", "Zu\u0308rich", "Zürich"),
        ("note", "a\nb", "a\r\nb\r\n"),
        ("note", "a & b\nc", "<div class='x'>a &amp; b<br>c</div>"),
        ("note", "zwei", "<p>zwei\u200b</p>"),
        ("multi_choice", ["Dach", "Wand"], ["Wand", "Dach"]),
        ("number", 3, 3.0),
        ("number", 0.1 + 0.2, 0.3),
        ("boolean", False, False),
        ("date", "2024-05-12", "2024-05-12"),
        ("date_time", "2024-05-12T10:30:00.5+02:00", "2024-05-12T08:30:00Z"),
        ("text", None, "was auch immer"),
        ("multi_choice", [], ["Dach"]),
    ],
)
def test_the_same_to_a_person_is_the_same(kind: ColumnKind, sent: FieldText, stored: FieldText) -> None:
    assert same(_column(kind), sent, stored)


@pytest.mark.parametrize(
    ("kind", "sent", "stored"),
    [
        ("text", "Ort", None),
        ("text", "Ort", "ort"),
        ("note", "a <b", "a b"),
        ("multi_choice", ["Dach"], ["Dach", "Wand"]),
        ("multi_choice", ["Dach", "Dach"], ["Dach"]),
        ("number", 3, 4.0),
        ("boolean", False, None),
        ("boolean", True, False),
        ("date", "2024-05-12", "2024-05-11"),
        ("date_time", "2024-05-12T10:30:00+02:00", "2024-05-12T08:31:00Z"),
    ],
)
def test_what_differs_differs(kind: ColumnKind, sent: FieldText, stored: FieldText) -> None:
    assert not same(_column(kind), sent, stored)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("boolean", "1", True),
        ("boolean", "0", False),
        ("number", "2.5", 2.5),
        ("number", "viel", None),
        ("choice", "Rohbau", "Rohbau"),
        ("multi_choice", ";#Dach;#Wand;#", ["Dach", "Wand"]),
        ("date", "[today]", None),
        ("text", None, None),
    ],
)
def test_defaults_are_read_from_their_text(kind: ColumnKind, text: str | None, value: FieldText) -> None:
    assert default_of(_column(kind, default=text)) == value


def test_noon_is_noon_on_the_days_the_clocks_change() -> None:
    schema = _schema(_column("date"))
    for day, hour in (("2024-03-31", 10), ("2024-10-27", 11)):
        written = to_graph(schema, {"S": day})["S"]
        assert written == f"{day}T{hour}:00:00Z"
        assert timedelta(0) == datetime.fromisoformat(str(written)).utcoffset()
