"""Makes a stored photo visible to people: checks it in and publishes it where the library asks for that.

Sources: learn.microsoft.com, "driveItem: checkout", "driveItem: checkin", "driveItem: discardCheckout",
"publicationFacet resource type".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from shared.sharepoint.answers import GraphError
from shared.sharepoint.client import segment
from shared.sharepoint.items import read_item

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.items import Item

_log = structlog.get_logger(__name__)

_COMMENT: Final = "Erni Foto Agency"
_REFUSED: Final = frozenset({400, 403, 409})
"""Answers of a library that does not let us check in or publish. That is a person's to do."""


async def check_out(client: GraphClient, drive_id: str, item: Item) -> None:
    """Check a file out for our app. Raises PostponeError while a person has it."""
    await _call(client, drive_id, item, "checkout", {})


async def publish(client: GraphClient, drive_id: str, item: Item) -> Item:
    """Check in and publish a file that only our app can see. Returns the item as it is then.

    A draft is checked out first, because only a check-in can publish through Graph. A file that a person has
    checked out is left to them, and so is one that the library does not let us check in: it stays a draft.
    """
    if item.checked_out == "somebody" or not (item.checked_out or item.draft):
        return item
    if not item.checked_out:
        await check_out(client, drive_id, item)
    try:
        await _call(client, drive_id, item, "checkin", {"checkInAs": "published", "comment": _COMMENT})
    except GraphError as error:
        if error.status not in _REFUSED:
            raise
        _log.warning("a stored photo could not be published", error=str(error))
        if not item.checked_out:
            await _undo_check_out(client, drive_id, item)
    return await read_item(client, drive_id, item.item_id) or item


async def _undo_check_out(client: GraphClient, drive_id: str, item: Item) -> None:
    """Undo a check-out of ours that nothing was written in; otherwise nobody else could publish the draft."""
    later = await read_item(client, drive_id, item.item_id)
    # an app may discard anybody's check-out, and with it what they wrote
    if later is None or later.checked_out != "us":
        return
    try:
        await _call(client, drive_id, item, "discardCheckout", {})
    except GraphError as error:
        if error.status not in _REFUSED:
            raise
        _log.warning("a stored photo stays checked out to the app", error=str(error))


async def _call(client: GraphClient, drive_id: str, item: Item, action: str, body: dict[str, str]) -> None:
    await client.send(
        "POST",
        f"/drives/{segment(drive_id)}/items/{segment(item.item_id)}/{action}",
        doing=f"publishing {item.name} ({action})",
        json=body,
    )
