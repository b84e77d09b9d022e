"""Changes to files and folders, with the conditions under which SharePoint makes them."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final, Literal

from msgspec.structs import replace

from sandbox.sharepoint import field_values, names, versions
from sandbox.sharepoint.contents import describe
from sandbox.sharepoint.errors import invalid, modified, name_taken
from sandbox.sharepoint.model import Author, ConflictBehavior, Content, Item, JsonObject, item_id, timestamp
from sandbox.sharepoint.shipped import SITE_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox.sharepoint.addressing import ItemTarget
    from sandbox.sharepoint.model import ListRecord
    from sandbox.sharepoint.store import Store

LATE_HASH_SECONDS: Final = 1.0


def check_conditions(item: Item | None, headers: Mapping[str, str]) -> None:
    """Hold ``If-Match`` and ``If-None-Match`` against an item. Raises GraphError 412."""
    wanted = headers.get("If-Match")
    if wanted is not None and not _matches(item, wanted):
        raise modified()
    unwanted = headers.get("If-None-Match")
    if unwanted is not None and _matches(item, unwanted):
        raise modified()


def _matches(item: Item | None, tag: str) -> bool:
    """Whether a tag (eTag of the drive or list item, cTag, or ``*``) is the item's."""
    if item is None:
        return False
    plain = tag.strip().removeprefix("W/").strip('"').lower().replace("{", "").replace("}", "")
    return plain in ("*", f"{item.guid},{item.version}", f"c:{item.guid},{item.content_version}")


def _now() -> str:
    return timestamp(time.time())


def _alter(incoming: Path, added: int, name: str) -> Content:
    """Make a new file longer, as SharePoint makes some JPEGs (microsoft-graph-docs-contrib issue 8903)."""
    with incoming.open("ab") as file:
        file.write(bytes(added))
    return describe(incoming, name)


class Items:
    """Makes, changes and removes items; every change is one effect."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._late_hashes: dict[str, float] = {}

    def put(
        self,
        target: ItemTarget,
        content: Content,
        incoming: Path,
        *,
        conflict: ConflictBehavior,
        headers: Mapping[str, str],
        request_id: str,
        session: str | None = None,
    ) -> tuple[Item, bool]:
        """Store bytes as a new file or as the new bytes of one; the item, and whether it is new.

        Folders on the way are made. Raises GraphError: 409 name taken, 412 condition, 400 name.
        """
        item = target.item
        check_conditions(item, headers)
        if item is not None:
            versions.check_writable(item, target.record, "app")
        if item is not None and (item.is_folder or conflict == "fail"):
            raise name_taken()
        if added := target.record.settings.alters_bytes:
            content = _alter(incoming, added, target.item.name if target.item else target.missing[-1])
        if item is not None and conflict == "replace":
            changed = replace(
                item,
                content=content,
                version=item.version + 1,
                content_version=item.content_version + 1,
                modified=_now(),
                modified_by="app",
                editor=None,
            )
            return self._store_file(changed, content, incoming, "replaced", request_id, session), False
        if item is None:
            names.check_name(target.missing[-1])
            parent = self._make_folders(target, request_id)
            name = target.missing[-1]
        else:
            parent = target.parent
            name = names.free_name(item.name, self._store.taken_names(parent.id))
        created = self._new(target.record, "file", parent, name, content)
        return self._store_file(created, content, incoming, "created", request_id, session), True

    def make_folder(
        self, record: ListRecord, parent: Item, name: str, *, conflict: ConflictBehavior, request_id: str
    ) -> Item:
        """A new folder. Raises GraphError 409 or 400."""
        names.check_name(name, folder=True)
        taken = self._store.child(parent.id, name)
        if taken is not None and conflict != "rename":
            raise name_taken()
        if taken is not None:
            name = names.free_name(name, self._store.taken_names(parent.id))
        folder = self._new(record, "folder", parent, name, None)
        return self._save(folder, "folder_created", request_id=request_id)

    def rename(
        self,
        item: Item,
        name: str,
        parent: Item,
        *,
        request_id: str,
        written: field_values.Written | None = None,
        by: Author = "app",
    ) -> Item:
        """Give an item another name or folder. Raises GraphError 409 or 400."""
        if item.parent_id is None:
            raise invalid("The root of a drive cannot be renamed or moved.")
        names.check_name(name, folder=item.is_folder)
        above: Item | None = parent
        while above is not None:
            if above.id == item.id:
                raise invalid("A folder cannot be moved into itself.")
            above = self._store.items[above.parent_id] if above.parent_id else None
        taken = self._store.child(parent.id, name)
        if taken is not None and taken.id != item.id:
            raise name_taken()
        record = self._store.lists[item.list_id]
        self._check_path(record, parent, name)
        changed = replace(
            item,
            name=name,
            parent_id=parent.id,
            fields=item.fields if written is None else written.fields,
            version=item.version + 1,
            modified=_now(),
            modified_by=by,
        )
        return self._save(
            changed,
            "renamed",
            by=by,
            request_id=request_id,
            fields=written.sent if written else None,
            changed=written.changed if written else None,
        )

    def delete(self, item: Item, *, request_id: str) -> None:
        """Remove an item and what is in it."""
        if item.kind == "root":
            raise invalid("The root of a drive cannot be deleted.")
        for child in self._store.children(item.id):
            self.delete(child, request_id=request_id)
        self._save(replace(item, deleted=True, version=item.version + 1), "deleted", request_id=request_id)

    def patch_fields(
        self, item: Item, body: JsonObject, *, request_id: str, by: Author = "app", editor: str | None = None
    ) -> Item:
        """Write values. Raises GraphError 400, or 409 where a rename is among them and the name is taken."""
        record = self._store.lists[item.list_id]
        versions.check_writable(item, record, by)
        written = field_values.write(self._store, record, item, body, by_person=by == "person")
        if written.new_name is not None:
            parent = self._store.items[item.parent_id] if item.parent_id else item
            return self.rename(item, written.new_name, parent, request_id=request_id, written=written, by=by)
        changed = replace(
            item,
            fields=written.fields,
            version=item.version + 1,
            modified=_now(),
            modified_by=by,
            editor=editor,
        )
        return self._save(
            changed, "fields", by=by, request_id=request_id, fields=written.sent, changed=written.changed
        )

    def check_out(self, item: Item, *, request_id: str, by: Author = "app") -> Item:
        """Check a file out. Raises GraphError 423."""
        return self._save(versions.checked_out(item, by), "checked_out", by=by, request_id=request_id)

    def check_in(self, item: Item, *, published: bool, request_id: str, by: Author = "app") -> Item:
        """Check a file in. Raises GraphError 400 or 423."""
        record = self._store.lists[item.list_id]
        item = versions.checked_in(item, record, by, published=published)
        return self._save(item, "checked_in", by=by, request_id=request_id)

    def discard_check_out(self, item: Item, *, request_id: str, by: Author = "app") -> Item:
        """Undo a check-out. Raises GraphError 400."""
        record = self._store.lists[item.list_id]
        return self._save(
            versions.released(item, record), "check_out_discarded", by=by, request_id=request_id
        )

    def touch(self, item: Item, *, request_id: str) -> Item:
        """What SharePoint does by itself after an upload: another version, the same values and bytes."""
        return self._save(
            replace(item, version=item.version + 1), "touched", by="service", request_id=request_id
        )

    def delay_hash(self, item: Item) -> None:
        """Give the item's hash only after a moment, as happens right after an upload."""
        self._late_hashes[item.id] = time.monotonic() + LATE_HASH_SECONDS

    def hash_is_late(self, item: Item) -> bool:
        """Whether the item's hash is not computed yet."""
        until = self._late_hashes.get(item.id)
        if until is not None and time.monotonic() >= until:
            del self._late_hashes[item.id]
            return False
        return until is not None

    def _make_folders(self, target: ItemTarget, request_id: str) -> Item:
        for name in target.missing[:-1]:
            names.check_name(name, folder=True)
        path = "/".join(filter(None, [self._store.graph_path(target.parent), *target.missing]))
        names.check_path(f"{SITE_PATH}/{target.record.name}/{path}")
        parent = target.parent
        for name in target.missing[:-1]:
            parent = self.make_folder(target.record, parent, name, conflict="fail", request_id=request_id)
        return parent

    def _check_path(self, record: ListRecord, parent: Item, name: str) -> None:
        path = "/".join(filter(None, [self._store.graph_path(parent), name]))
        names.check_path(f"{SITE_PATH}/{record.name}/{path}")

    def _new(
        self,
        record: ListRecord,
        kind: Literal["file", "folder"],
        parent: Item,
        name: str,
        content: Content | None,
    ) -> Item:
        guid = str(uuid.uuid4())
        now = _now()
        return Item(
            id=item_id(guid),
            guid=guid,
            kind=kind,
            number=self._store.next_number(record.id),
            list_id=record.id,
            parent_id=parent.id,
            name=name,
            fields=field_values.with_defaults(record, name) if kind == "file" else {},
            content=content,
            created=now,
            modified=now,
        )

    def _store_file(
        self,
        item: Item,
        content: Content,
        incoming: Path,
        outcome: str,
        request_id: str,
        session: str | None,
    ) -> Item:
        return self._save(
            item,
            "upload",
            incoming=incoming,
            request_id=request_id,
            outcome=outcome,
            sha256=content.sha256,
            size=content.size,
            session=session,
        )

    def _save(
        self, item: Item, effect: str, *, by: Author = "app", incoming: Path | None = None, **details: object
    ) -> Item:
        if effect in ("upload", "fields", "renamed"):
            known = item.id in self._store.items
            item = versions.recorded(item, self._store.lists[item.list_id], new=not known)
        noted = self._store.effect(
            effect,
            by=by,
            item_id=item.id,
            list_item_id=str(item.number),
            library=self._store.lists[item.list_id].display_name,
            name=item.name,
            etag=item.etag,
            **details,
        )
        return self._store.save(replace(item, effect=noted), incoming=incoming)
