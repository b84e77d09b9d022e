"""Reads one file of a library: its bytes, its fields, and who changed it last."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

import msgspec

from events.identities import Sha256
from shared.sharepoint.answers import GraphError
from shared.sharepoint.client import segment
from shared.sharepoint.wire import DriveItem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.wire import Publication

_WITH_FIELDS: Final = {
    # Graph shows `publication` only if it is selected by name, and then everything else has to be, too.
    "$select": "id,name,size,webUrl,eTag,cTag,file,createdBy,lastModifiedBy,publication",
    "$expand": "listItem($expand=fields)",
}


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a file as it is in the library at one moment."""

    item_id: str
    name: str
    size: int
    """Bytes."""
    web_url: str
    etag: str
    """Changes with the bytes and with the fields; for If-Match on the file."""
    fields_etag: str
    """The list item's eTag; for If-Match on the fields. Empty where only the file was read."""
    quick_xor_hash: str | None
    """Base64; None while SharePoint has not computed it."""
    fields: dict[str, Any]
    """Graph's values by internal column name."""
    touched_by_person: bool
    """Whether the last change was a person's rather than an app's or SharePoint's own."""
    creator: str | None = None
    """The application id of who stored the file; None for a person."""
    checked_out: Literal["", "us", "somebody"] = ""
    """Who has checked it out; others do not see what was written since."""
    draft: bool = False
    """Whether the newest version is a minor one, which readers of the library do not see."""
    moderation: int = 0
    """SharePoint's ``_ModerationStatus``: 0 approved, 1 rejected, 2 pending, 3 draft."""


def as_item(found: DriveItem) -> Item:
    """Convert a drive item of Graph."""
    row = found.list_item
    by = found.last_modified_by
    version = str(row.fields.get("_UIVersionString", "")) if row else ""
    moderation = row.fields.get("_ModerationStatus", 0) if row else 0
    return Item(
        item_id=found.id,
        name=found.name,
        size=found.size,
        web_url=found.web_url,
        etag=found.e_tag,
        fields_etag=(row.odata_etag or row.e_tag or "") if row else "",
        quick_xor_hash=found.file.hashes.quick_xor_hash if found.file and found.file.hashes else None,
        fields=row.fields if row else {},
        touched_by_person=by is not None and by.user is not None and by.application is None,
        creator=found.created_by.app_id if found.created_by else None,
        checked_out=_holder(found.publication),
        draft=is_draft(version),
        moderation=int(moderation) if str(moderation).isdigit() else 0,
    )


def is_draft(version: str) -> bool:
    """Return whether a version number is that of a draft: ``0.2``."""
    return "." in version and not version.endswith(".0")


def _holder(publication: Publication | None) -> Literal["", "us", "somebody"]:
    if publication is None or publication.level != "checkout":
        return ""
    by = publication.checked_out_by
    return "somebody" if by is not None and by.user is not None and by.application is None else "us"


async def read_item(client: GraphClient, drive_id: str, item_id: str) -> Item | None:
    """Read a file with its fields, in one call; None if it is gone."""
    return await _read(client, f"/drives/{segment(drive_id)}/items/{segment(item_id)}", "the stored photo")


async def find_item(client: GraphClient, drive_id: str, name: str) -> Item | None:
    """Find the file of that name at the top of a library, with its fields; None if there is none."""
    return await _read(client, f"/drives/{segment(drive_id)}/root:/{segment(name)}", name)


def content(
    client: GraphClient, drive_id: str, item_id: str, *, target: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a file, piece by piece. `target`: whose breaker its failures count for."""
    path = f"/drives/{segment(drive_id)}/items/{segment(item_id)}/content"
    return client.stream(path, doing="downloading the stored photo", target=target)


async def content_sha256(client: GraphClient, drive_id: str, item_id: str) -> Sha256:
    """Download a file and compute its SHA-256, for the time while SharePoint has no hash of its own."""
    digest = hashlib.sha256()
    async with aclosing(content(client, drive_id, item_id)) as chunks:
        async for chunk in chunks:
            digest.update(chunk)
    return Sha256(digest.hexdigest())


def content_at(
    client: GraphClient, drive_id: str, path: str, *, target: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of the file at a path below a library's top folder. `target`: as in `content`."""
    name = path.rpartition("/")[2]
    return client.stream(
        f"/drives/{segment(drive_id)}/root:/{quote(path.strip('/'))}:/content",
        doing=f"downloading {name}",
        target=target,
    )


async def _read(client: GraphClient, path: str, what: str) -> Item | None:
    try:
        found = await client.get(path, DriveItem, doing=f"reading {what} and its fields", params=_WITH_FIELDS)
    except GraphError as error:
        if error.status == 404:
            return None
        raise
    return as_item(found)
