"""The emulator's memory and its folder.

::

    DIR/library/<display name>/…    the files themselves, for people to look at
    DIR/state/items/<id>.json       one record per item
    DIR/state/lists/<id>.json       lists with their columns
    DIR/state/sessions/<id>.json    upload sessions, and <id>.part with their bytes
    DIR/state/incoming/…            bytes of uploads under way
    DIR/effects.jsonl               what took place, one line each

A change is decided by one step, the rename of the item's new record onto its place. What follows it (moving
the bytes to where the record says, the line in the effect log) is noted in the record and made good at the
next start if the process was killed in between. So nothing is ever half-written, and the log has exactly
one line per change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import uuid
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from sandbox.sharepoint import shipped
from sandbox.sharepoint.errors import not_found
from sandbox.sharepoint.journal import Journal
from sandbox.sharepoint.model import Author, Effect, Item, ListRecord, UploadSession, drive_id, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_NAME_BYTES: Final = 255

RecordT = TypeVar("RecordT", bound=msgspec.Struct)


def _name_on_disk(name: str) -> str:
    """The name of a file in the folder: SharePoint takes 255 characters, file systems 255 bytes."""
    if len(name.encode()) <= _NAME_BYTES:
        return name
    suffix = name[name.rfind(".") :] if "." in name[-8:] else ""
    mark = "~" + hashlib.sha256(name.encode()).hexdigest()[:12] + suffix
    return name.encode()[: _NAME_BYTES - len(mark.encode())].decode(errors="ignore") + mark


class FolderInUseError(Exception):
    """Another emulator works on the folder."""


class Store:
    """All state. Every method that changes something is synchronous, so a change is never seen half-made."""

    def __init__(self, folder: Path, *, strict: bool = False) -> None:
        """Open `folder`, made and filled with what is shipped if it is new. Raises FolderInUseError."""
        self.folder = folder
        state = folder / "state"
        for name in ("items", "lists", "sessions", "incoming"):
            (state / name).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise FolderInUseError(
                f"another Graph emulator works on {folder}: stop it or give another folder"
            ) from None
        self.lists: dict[str, ListRecord] = {}
        self.items: dict[str, Item] = {}
        self.sessions: dict[str, UploadSession] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._rows: dict[str, dict[int, str]] = {}
        self._last_number: dict[str, int] = {}
        self.effects = Journal(folder / "effects.jsonl", Effect)
        self.sequence = 0
        self._load(strict=strict)

    def close(self) -> None:
        """Let go of the folder."""
        self.effects.close()
        os.close(self._lock)

    # ---- reading

    def list_of_drive(self, drive: str) -> ListRecord:
        """The library of a drive id. Raises GraphError 404."""
        for record in self.lists.values():
            if record.is_library and drive_id(record.id) == drive:
                return record
        raise not_found("The drive could not be found.")

    def child(self, parent_id: str, name: str) -> Item | None:
        """The item of that name in a folder; upper and lower case are the same."""
        found = self._names.get(parent_id, {}).get(name.casefold())
        return self.items[found] if found else None

    def taken_names(self, parent_id: str) -> Mapping[str, str]:
        """Case-folded names in a folder, with the ids."""
        return self._names.get(parent_id, {})

    def children(self, parent_id: str) -> list[Item]:
        """The items in a folder, ordered by name."""
        names = self._names.get(parent_id, {})
        return [self.items[names[name]] for name in sorted(names)]

    def rows(self, list_id: str) -> list[Item]:
        """Files, folders and rows of a list, ordered by number."""
        numbers = self._rows.get(list_id, {})
        return [self.items[numbers[number]] for number in sorted(numbers)]

    def row(self, list_id: str, number: int) -> Item | None:
        """The item of a list by its number."""
        found = self._rows.get(list_id, {}).get(number)
        return self.items[found] if found else None

    def changes(self, list_id: str, after: int) -> list[Item]:
        """Items of a library that changed after that effect, tombstones too, in the order of their change."""
        found = [item for item in self.items.values() if item.list_id == list_id and item.sequence > after]
        return sorted(found, key=lambda item: item.sequence)

    def path(self, item: Item) -> Path:
        """Where a file or folder lies on disk."""
        return self._place(item.list_id, item.parent_id, item.name)

    def graph_path(self, item: Item) -> str:
        """The path below the library's root, without a leading slash; empty for the root."""
        parts: list[str] = []
        while item.parent_id is not None:
            parts.append(item.name)
            item = self.items[item.parent_id]
        return "/".join(reversed(parts))

    # ---- changing

    def effect(self, kind: str, *, by: Author = "app", **details: object) -> Effect:
        """The next effect, numbered and timed; see `model.Effect` for the details."""
        self.sequence += 1
        now = time.time()
        moment = f"{timestamp(now)[:-1]}.{int(now % 1 * 1000):03d}Z"
        return msgspec.convert(
            {"seq": self.sequence, "time": moment, "effect": kind, "by": by, **details}, Effect
        )

    def note(self, effect: Effect) -> None:
        """Log an effect that changes no item."""
        self.effects.append(effect)

    def next_number(self, list_id: str) -> int:
        """The number of the next row; numbers of deleted rows do not come back."""
        return self._last_number.get(list_id, 0) + 1

    def save(self, item: Item, *, incoming: Path | None = None) -> Item:
        """Make a record the current one: it, its bytes (from `incoming`) and the line in the log."""
        old = self.items.get(item.id)
        item = msgspec.structs.replace(
            item,
            incoming=str(incoming.relative_to(self.folder)) if incoming else None,
            moved_from=self._old_place(old, item),
        )
        self._write(self._record("items", item.id), item)
        if old is not None:
            self._forget(old)
        self._remember(item)
        self._settle_files(item)
        if item.effect is not None:
            self.effects.append(item.effect)
        return item

    @property
    def sites(self) -> set[str]:
        """The paths of the sites there are; the one that is always there is empty."""
        return {"", *(record.site for record in self.lists.values())}

    def save_list(self, record: ListRecord) -> None:
        """Add a list or change its columns."""
        self._write(self._record("lists", record.id), record)
        self.lists[record.id] = record
        self._add_root(record)

    def save_session(self, session: UploadSession) -> None:
        """Add an upload session or note its progress."""
        self._write(self._record("sessions", session.id), session)
        self.sessions[session.id] = session

    def drop_session(self, session_id: str) -> None:
        """Forget an upload session and its bytes."""
        self.sessions.pop(session_id, None)
        self._record("sessions", session_id).unlink(missing_ok=True)
        self.part(session_id).unlink(missing_ok=True)

    def part(self, session_id: str) -> Path:
        """Where a session's bytes lie."""
        return self.folder / "state" / "sessions" / f"{session_id}.part"

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Path]:
        """A file for bytes under way; what `save` has not taken is removed at the end."""
        path = self.folder / "state" / "incoming" / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    # ---- folder and indexes

    def _record(self, kind: str, name: str) -> Path:
        return self.folder / "state" / kind / f"{name}.json"

    @staticmethod
    def _write(path: Path, record: msgspec.Struct) -> None:
        """Atomically: a reader, and a start after a kill, sees the old record or the new one."""
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(record))
        new.replace(path)

    def _place(self, list_id: str, parent_id: str | None, name: str) -> Path:
        parts = [_name_on_disk(name)]
        parent = self.items[parent_id] if parent_id else None
        while parent is not None and parent.parent_id is not None:
            parts.append(_name_on_disk(parent.name))
            parent = self.items[parent.parent_id]
        return self.folder.joinpath("library", self.lists[list_id].display_name, *reversed(parts))

    def _old_place(self, old: Item | None, item: Item) -> str | None:
        """Where the file or folder lay, if that is not where it shall lie."""
        if old is None or old.kind not in ("file", "folder") or old.deleted:
            return None
        before = self.path(old)
        if before == self._place(item.list_id, item.parent_id, item.name):
            return None
        return str(before.relative_to(self.folder))

    def _settle_files(self, item: Item) -> None:
        """Bring the folder into the state that the record says. May be done twice."""
        if item.kind not in ("file", "folder"):
            return
        place = self.path(item)
        if item.deleted:
            if item.parent_id and self.child(item.parent_id, item.name) is None:
                with contextlib.suppress(FileNotFoundError):
                    place.rmdir() if item.kind == "folder" else place.unlink()
            return
        if item.moved_from and not place.exists():
            with contextlib.suppress(FileNotFoundError):
                (self.folder / item.moved_from).rename(place)
        if item.incoming:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / item.incoming).replace(place)
        if item.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)

    def _remember(self, item: Item) -> None:
        self.items[item.id] = item
        self._last_number[item.list_id] = max(item.number, self._last_number.get(item.list_id, 0))
        if item.deleted:
            return
        if item.parent_id is not None:
            self._names.setdefault(item.parent_id, {})[item.name.casefold()] = item.id
        if item.kind != "root":
            self._rows.setdefault(item.list_id, {})[item.number] = item.id

    def _forget(self, item: Item) -> None:
        if item.parent_id is not None and not item.deleted:
            self._names[item.parent_id].pop(item.name.casefold(), None)
        self._rows.get(item.list_id, {}).pop(item.number, None)

    def _add_root(self, record: ListRecord) -> None:
        if not record.is_library or record.root_id in self.items:
            return
        self.items[record.root_id] = Item(
            id=record.root_id,
            guid=record.id,
            kind="root",
            number=0,
            list_id=record.id,
            name="root",
            created=record.created,
            modified=record.created,
            created_by="service",
            modified_by="service",
        )
        (self.folder / "library" / record.display_name).mkdir(parents=True, exist_ok=True)

    def _load(self, *, strict: bool) -> None:
        for record in self._read("lists", ListRecord):
            self.lists[record.id] = record
        new = not self.lists
        for record in shipped.lists(strict=strict):
            known = self.lists.get(record.id)
            missing = [column for column in record.columns if known and not known.column(column.name)]
            if known is None:
                self.save_list(record)
            elif strict and missing:
                self.save_list(msgspec.structs.replace(known, columns=(*known.columns, *missing)))
        for record in self.lists.values():
            self._add_root(record)
        for item in self._read("items", Item):
            self._remember(item)
        self._make_good()
        if new:
            for row in shipped.projects():
                self.save(row)

    def _make_good(self) -> None:
        """Finish what the last process had decided and not done."""
        logged = max((effect.seq for effect in self.effects), default=0)
        latest = sorted(self.items.values(), key=lambda item: item.sequence)
        for item in latest:
            if item.effect is not None and item.effect.seq > logged:
                self._settle_files(item)
                self.effects.append(item.effect)
        self.sequence = max([logged, *(item.sequence for item in latest)])
        for path in (self.folder / "state" / "incoming").iterdir():
            path.unlink()
        for session in self._read("sessions", UploadSession):
            part = self.part(session.id)
            if session.received and not part.exists():  # its bytes became a file already
                self._record("sessions", session.id).unlink()
                library = self.lists[session.list_id].display_name
                self.note(
                    self.effect("session_finished", session=session.id, library=library, name=session.name)
                )
                continue
            if session.received:
                os.truncate(part, session.received)  # a fragment that was cut off does not count
            self.sessions[session.id] = session

    def _read(self, kind: str, record_type: type[RecordT]) -> Iterable[RecordT]:
        decoder = msgspec.json.Decoder(record_type)
        for path in sorted((self.folder / "state" / kind).glob("*.json")):
            yield decoder.decode(path.read_bytes())
