"""List items and their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox.sharepoint import field_values
from sandbox.sharepoint.addressing import ListTarget, RowTarget
from sandbox.sharepoint.errors import GraphError, invalid, not_found
from sandbox.sharepoint.exchange import Answer, Routes
from sandbox.sharepoint.items import check_conditions
from sandbox.sharepoint.odata import (
    Comparison,
    option,
    pack_token,
    parse_filter,
    parse_top,
    refuse_skip,
    unpack_token,
)
from sandbox.sharepoint.routes_items import next_link
from sandbox.sharepoint.shipped import SITE_ID

if TYPE_CHECKING:
    from sandbox.sharepoint.exchange import Call
    from sandbox.sharepoint.model import Item, JsonObject, ListRecord

VIEW_THRESHOLD: Final = 5_000
"""Items of a list from which on a filter needs an index."""
_PREFER: Final = "HonorNonIndexedQueriesWarningMayFailRandomly"


def _row(call: Call) -> RowTarget:
    target = call.address.target
    if not isinstance(target, RowTarget):
        raise not_found()
    return target


async def get_row(call: Call) -> Answer:
    """A list item."""
    item = _row(call).item
    body = call.show.row(item, select=call.select, expand=call.expand)
    return Answer(
        body={"@odata.context": call.show.context("sites/lists/items/$entity"), **body},
        headers={"ETag": item.row_etag},
    )


async def get_rows(call: Call) -> Answer:
    """The items of a list, in pages."""
    target = call.address.target
    if not isinstance(target, ListTarget):
        raise not_found()
    refuse_skip(call.query)
    top = parse_top(option(call.query, "top"), default=200, limit=5_000)
    rows = call.service.store.rows(target.record.id)
    for term in parse_filter(option(call.query, "filter")):
        _check_index(call, target.record, term, len(rows))
        rows = [row for row in rows if term.holds(_value(call, target.record, row, term.name))]
    if order := option(call.query, "orderby"):
        name = order.split()[0]
        _check_index(call, target.record, Comparison(name, ""), len(rows))
        rows = sorted(
            rows,
            key=lambda row: str(_value(call, target.record, row, name) or ""),
            reverse=order.endswith(" desc"),
        )
    token = option(call.query, "skiptoken")
    if token is not None:
        after = unpack_token(token).get("after")
        if not isinstance(after, int):
            raise invalid("The provided paging or delta token is malformed.")
        rows = [row for row in rows if row.number > after]
    page = rows[:top]
    body: JsonObject = {"@odata.context": call.show.context("sites/lists/items")}
    if len(rows) > top:
        body["@odata.nextLink"] = next_link(
            call, f"sites/{SITE_ID}/lists/{target.record.id}/items", pack_token(after=page[-1].number)
        )
    body["value"] = [call.show.row(row, select=call.select, expand=call.expand) for row in page]
    return Answer(body=body)


def _value(call: Call, record: ListRecord, row: Item, name: str) -> object:
    if name == "id":
        return str(row.number)
    return field_values.read(call.service.store, record, row, None).get(name.removeprefix("fields/"))


def _check_index(call: Call, record: ListRecord, term: Comparison, rows: int) -> None:
    """Refuse a filter on a column without index, as SharePoint does. Raises GraphError 400."""
    if term.name == "id":
        return
    name = term.name.removeprefix("fields/")
    column = record.column(name)
    if not term.name.startswith("fields/") or column is None:
        raise invalid(f"Invalid filter clause: '{term.name}' cannot be filtered by.")
    if column.indexed:
        return
    if _PREFER.casefold() not in call.headers.get("Prefer", "").casefold():
        raise invalid(
            f"Field '{name}' cannot be referenced in filter or orderby as it is not indexed. Provide the "
            f"'Prefer: {_PREFER}' header to allow this."
        )
    if rows >= VIEW_THRESHOLD:
        raise GraphError(500, "generalException", "The attempted operation exceeds the list view threshold.")


async def get_fields(call: Call) -> Answer:
    """The values of a list item."""
    item = _row(call).item
    body = {"@odata.context": call.show.context("sites/lists/items/fields/$entity")}
    return Answer(body=body | call.show.fields(item, call.select), headers={"ETag": item.row_etag})


async def patch_fields(call: Call) -> Answer:
    """Write values of a list item."""
    _row(call)
    body = await call.json()
    call.resolve()
    item = _row(call).item
    check_conditions(item, call.headers)
    item = call.service.items.patch_fields(item, body, request_id=call.request_id)
    body = {
        "@odata.context": call.show.context("sites/lists/items/fields/$entity"),
        **call.show.fields(item, call.select),
    }
    if call.service.faults.stale(call.method, f"/v1.0/{call.path}", call.request_id):
        call.service.items.touch(item, request_id=call.request_id)
    return Answer(body=body)


async def patch_row(call: Call) -> Answer:
    """Write values through the list item itself: ``{"fields": {…}}``."""
    _row(call)
    body = await call.json()
    call.resolve()
    item = _row(call).item
    check_conditions(item, call.headers)
    fields = body.get("fields")
    if not isinstance(fields, dict):
        raise invalid("Only 'fields' can be changed.")
    item = call.service.items.patch_fields(item, fields, request_id=call.request_id)
    return Answer(body=call.show.row(item, select=call.select, expand=call.expand))


async def get_versions(call: Call) -> Answer:
    """The versions of a list item, the newest first."""
    item = _row(call).item
    shown = [
        call.show.row_version(item, version, fields="fields" in call.expand)
        for version in reversed(item.history)
    ]
    return Answer(body={"@odata.context": call.show.context("sites/lists/items/versions"), "value": shown})


async def delete_row(call: Call) -> Answer:
    """Delete a list item, with its file."""
    item = _row(call).item
    check_conditions(item, call.headers)
    call.service.items.delete(item, request_id=call.request_id)
    return Answer(204)


ROUTES: Routes = {
    (ListTarget, "items"): {"GET": get_rows},
    (RowTarget, ""): {"GET": get_row, "PATCH": patch_row, "DELETE": delete_row},
    (RowTarget, "versions"): {"GET": get_versions},
    (RowTarget, "fields"): {"GET": get_fields, "PATCH": patch_fields},
}
