"""The JSON in which Graph shows sites, lists, columns, items and rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from sandbox.sharepoint import field_values, shipped, versions
from sandbox.sharepoint.columns import WITHHELD_FACETS
from sandbox.sharepoint.errors import invalid
from sandbox.sharepoint.model import Item, JsonObject, ListRecord, drive_id, stable_id
from sandbox.sharepoint.odata import Expansion, check_select, selected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.sharepoint.items import Items
    from sandbox.sharepoint.model import Column, ItemVersion
    from sandbox.sharepoint.store import Store
    from sandbox.sharepoint.tokens import Tokens

DOWNLOAD_SECONDS: Final = 3600
"""How long a pre-authenticated address is good; Graph promises at most an hour."""

_APP = {"application": {"id": stable_id("client"), "displayName": "erni"}}


def other_name(origin: str) -> str:
    """The same address by the other name of loopback: for a client it is another origin."""
    parts = urlsplit(origin)
    host = "127.0.0.1" if parts.hostname == "localhost" else "localhost"
    return f"{parts.scheme}://{host}:{parts.port or 80}"


class Renderer:
    """Shows things to one caller, whose idea of our address (`origin`) all links take up."""

    def __init__(self, store: Store, items: Items, tokens: Tokens, origin: str) -> None:
        self._store = store
        self._items = items
        self._tokens = tokens
        self.origin = origin
        self.base = f"{origin}/v1.0"

    @property
    def storage(self) -> str:
        """The address of the pre-authenticated endpoints: another origin, as with the real service."""
        return f"{other_name(self.origin)}/_storage"

    @property
    def site_url(self) -> str:
        """The address of the site's pages."""
        return f"{self.origin}/{shipped.SITE_PATH}"

    def context(self, what: str) -> str:
        """An ``@odata.context``."""
        return f"{self.base}/$metadata#{what}"

    def site(self, path: str = "") -> JsonObject:
        """The site at a path; by default the one that is always there."""
        return self._site() | self._other_site(path) if path else self._site()

    def _other_site(self, path: str) -> JsonObject:
        name = path.rsplit("/", 1)[-1]
        return {
            "id": shipped.site_id(path),
            "name": name,
            "displayName": name,
            "webUrl": f"{self.origin}/{quote(path)}",
        }

    def _site(self) -> JsonObject:
        return {
            "@odata.context": self.context("sites/$entity"),
            "createdDateTime": shipped.SITE_CREATED,
            "description": "",
            "id": shipped.SITE_ID,
            "lastModifiedDateTime": shipped.SITE_CREATED,
            "name": shipped.SITE_NAME,
            "webUrl": self.site_url,
            "displayName": shipped.SITE_NAME,
            "root": {},
            "siteCollection": {"hostname": shipped.HOST},
        }

    def list_(self, record: ListRecord) -> JsonObject:
        """A list."""
        return {
            "@odata.etag": f'"{record.id},1"',
            "createdDateTime": record.created,
            "description": "",
            "eTag": f'"{record.id},1"',
            "id": record.id,
            "lastModifiedDateTime": record.created,
            "name": record.name,
            "webUrl": self._list_url(record),
            "displayName": record.display_name,
            "createdBy": _APP,
            "lastModifiedBy": _APP,
            "parentReference": {"siteId": shipped.site_id(record.site) if record.site else shipped.SITE_ID},
            "list": {"contentTypesEnabled": False, "hidden": False, "template": record.template},
        }

    def drive(self, record: ListRecord) -> JsonObject:
        """A library as a drive."""
        used = sum(item.content.size for item in self._store.rows(record.id) if item.content)
        total = 27_487_790_694_400
        return {
            "createdDateTime": record.created,
            "description": "",
            "id": drive_id(record.id),
            "lastModifiedDateTime": record.created,
            "name": record.display_name,
            "webUrl": self._list_url(record),
            "driveType": "documentLibrary",
            "createdBy": _APP,
            "quota": {
                "deleted": 0,
                "remaining": total - used,
                "state": "normal",
                "total": total,
                "used": used,
            },
        }

    def column(self, column: Column, record: ListRecord) -> JsonObject:
        """A column definition. Some facets do not exist in v1.0: such a column arrives without any."""
        body: JsonObject = {
            "columnGroup": column.group,
            "description": column.description,
            "displayName": column.display_name,
            "enforceUniqueValues": column.unique,
            "hidden": column.hidden,
            "id": stable_id("column", record.id, column.name),
            "indexed": column.indexed,
            "name": column.name,
            "readOnly": column.read_only,
            "required": column.required,
        }
        if column.default is not None:
            body["defaultValue"] = {"value": column.default}
        if column.facet not in WITHHELD_FACETS:
            body[column.facet] = column.settings
        return body

    def drive_item(
        self,
        item: Item,
        *,
        select: tuple[str, ...] | None = None,
        expand: Mapping[str, Expansion] | None = None,
    ) -> JsonObject:
        """A file or folder. Raises GraphError 400 for an expansion that does not exist."""
        check_select(select, "driveItem")
        record = self._store.lists[item.list_id]
        body: JsonObject = {}
        if item.kind == "file" and not item.deleted:
            body["@microsoft.graph.downloadUrl"] = self.download_url(item)
        body |= {
            "createdDateTime": item.created,
            "eTag": item.etag,
            "id": item.id,
            "lastModifiedDateTime": item.modified,
            "name": item.name,
            "webUrl": self._item_url(record, item),
            "cTag": item.ctag,
            "size": self._size(item),
            "createdBy": self._identity(item.created_by, None),
            "lastModifiedBy": self._identity(item.modified_by, item.editor),
            "parentReference": self._parent(record, item),
            "fileSystemInfo": {
                "createdDateTime": item.created,
                "lastModifiedDateTime": item.modified,
            },
            **self._facets(item),
        }
        if select is not None and "publication" in select and item.kind == "file":
            body["publication"] = versions.publication(item)
        body = selected(body, select)
        for name, expansion in (expand or {}).items():
            if name == "listItem" and item.kind != "root":
                body["listItem"] = self.row(item, select=expansion.select, expand=expansion.expand)
            elif name == "children" and item.is_folder:
                children = self._store.children(item.id)
                body["children"] = [self.drive_item(child, select=expansion.select) for child in children]
            else:
                raise invalid(f"Could not find a property named '{name}' to expand.")
        return body

    def deleted_item(self, item: Item) -> JsonObject:
        """An item that is gone, as delta shows it."""
        return {
            "id": item.id,
            "size": 0,
            "parentReference": self._parent(self._store.lists[item.list_id], item),
            "deleted": {"state": "deleted"},
        }

    def row(
        self,
        item: Item,
        *,
        select: tuple[str, ...] | None = None,
        expand: Mapping[str, Expansion] | None = None,
    ) -> JsonObject:
        """A list item. Raises GraphError 400 for an expansion that does not exist."""
        check_select(select, "listItem")
        record = self._store.lists[item.list_id]
        content_type = "Ordner" if item.is_folder else "Dokument" if record.is_library else "Element"
        body: JsonObject = {
            "@odata.etag": item.row_etag,
            "createdDateTime": item.created,
            "eTag": item.row_etag,
            "id": str(item.number),
            "lastModifiedDateTime": item.modified,
            "webUrl": self._item_url(record, item),
            "createdBy": self._identity(item.created_by, None),
            "lastModifiedBy": self._identity(item.modified_by, item.editor),
            "parentReference": {
                "id": stable_id("parent", item.parent_id or record.id),
                "siteId": shipped.SITE_ID,
            },
            "contentType": {
                "id": "0x0120" if item.is_folder else "0x010100" if record.is_library else "0x0100",
                "name": content_type,
            },
            "sharepointIds": {
                "listId": record.id,
                "listItemId": str(item.number),
                "listItemUniqueId": item.guid,
                "siteId": shipped.SITE_COLLECTION_ID,
                "siteUrl": self.site_url,
                "webId": shipped.WEB_ID,
            },
        }
        if select is None:
            del body["sharepointIds"]
        body = selected(body, select)
        for name, expansion in (expand or {}).items():
            if name == "fields":
                body["fields@odata.context"] = self.context("sites/lists/items/fields/$entity")
                body["fields"] = self.fields(item, expansion.select)
            elif name == "driveItem" and record.is_library:
                body["driveItem"] = self.drive_item(item, select=expansion.select, expand=expansion.expand)
            else:
                raise invalid(f"Could not find a property named '{name}' to expand.")
        return body

    def row_version(self, item: Item, version: ItemVersion, *, fields: bool) -> JsonObject:
        """A version of a list item."""
        body: JsonObject = {
            "id": version.label,
            "lastModifiedBy": self._identity(version.modified_by, version.editor),
            "lastModifiedDateTime": version.modified,
        }
        if fields:
            shown = replace(item, fields=version.fields, modified_by=version.modified_by)
            body["fields"] = self.fields(shown, None)
        return body

    def fields(self, item: Item, select: tuple[str, ...] | None) -> JsonObject:
        """The values of a list item. Raises GraphError 400."""
        record = self._store.lists[item.list_id]
        return {"@odata.etag": item.row_etag, **field_values.read(self._store, record, item, select)}

    def download_url(self, item: Item) -> str:
        """The pre-authenticated address of a file's bytes."""
        expires = int(time.time()) + DOWNLOAD_SECONDS
        text = f"{item.id}.{expires}"
        return f"{self.storage}/download/{item.id}?expires={expires}&tempauth={self._tokens.sign(text)}"

    def upload_url(self, session_id: str) -> str:
        """The pre-authenticated address of an upload session."""
        return f"{self.storage}/upload/{session_id}?tempauth={self._tokens.sign(session_id)}"

    def _list_url(self, record: ListRecord) -> str:
        lists = "" if record.is_library else "Lists/"
        site = f"{self.origin}/{quote(record.site)}" if record.site else self.site_url
        return f"{site}/{lists}{quote(record.name)}"

    def _item_url(self, record: ListRecord, item: Item) -> str:
        if item.kind == "row":
            return f"{self._list_url(record)}/{item.number}_.000"
        return "/".join(filter(None, [self._list_url(record), quote(self._store.graph_path(item))]))

    def _size(self, item: Item) -> int:
        if item.is_folder:
            return sum(self._size(child) for child in self._store.children(item.id))
        return item.content.size if item.content else 0

    def _parent(self, record: ListRecord, item: Item) -> JsonObject:
        body: JsonObject = {
            "driveType": "documentLibrary",
            "driveId": drive_id(record.id),
            "siteId": shipped.SITE_ID,
        }
        parent = self._store.items.get(item.parent_id or "")
        if parent is not None:
            path = self._store.graph_path(parent)
            body |= {
                "id": parent.id,
                "name": record.display_name if parent.kind == "root" else parent.name,
                "path": f"/drives/{drive_id(record.id)}/root:" + (f"/{quote(path)}" if path else ""),
            }
        return body

    def _facets(self, item: Item) -> JsonObject:
        if item.kind == "root":
            return {"root": {}, "folder": {"childCount": len(self._store.taken_names(item.id))}}
        if item.content is None:
            return {"folder": {"childCount": len(self._store.taken_names(item.id))}}
        content = item.content
        file: JsonObject = {"mimeType": content.media_type}
        if not self._items.hash_is_late(item):
            file["hashes"] = {"quickXorHash": content.quick_xor_hash}
        return {"file": file, **content.facets}

    @staticmethod
    def _identity(author: str, name: str | None) -> JsonObject:
        match author:
            case "person":
                return {"user": {"id": stable_id("person", name or ""), "displayName": name or "Bauleitung"}}
            case "service":
                return {"user": {"displayName": "Systemkonto"}}
            case _:
                return {**_APP, "user": {"displayName": "SharePoint-App"}}
