"""Sites, lists, columns and drives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.sharepoint.addressing import DriveTarget, ListTarget, Root, SiteTarget
from sandbox.sharepoint.errors import invalid, not_found
from sandbox.sharepoint.exchange import Answer, Routes
from sandbox.sharepoint.odata import check_select, option, parse_filter, selected

if TYPE_CHECKING:
    from sandbox.sharepoint.exchange import Call
    from sandbox.sharepoint.model import JsonObject, ListRecord


def _list_of(call: Call) -> ListRecord:
    target = call.address.target
    if not isinstance(target, ListTarget | DriveTarget):
        raise not_found()
    return target.record


def _collection(call: Call, what: str, rows: list[JsonObject]) -> Answer:
    """Rows, filtered and with the selected properties."""
    for term in parse_filter(option(call.query, "filter")):
        rows = [row for row in rows if term.holds(row.get(term.name))]
    select = call.select
    return Answer(
        body={
            "@odata.context": call.show.context(what),
            "value": [selected(row, select) for row in rows],
        }
    )


async def search_sites(call: Call) -> Answer:
    """``GET /sites?search=``: the one site, if the words fit."""
    words = option(call.query, "search")
    if words is None:
        raise invalid("The query option 'search' is required.")
    site = call.show.site()
    fits = words in ("", "*") or words.casefold() in str(site["webUrl"]).casefold()
    return _collection(call, "sites", [site] if fits else [])


async def get_site(call: Call) -> Answer:
    """The site."""
    return Answer(body=selected(call.show.site(_path(call)), call.select))


def _path(call: Call) -> str:
    """The path of the site that is asked, as lists name it."""
    target = call.address.target
    return target.path if isinstance(target, SiteTarget) else ""


async def get_lists(call: Call) -> Answer:
    """The site's lists and libraries."""
    records = [record for record in call.service.store.lists.values() if record.site == _path(call)]
    check_select(call.select, "list")
    return _collection(call, "sites/lists", [call.show.list_(record) for record in records])


async def get_list(call: Call) -> Answer:
    """One list."""
    record = _list_of(call)
    body = call.show.list_(record)
    if "columns" in call.expand:
        body["columns"] = _columns(call, record, hidden=False)
    return Answer(
        body={"@odata.context": call.show.context("sites/lists/$entity")}
        | selected(body, _with(call, "columns"))
    )


def _with(call: Call, expanded: str) -> tuple[str, ...] | None:
    """The selected names and the expanded one."""
    return None if call.select is None else (*call.select, expanded)


def _columns(call: Call, record: ListRecord, *, hidden: bool) -> list[JsonObject]:
    return [call.show.column(column, record) for column in record.columns if hidden or not column.hidden]


async def get_columns(call: Call) -> Answer:
    """A list's columns; hidden ones only if ``$select`` names ``hidden``."""
    check_select(call.select, "columnDefinition")
    hidden = "hidden" in (call.select or ())
    return _collection(call, "sites/lists/columns", _columns(call, _list_of(call), hidden=hidden))


async def get_column(call: Call) -> Answer:
    """One column, by id or name."""
    wanted = call.address.action.partition("/")[2]
    for column in _columns(call, _list_of(call), hidden=True):
        if wanted in (column["id"], column["name"]):
            return Answer(body=selected(column, call.select))
    raise not_found("The column was not found.")


async def get_drives(call: Call) -> Answer:
    """The site's libraries as drives."""
    lists = call.service.store.lists.values()
    libraries = [record for record in lists if record.is_library and record.site == _path(call)]
    return _collection(call, "drives", [call.show.drive(record) for record in libraries])


async def get_drive(call: Call) -> Answer:
    """A library as a drive."""
    body = {"@odata.context": call.show.context("drives/$entity"), **call.show.drive(_list_of(call))}
    return Answer(body=selected(body, call.select))


ROUTES: Routes = {
    (Root, "sites"): {"GET": search_sites},
    (SiteTarget, ""): {"GET": get_site},
    (SiteTarget, "lists"): {"GET": get_lists},
    (SiteTarget, "drives"): {"GET": get_drives},
    (ListTarget, ""): {"GET": get_list},
    (ListTarget, "columns"): {"GET": get_columns},
    (ListTarget, "columns/"): {"GET": get_column},
    (DriveTarget, ""): {"GET": get_drive},
}
