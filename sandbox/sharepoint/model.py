"""What the emulator remembers: sites, lists, columns, items, upload sessions. No HTTP in here."""

from __future__ import annotations

import base64
import hashlib
import uuid
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec

JsonObject: TypeAlias = dict[str, object]
"""A JSON object as it travels; who reads a value checks its type."""

ConflictBehavior: TypeAlias = Literal["fail", "replace", "rename"]
Author: TypeAlias = Literal["app", "person", "service"]
"""Who did it: a Graph client, a person in the browser, SharePoint itself."""

NAMESPACE = uuid.UUID("6f2d7a54-3b7e-4f0c-9a51-0d7f3f1c2b8e")
"""Ids of what is shipped are derived from names in here, so that they are the same in every folder."""

ROOT_ID_PREFIX = "root-"


def timestamp(moment: float) -> str:
    """Unix seconds as Graph writes times: UTC, whole seconds, ``Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stable_id(*names: str) -> str:
    """A GUID that is the same for the same names."""
    return str(uuid.uuid5(NAMESPACE, "/".join(names)))


def drive_id(list_id: str) -> str:
    """The drive id of a library: ``b!`` and base64url text, as SharePoint's are."""
    raw = hashlib.sha256(list_id.encode()).digest() + uuid.UUID(list_id).bytes
    return "b!" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def item_id(guid: str) -> str:
    """The drive item id that belongs to a GUID: ``01`` and 32 characters of base32, as SharePoint's are."""
    return "01" + base64.b32encode(hashlib.sha1(guid.encode(), usedforsecurity=False).digest()).decode()


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all records on disk have in common."""


class Column(Stored, frozen=True, kw_only=True):
    """A column of a list. `facet` is what it truly is, whether or not v1.0 shows that."""

    name: str
    display_name: str
    facet: str
    settings: JsonObject = {}
    """The facet's content, for example ``{"choices": [...]}``."""
    description: str = ""
    group: str = "Benutzerdefinierte Spalten"
    hidden: bool = False
    indexed: bool = False
    read_only: bool = False
    required: bool = False
    unique: bool = False
    default: str | None = None
    """As a column definition has it: a value, or a formula such as ``=[today]``."""
    validation: str | None = None
    """A text that every value of the column must contain: in place of a formula."""

    @property
    def multiple(self) -> bool:
        """Whether the column holds a list of values."""
        return (self.facet == "choice" and self.settings.get("displayAs") == "checkBoxes") or any(
            self.settings.get(key) for key in ("allowMultipleValues", "allowMultipleSelection")
        )


class LibrarySettings(Stored, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site's owner has switched on in a library, and what SharePoint then does by itself."""

    one_session_per_name: bool = True
    """A second upload session for a name is refused while the first is open."""
    alters_bytes: int = 0
    """Bytes that SharePoint appends to a new file, as it does when it writes columns into it."""
    requires_checkout: bool = False
    """A new or changed file stays checked out to who wrote it until it is checked in."""
    minor_versions: bool = False
    """A new or changed file is a draft until it is published as a major version."""
    approval: bool = False
    """A new or changed file waits until a person approves it."""
    hides_unapproved: bool = False
    """With `approval`: the app does not see what is not approved."""
    title_from_file: bool = False
    """SharePoint sets the title of a new file from the file itself."""
    versions: bool = True
    """The library keeps the versions of its items."""
    odata_names: bool = False
    """A column whose internal name begins with ``_`` is read and written as ``OData__…``."""


class ListRecord(Stored, frozen=True, kw_only=True):
    """A list of the site; a library is a list whose template is ``documentLibrary``."""

    id: str
    name: str
    """The part of the address, for example ``Freigegebene Dokumente``."""
    display_name: str
    template: str
    """``documentLibrary``, ``pictureLibrary``, ``mediaLibrary`` …; ``genericList`` has no files."""
    columns: tuple[Column, ...]
    created: str
    settings: LibrarySettings = LibrarySettings()
    site: str = ""
    """The path of the site it is in, ``sites/Bau/Umbau``; empty: the one site that is always there."""

    @property
    def is_library(self) -> bool:
        """Whether it has a drive."""
        return self.template != "genericList"

    @property
    def root_id(self) -> str:
        """The drive item id of the library's top folder."""
        return item_id(ROOT_ID_PREFIX + self.id)

    def column(self, name: str) -> Column | None:
        """The column of that internal name."""
        return next((column for column in self.columns if column.name == name), None)


class Content(Stored, frozen=True, kw_only=True):
    """The bytes of a file, described."""

    size: int
    sha256: str
    quick_xor_hash: str
    media_type: str
    facets: JsonObject = {}
    """``image``, ``photo`` and ``location`` as the service reads them from a picture."""


class Effect(Stored, frozen=True, kw_only=True):
    """One thing that took place, as it stands in ``effects.jsonl``."""

    seq: int
    """Grows by one with every effect; also the position that delta tokens count in."""
    time: str
    effect: str
    """``upload``, ``fields``, ``renamed``, ``deleted``, ``folder_created``, ``touched`` (by SharePoint),
    ``checked_out``, ``checked_in``, ``check_out_discarded``,
    ``session_created``, ``session_finished``, ``session_cancelled``, ``session_expired``."""
    by: Author
    item_id: str | None = None
    list_item_id: str | None = None
    library: str | None = None
    name: str | None = None
    outcome: Literal["created", "replaced"] | None = None
    sha256: str | None = None
    size: int | None = None
    etag: str | None = None
    fields: tuple[str, ...] | None = None
    """Names of the columns that were sent."""
    changed: tuple[str, ...] | None = None
    """Those of them whose value is another one than before."""
    session: str | None = None
    request_id: str | None = None


class ItemVersion(Stored, frozen=True, kw_only=True):
    """An item as one version of it was."""

    label: str
    """``1.0``."""
    modified: str
    modified_by: Author
    editor: str | None = None
    fields: JsonObject = {}


class Item(Stored, frozen=True, kw_only=True):
    """A file, a folder or a row of a list."""

    id: str
    guid: str
    kind: Literal["file", "folder", "root", "row"]
    """``row``: of a list without files; ``root``: the top folder of a library."""
    number: int
    """The list item id; 0 for the root, which has none."""
    list_id: str
    parent_id: str | None = None
    """The folder a file or folder lies in."""
    name: str
    fields: JsonObject = {}
    content: Content | None = None
    version: int = 1
    """Counts every change: the number in the eTag."""
    content_version: int = 1
    """Counts changes of the bytes: the number in the cTag."""
    created: str
    modified: str
    created_by: Author = "app"
    modified_by: Author = "app"
    editor: str | None = None
    """The name of the person, where one made the last change."""
    major: int = 1
    minor: int = 0
    history: tuple[ItemVersion, ...] = ()
    """The oldest first; the last one is the current state."""
    checked_out_by: Author | None = None
    before_check_out: ItemVersion | None = None
    """What a discarded check-out goes back to; None for a new file that was never checked in."""
    moderation: int = 0
    """The value of ``_ModerationStatus``."""
    deleted: bool = False
    effect: Effect | None = None
    """The change that led to this record; written to the log after it (see `store`). None: shipped."""
    incoming: str | None = None
    """Where the bytes of this record lie until they are moved to their place, relative to the folder."""
    moved_from: str | None = None
    """The place of the file or folder before a rename, likewise."""

    @property
    def is_folder(self) -> bool:
        """Whether it holds other items."""
        return self.kind in ("folder", "root")

    @property
    def sequence(self) -> int:
        """When it last changed, in the count of effects; 0 for what was shipped."""
        return self.effect.seq if self.effect else 0

    @property
    def etag(self) -> str:
        """The drive item's eTag, quotes included."""
        return f'"{{{self.guid.upper()}}},{self.version}"'

    @property
    def ctag(self) -> str:
        """The drive item's cTag, quotes included."""
        return f'"c:{{{self.guid.upper()}}},{self.content_version}"'

    @property
    def row_etag(self) -> str:
        """The list item's eTag, quotes included."""
        return f'"{self.guid},{self.version}"'


class UploadSession(Stored, frozen=True, kw_only=True):
    """An upload in fragments. `received` bytes of it lie in its part file."""

    id: str
    list_id: str
    parent_id: str
    name: str
    replaces: str | None
    """The item whose bytes are to be replaced, if the session was made on an item."""
    conflict: ConflictBehavior
    defer_commit: bool
    created: float
    expires: float
    """Unix seconds."""
    total: int | None = None
    received: int = 0
    dies_at: int | None = None
    """Strict mode: the session is gone once it has received more than this many bytes."""
