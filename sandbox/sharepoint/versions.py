"""Versions of an item: their numbers, who wrote them, check-out, drafts and approval.

Sources: "driveItem: checkin", "driveItem: checkout", "driveItem: discardCheckout", "publicationFacet resource
type", "Listing versions of a ListItem" (Graph), and Microsoft's "How versioning works in lists and
libraries": a library that requires check-out keeps a new file as 0.1 for its author, one with drafts counts
0.1, 0.2 … until a version is published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sandbox.sharepoint.errors import GraphError
from sandbox.sharepoint.model import ItemVersion

if TYPE_CHECKING:
    from sandbox.sharepoint.model import Author, Item, JsonObject, ListRecord

APPROVED: Final = 0
PENDING: Final = 2
"""Values of the column ``_ModerationStatus`` (SPModerationStatusType)."""


def label(item: Item) -> str:
    """The number of the current version, ``1.0``."""
    return f"{item.major}.{item.minor}"


def recorded(item: Item, record: ListRecord, *, new: bool) -> Item:
    """The item with the version that a change of it makes."""
    if item.kind not in ("file", "row"):
        return item
    settings = record.settings
    major, minor, holder = item.major, item.minor, item.checked_out_by
    if new and item.kind == "file":
        draft = settings.minor_versions or settings.requires_checkout
        major, minor = (0, 1) if draft else (1, 0)
        holder = item.modified_by if settings.requires_checkout else None
    elif not new and holder is None and settings.minor_versions:
        minor += 1
    elif not new and holder is None and settings.versions:
        major, minor = major + 1, 0
    moderation = PENDING if settings.approval else APPROVED
    return _noted(
        replace(item, major=major, minor=minor, checked_out_by=holder, moderation=moderation), record
    )


def check_writable(item: Item, record: ListRecord, by: Author) -> None:
    """Refuse a change that the check-out forbids. Raises GraphError 423."""
    if item.checked_out_by not in (None, by):
        raise GraphError(423, "resourceLocked", "The file is checked out for editing by another user.")
    if by == "app" and item.kind == "file" and record.settings.requires_checkout and not item.checked_out_by:
        raise GraphError(
            423,
            "notAllowed",
            "The file is not checked out. You must first check out this document before making changes.",
        )


def checked_out(item: Item, by: Author) -> Item:
    """The item, checked out. Raises GraphError 423 if somebody else has it."""
    if item.checked_out_by not in (None, by):
        raise GraphError(423, "resourceLocked", "The file is checked out for editing by another user.")
    before = item.before_check_out if item.checked_out_by else _as_version(item)
    return replace(item, checked_out_by=by, before_check_out=before, version=item.version + 1)


def released(item: Item, record: ListRecord) -> Item:
    """The item without its check-out and the fields written in it; replaced bytes stay.

    An app may discard anybody's check-out. Raises GraphError 400 if there is none.
    """
    if item.checked_out_by is None:
        raise GraphError(400, "invalidRequest", "The file is not checked out.")
    fields = item.before_check_out.fields if item.before_check_out else item.fields
    return _noted(
        replace(item, checked_out_by=None, before_check_out=None, fields=fields, version=item.version + 1),
        record,
    )


def checked_in(item: Item, record: ListRecord, by: Author, *, published: bool) -> Item:
    """The item, checked in, and as a major version if that is asked for. Raises GraphError 400 or 423."""
    if item.checked_out_by is None:
        raise GraphError(400, "invalidRequest", "The file is not checked out.")
    if item.checked_out_by != by:
        raise GraphError(423, "resourceLocked", "The file is checked out for editing by another user.")
    item = replace(item, checked_out_by=None, before_check_out=None, version=item.version + 1)
    if (item.minor and published) or not record.settings.minor_versions:
        item = _noted(replace(item, major=item.major + 1, minor=0), record)
    return item


def publication(item: Item) -> JsonObject:
    """The ``publication`` facet."""
    body: JsonObject = {"level": "checkout" if item.checked_out_by else "published", "versionId": label(item)}
    if item.checked_out_by == "person":
        body["checkedOutBy"] = {"user": {"id": "person", "displayName": "Bauleitung"}}
    elif item.checked_out_by:
        body["checkedOutBy"] = {"application": {"displayName": "erni"}}
    return body


def _noted(item: Item, record: ListRecord) -> Item:
    """The item with its current state as the newest version; one of another label stays before it."""
    version = _as_version(item)
    before = item.history if record.settings.versions else ()
    if before and before[-1].label == version.label:
        before = before[:-1]
    return replace(item, history=(*before, version))


def _as_version(item: Item) -> ItemVersion:
    return ItemVersion(
        label=label(item),
        modified=item.modified,
        modified_by=item.modified_by,
        editor=item.editor,
        fields=item.fields,
    )
