"""Finds out who wrote a value that stands in a column: an app of ours, or somebody else.

A value is never judged by what it is. SharePoint computes defaults by itself (today's date, a choice, a title
from the file), and a person may choose the very value that we would. So neighbouring versions are compared:
the version in which the value first stands names its author.

Source: learn.microsoft.com, "Listing versions of a ListItem".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from events.types import FieldText
from shared.sharepoint.answers import GraphError
from shared.sharepoint.client import segment
from shared.sharepoint.fields import from_graph, is_empty, same
from shared.sharepoint.wire import ListItemVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events.types import LibraryRef
    from shared.columns.schema import Column, LibrarySchema
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.items import Item

Author: TypeAlias = Literal["us", "somebody", "unknown"]
"""``us``: our own app, and what SharePoint did by itself when we stored the file."""

_FIRST = ("0.1", "1.0")
"""Labels of an item's first version. If the oldest one has another, older ones were removed."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an item."""

    label: str
    by_us: bool
    fields: dict[str, FieldText]


async def read_versions(
    client: GraphClient, library: LibraryRef, schema: LibrarySchema, item: Item
) -> list[Version]:
    """Read the versions of an item, the newest first. Empty if SharePoint does not show them."""
    path = f"/drives/{segment(library.drive_id)}/items/{segment(item.item_id)}/listItem/versions"
    try:
        return [
            Version(
                label=version.id,
                by_us=item.creator is not None and version.last_modified_by.app_id == item.creator,
                fields=from_graph(schema, version.fields),
            )
            async for version in client.pages(
                path,
                ListItemVersion,
                doing=f"reading the versions of {item.name}",
                params={"$expand": "fields"},
            )
        ]
    except GraphError as error:
        if error.status in (400, 403, 404, 501):
            return []
        raise


def author_of(column: Column, versions: Sequence[Version], *, untouched: bool) -> Author:
    """Find who wrote the value that now stands in a column.

    `untouched`: we have written nothing to the item since we stored it. Only then does a single version say
    something: in a library that keeps no versions a person's edit leaves no other trace than its author.
    """
    if not versions:
        return "unknown"
    now = versions[0].fields.get(column.name)
    written = versions[0]
    for version in versions:
        if not _equal(column, now, version.fields.get(column.name)):
            break
        written = version
    if len(versions) == 1:
        if not written.by_us:
            return "somebody"
        return "us" if untouched else "unknown"
    if written is versions[-1] and written.label not in _FIRST:
        return "unknown"
    return "us" if written.by_us else "somebody"


def _equal(column: Column, one: FieldText, other: FieldText) -> bool:
    if is_empty(one) or is_empty(other):
        return is_empty(one) and is_empty(other)
    return same(column, one, other)
