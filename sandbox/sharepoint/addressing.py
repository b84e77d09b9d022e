"""From an address to what it means: sites, lists, drives, items and rows, by id and by path.

The whole path is percent-decoded once before it is read, because SDKs send addresses such as
``items/root%3A%2Fx%2Fbig.jpg%3A/createUploadSession``. A name holds no colon, so the colons of path
addressing (``root:/x/big.jpg:/content``) stay unambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sandbox.sharepoint import shipped
from sandbox.sharepoint.errors import GraphError, invalid, not_found

if TYPE_CHECKING:
    from sandbox.sharepoint.model import Item, ListRecord
    from sandbox.sharepoint.store import Store


@dataclass(frozen=True, slots=True)
class Root:
    """The service itself, above all sites."""


@dataclass(frozen=True, slots=True)
class SiteTarget:
    """A site."""

    path: str = ""
    """Empty: the one site that is always there."""


@dataclass(frozen=True, slots=True)
class ListTarget:
    """A list."""

    record: ListRecord


@dataclass(frozen=True, slots=True)
class DriveTarget:
    """A library's drive."""

    record: ListRecord


@dataclass(frozen=True, slots=True)
class ItemTarget:
    """A drive item, or the place of one that does not exist (yet)."""

    record: ListRecord
    item: Item | None
    parent: Item
    """The deepest folder on the way that exists."""
    missing: tuple[str, ...] = ()
    """The names below `parent` that do not exist, the item's own last."""

    def existing(self) -> Item:
        """The item. Raises GraphError 404."""
        if self.item is None:
            raise not_found()
        return self.item


@dataclass(frozen=True, slots=True)
class RowTarget:
    """A list item."""

    record: ListRecord
    item: Item


Target: TypeAlias = Root | SiteTarget | ListTarget | DriveTarget | ItemTarget | RowTarget


@dataclass(frozen=True, slots=True)
class Address:
    """What an address means: a thing, and what of it is wanted (``children``; empty: the thing itself)."""

    target: Target
    action: str = ""


def resolve(store: Store, path: str) -> Address:
    """Read a decoded path below the version, without a leading slash. Raises GraphError 400 or 404."""
    segments = _segments(path)
    address = Address(Root())
    while segments:
        address = _step(store, address.target, segments)
        if address.action:
            if segments:
                raise invalid(f"Resource not found for the segment '{segments[0]}'.")
            break
    return address


def _segments(path: str) -> list[str]:
    """The parts between slashes; a path in colons is one part, ``:/x/big.jpg``."""
    path, function, arguments = path.partition("/delta(")  # a token may be a time, with colons
    segments: list[str] = []
    for index, part in enumerate(path.split(":")):
        if index % 2:
            segments.append(":" + part)
        else:
            segments += [name for name in part.split("/") if name]
    if function:
        segments.append("delta(" + arguments)
    return segments


def _step(store: Store, target: Target, segments: list[str]) -> Address:
    """Go one step on from `target`; takes from `segments` what it used."""
    match target:
        case Root():
            return _from_root(store, segments)
        case SiteTarget():
            return _from_site(store, target, segments)
        case ListTarget(record):
            return _from_list(store, record, segments)
        case DriveTarget(record):
            return _from_drive(store, record, segments)
        case ItemTarget():
            return _from_item(store, target, segments)
        case RowTarget(record, item):
            head = segments.pop(0)
            if head == "driveItem" and record.is_library:
                return Address(_item_target(store, record, item))
            return Address(target, head)


def _from_root(store: Store, segments: list[str]) -> Address:
    head = segments.pop(0)
    if head == "sites" and segments:
        return Address(_site(store, segments))
    if head == "drives" and segments:
        return Address(DriveTarget(store.list_of_drive(segments.pop(0))))
    return Address(Root(), head)


def _site(store: Store, segments: list[str]) -> SiteTarget:
    """``sites/{id}``, ``sites/root:/sites/Bau`` or ``sites/localhost:/sites/Bau``."""
    name = segments.pop(0)
    by_path = segments and segments[0].startswith(":")
    if by_path:
        if name not in (shipped.HOST, "root"):
            raise GraphError(400, "invalidRequest", "Invalid hostname for this tenancy")
        path = segments.pop(0)[1:].strip("/")
        for site in store.sites:
            if path.casefold() == (site or shipped.SITE_PATH).casefold():
                return SiteTarget(site)
        raise not_found("Requested site could not be found")
    for site in store.sites:
        if site and name == shipped.site_id(site):
            return SiteTarget(site)
    if name not in (shipped.SITE_ID, shipped.SITE_ID.partition(",")[2], shipped.SITE_COLLECTION_ID):
        raise not_found("Requested site could not be found")
    return SiteTarget()


def _from_site(store: Store, site: SiteTarget, segments: list[str]) -> Address:
    head = segments.pop(0)
    if head == "lists" and segments:
        return Address(ListTarget(_list(store, site, segments.pop(0))))
    if head == "drives" and segments:
        return Address(DriveTarget(store.list_of_drive(segments.pop(0))))
    if head == "drive":
        documents = next(record for record in store.lists.values() if record.display_name == "Dokumente")
        return Address(DriveTarget(documents))
    if head == "permissions" and segments:
        return Address(site, f"permissions/{segments.pop(0)}")
    return Address(site, head)


def _list(store: Store, site: SiteTarget, name: str) -> ListRecord:
    """A list by its id or its title."""
    for record in store.lists.values():
        if record.site == site.path and name.casefold() in (record.id, record.display_name.casefold()):
            return record
    raise not_found("The specified list was not found")


def _from_list(store: Store, record: ListRecord, segments: list[str]) -> Address:
    head = segments.pop(0)
    if head == "drive" and record.is_library:
        return Address(DriveTarget(record))
    if head == "items" and segments:
        number = segments.pop(0)
        item = store.row(record.id, int(number)) if number.isascii() and number.isdigit() else None
        if item is None:
            raise not_found("Item not found")
        return Address(RowTarget(record, item))
    if head == "columns" and segments:
        return Address(ListTarget(record), f"columns/{segments.pop(0)}")
    return Address(ListTarget(record), head)


def _from_drive(store: Store, record: ListRecord, segments: list[str]) -> Address:
    head = segments.pop(0)
    if head == "list":
        return Address(ListTarget(record))
    if head == "root" or (head == "items" and segments):
        name = "root" if head == "root" else segments.pop(0)
        item = store.items.get(record.root_id if name == "root" else name)
        if item is None or item.deleted or item.list_id != record.id:
            raise not_found()
        return Address(_item_target(store, record, item))
    return Address(DriveTarget(record), head)


def _item_target(store: Store, record: ListRecord, item: Item) -> ItemTarget:
    parent = store.items[item.parent_id] if item.parent_id else item
    return ItemTarget(record, item, parent)


def _from_item(store: Store, target: ItemTarget, segments: list[str]) -> Address:
    head = segments.pop(0)
    if head.startswith(":"):
        return Address(_by_path(store, target, head[1:]))
    if head == "listItem":
        item = target.existing()
        if item.kind == "root":
            raise not_found("The root of a drive is not a list item.")
        return Address(RowTarget(target.record, item))
    return Address(target, head)


def _by_path(store: Store, start: ItemTarget, path: str) -> ItemTarget:
    """Walk down from an item by names."""
    names = [name for name in path.split("/") if name]
    item = start.existing()
    parent = start.parent
    for index, name in enumerate(names):
        if not item.is_folder:
            raise not_found()
        parent = item
        found = store.child(item.id, name)
        if found is None:
            return ItemTarget(start.record, None, parent, tuple(names[index:]))
        item = found
    return ItemTarget(start.record, item, parent)
