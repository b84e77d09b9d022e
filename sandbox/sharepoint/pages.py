"""What a person sees in the browser at an item's ``webUrl``: the library as a page, and the files."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import web

from sandbox.sharepoint import shipped
from sandbox.sharepoint.columns import SYSTEM_NAMES
from sandbox.sharepoint.exchange import Answer

if TYPE_CHECKING:
    from sandbox.sharepoint.model import Column, Item, ListRecord
    from sandbox.sharepoint.store import Store

_PAGE: Final = 100
_STYLE: Final = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse}"
    "th,td{text-align:left;vertical-align:top;padding:.35rem .7rem;border-bottom:1px solid #ddd}"
    "th{position:sticky;top:0;background:#fff}a{color:#05c}td{max-width:22rem}"
)
_HEADERS: Final = {
    # names and values come from outside: whatever they hold, nothing of it may run
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


def serve(store: Store, path: str, page: str) -> Answer | web.Response | None:
    """The page or file at a decoded path below the site; None if there is none."""
    parts = [part for part in path.removeprefix(f"/{shipped.SITE_PATH}").split("/") if part]
    libraries = [record for record in store.lists.values() if record.is_library]
    if not parts:
        return _html("Bau", _links(libraries))
    record = next((record for record in libraries if record.name == parts[0]), None)
    if record is None:
        return None
    item: Item | None = store.items[record.root_id]
    for name in parts[1:]:
        item = store.child(item.id, name) if item is not None else None
    if item is None:
        return None
    if item.content is not None:
        return Answer(file=store.path(item), headers={**_HEADERS, "Content-Type": item.content.media_type})
    title = "/".join(parts)
    return _html(title, _table(store, record, item, f"/{shipped.SITE_PATH}/{quote(title)}", page))


def _links(libraries: list[ListRecord]) -> str:
    rows = (
        f'<li><a href="/{shipped.SITE_PATH}/{quote(record.name)}">{escape(record.display_name)}</a></li>'
        for record in libraries
    )
    return f"<ul>{''.join(rows)}</ul>"


def _table(store: Store, record: ListRecord, folder: Item, address: str, page: str) -> str:
    columns = [column for column in record.columns if column.name not in SYSTEM_NAMES and not column.hidden]
    columns = [column for column in columns if column.name not in ("FileLeafRef", "Title")]
    children = store.children(folder.id)
    first = int(page) * _PAGE if page.isascii() and page.isdigit() else 0
    head = "".join(f"<th>{escape(column.display_name)}</th>" for column in columns)
    rows = "".join(_row(item, columns, address) for item in children[first : first + _PAGE])
    more = first + _PAGE < len(children)
    next_page = f'<p><a href="{address}?page={first // _PAGE + 1}">weitere</a></p>' if more else ""
    table = f"<table><thead><tr><th>Name</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<p>{len(children)} Elemente</p>{table}{next_page}"


def _row(item: Item, columns: list[Column], address: str) -> str:
    cells = "".join(f"<td>{_cell(item.fields.get(column.name))}</td>" for column in columns)
    return f'<tr><td><a href="{address}/{quote(item.name)}">{escape(item.name)}</a></td>{cells}</tr>'


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "Ja" if value else "Nein"
    if isinstance(value, list):
        return escape(", ".join(map(str, value)))
    return escape(str(value)) if value is not None else ""


def _html(title: str, body: str) -> web.Response:
    return web.Response(
        text=f'<!doctype html><html lang="de"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>",
        content_type="text/html",
        headers=_HEADERS,
    )
