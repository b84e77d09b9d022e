"""The endpoints beside Graph, below ``/_erni``: faults, a person's edits, columns, the logs.

They take no token: the emulator listens on loopback only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from aiohttp import web

from sandbox.sharepoint.columns import SYSTEM_COLUMNS
from sandbox.sharepoint.errors import GraphError
from sandbox.sharepoint.faults import FaultOrder
from sandbox.sharepoint.model import (
    Column,
    Item,
    JsonObject,
    LibrarySettings,
    ListRecord,
    stable_id,
    timestamp,
)
from sandbox.sharepoint.names import check_name

if TYPE_CHECKING:
    from sandbox.sharepoint.exchange import Service
    from sandbox.sharepoint.faults import FaultLine
    from sandbox.sharepoint.journal import Journal

PREFIX: Final = "/_erni"
FACETS: Final = frozenset(
    {
        "boolean",
        "calculated",
        "choice",
        "contentApprovalStatus",
        "currency",
        "dateTime",
        "geolocation",
        "hyperlinkOrPicture",
        "lookup",
        "number",
        "personOrGroup",
        "term",
        "text",
        "thumbnail",
    }
)

OrderT = TypeVar("OrderT")


class EditOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person changes values in the browser; the item by its id or by its path in a library."""

    fields: JsonObject
    item_id: str | None = None
    library: str = "Referenzfotos"
    name: str | None = None
    person: str | None = None


class ListOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A new library, with columns as Graph shows them."""

    display_name: str
    columns: tuple[JsonObject, ...] = ()
    template: str = "documentLibrary"
    site: str = ""
    """The path of another site, subsite or OneDrive; it is there as soon as it has a library."""


class Admin:
    """Handles the administrator's requests."""

    def __init__(self, service: Service, fault_log: Journal[FaultLine]) -> None:
        self._service = service
        self._fault_log = fault_log

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.get(PREFIX, self.state),
            web.get(PREFIX + "/fault", self.show_faults),
            web.post(PREFIX + "/fault", self.order_fault),
            web.delete(PREFIX + "/fault", self.heal),
            web.delete(PREFIX + r"/fault/{id:\d+}", self.heal),
            web.get(PREFIX + "/faults", self.show_fault_log),
            web.get(PREFIX + "/effects", self.show_effects),
            web.post(PREFIX + "/edit", self.edit),
            web.post(PREFIX + "/lists", self.add_list),
            web.put(PREFIX + "/lists/{list}/columns", self.put_column),
            web.put(PREFIX + "/lists/{list}/settings", self.set_up),
            web.delete(PREFIX + "/lists/{list}/columns/{name}", self.remove_column),
            web.post(PREFIX + "/expire/{what:tokens|sessions|delta}", self.expire),
        ]

    async def state(self, _request: web.Request) -> web.Response:
        """How many items and sessions there are, what was asked for how often, and the faults that are on.

        `units`: the resource units that all calls took.
        """
        store = self._service.store
        live = [item for item in store.items.values() if not item.deleted and item.kind == "file"]
        return _json(
            {
                "files": len(live),
                "bytes": sum(item.content.size for item in live if item.content),
                "sessions": len(store.sessions),
                "sequence": store.sequence,
                "calls": self._service.calls,
                "units": self._service.budget.spent,
                "faults": self._service.faults.active(),
            }
        )

    async def show_faults(self, _request: web.Request) -> web.Response:
        """The faults that are on."""
        return _json({"faults": self._service.faults.active()})

    async def order_fault(self, request: web.Request) -> web.Response:
        """Start a fault; see `FaultOrder` for the body."""
        order = await _read(request, FaultOrder)
        return _json({"id": self._service.faults.order(order)}, status=201)

    async def heal(self, request: web.Request) -> web.Response:
        """End all faults, or the one of that id."""
        number = request.match_info.get("id")
        return _json({"healed": self._service.faults.heal(int(number) if number else None)})

    async def show_fault_log(self, _request: web.Request) -> web.Response:
        """The faults that were injected."""
        return _json({"faults": list(self._fault_log)})

    async def show_effects(self, request: web.Request) -> web.Response:
        """The effect log, from behind the number ``after``."""
        after = request.query.get("after", "0")
        if not (after.isascii() and after.isdigit()):
            raise _refused("after: expected the number of an effect")
        effects = self._service.store.effects
        return _json({"effects": [effect for effect in effects if effect.seq > int(after)]})

    async def edit(self, request: web.Request) -> web.Response:
        """Change values as a person would."""
        order = await _read(request, EditOrder)
        item = self._item(order)
        try:
            item = self._service.items.patch_fields(
                item, order.fields, request_id="", by="person", editor=order.person
            )
        except GraphError as error:
            raise _refused(error.message) from None
        return _json({"item_id": item.id, "etag": item.etag, "fields": item.fields})

    async def add_list(self, request: web.Request) -> web.Response:
        """Add a library."""
        order = await _read(request, ListOrder)
        store = self._service.store
        try:
            check_name(order.display_name, folder=True)
        except GraphError as error:
            raise _refused(error.message) from None
        if any(
            record.display_name.casefold() == order.display_name.casefold() for record in store.lists.values()
        ):
            raise _refused(f"there is a list {order.display_name!r} already")
        record = ListRecord(
            id=stable_id("list", order.display_name),
            name=order.display_name,
            display_name=order.display_name,
            template=order.template,
            site=order.site.strip("/"),
            columns=SYSTEM_COLUMNS + tuple(_column(column) for column in order.columns),
            created=timestamp(time.time()),
        )
        store.save_list(record)
        return _json({"id": record.id}, status=201)

    async def put_column(self, request: web.Request) -> web.Response:
        """Add a column, or replace the one of that name. The body is a column as Graph shows it."""
        record = self._list(request.match_info["list"])
        column = _column(await _read(request, JsonObject))
        columns = [column if each.name == column.name else each for each in record.columns]
        if column not in columns:
            columns.append(column)
        self._service.store.save_list(msgspec.structs.replace(record, columns=tuple(columns)))
        return _json({"columns": [each.name for each in columns]})

    async def set_up(self, request: web.Request) -> web.Response:
        """Set up a library; see `LibrarySettings` for the body. What is not named gets its default."""
        record = self._list(request.match_info["list"])
        settings = await _read(request, LibrarySettings)
        self._service.store.save_list(msgspec.structs.replace(record, settings=settings))
        return _json({"settings": msgspec.to_builtins(settings)})

    async def remove_column(self, request: web.Request) -> web.Response:
        """Remove a column; values stay, unseen."""
        record = self._list(request.match_info["list"])
        columns = tuple(each for each in record.columns if each.name != request.match_info["name"])
        self._service.store.save_list(msgspec.structs.replace(record, columns=columns))
        return _json({"columns": [each.name for each in columns]})

    async def expire(self, request: web.Request) -> web.Response:
        """Make all tokens, upload sessions or delta tokens given so far worthless."""
        service = self._service
        match request.match_info["what"]:
            case "tokens":
                service.tokens.revoke()
            case "sessions":
                return _json({"expired": service.uploads.expire(all_of_them=True)})
            case _:
                service.delta_generation += 1
        return _json({})

    def _list(self, name: str) -> ListRecord:
        for record in self._service.store.lists.values():
            if name in (record.id, record.display_name):
                return record
        raise _refused(f"there is no list {name!r}")

    def _item(self, order: EditOrder) -> Item:
        store = self._service.store
        if order.item_id is not None:
            item = store.items.get(order.item_id)
        else:
            item = store.items[self._list(order.library).root_id]
            for name in (order.name or "").split("/"):
                item = store.child(item.id, name) if item is not None else None
        if item is None or item.deleted or item.kind == "root":
            raise _refused("there is no such item: send item_id, or library and name")
        return item


def _column(body: JsonObject) -> Column:
    """A column from its Graph form; the facet may be one that v1.0 does not show."""
    facets = FACETS & body.keys()
    name, facet = body.get("name"), next(iter(facets), None)
    settings = body.get(facet or "")
    if len(facets) != 1 or facet is None or not isinstance(settings, dict) or not isinstance(name, str):
        raise _refused(
            f"a column needs a name and exactly one facet, an object, of {', '.join(sorted(FACETS))}"
        )
    default = body.get("defaultValue")
    try:
        return msgspec.convert(
            {
                "name": name,
                "display_name": body.get("displayName", name),
                "facet": facet,
                "settings": settings,
                "description": body.get("description", ""),
                "hidden": body.get("hidden", False),
                "indexed": body.get("indexed", False),
                "read_only": body.get("readOnly", facet == "calculated"),
                "required": body.get("required", False),
                "unique": body.get("enforceUniqueValues", False),
                "default": default.get("value", default.get("formula"))
                if isinstance(default, dict)
                else None,
                "validation": body.get("validation"),
            },
            Column,
        )
    except msgspec.ValidationError as error:
        raise _refused(f"the column {name!r} cannot be read: {error}") from None


async def _read(request: web.Request, order_type: type[OrderT]) -> OrderT:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=order_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refused(str(error)) from None


def _refused(message: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(
        text=msgspec.json.encode({"error": message}).decode(), content_type="application/json"
    )


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
