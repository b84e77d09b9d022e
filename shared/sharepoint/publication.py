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
from shared.sharepoint.uploads import ItemChangedError

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.items import Item

_log = structlog.get_logger(__name__)

_COMMENT: Final = "Erni Foto Agency"
_REFUSED: Final = frozenset({400, 403, 405, 409, 422, 501})
"""Answers of a library that does not let us check out, check in or publish. That is a person's to do."""
_GONE: Final = 404
_TAKEN: Final = 500


async def check_out(client: GraphClient, drive_id: str, item: Item) -> GraphError | None:
    """Check a file out for our app. Returns the library's refusal if it does not let us.

    Raises PostponeError while a person has it, ItemChangedError if it was removed.
    """
    try:
        return await _asked(client, drive_id, item, "checkout", {})
    except GraphError as error:
        # Graph also answers 500 for a file that somebody else has (microsoft-graph-docs-contrib issue 222).
        later = await read_item(client, drive_id, item.item_id) if error.status == _TAKEN else None
        if later is None or later.checked_out != "somebody":
            raise
        return error


async def publish(client: GraphClient, drive_id: str, item: Item) -> Item:
    """Check in and publish a file that only our app can see. Returns the item as it is then.

    A draft is checked out first, because only a check-in can publish through Graph. A file that a person has
    checked out is left to them, and so is one that the library does not let us check out or in: it stays a
    draft. Raises as `check_out` does.
    """
    if item.checked_out == "somebody" or not (item.checked_out or item.draft):
        return item
    refused = None if item.checked_out else await check_out(client, drive_id, item)
    if refused is None:
        how = {"checkInAs": "published", "comment": _COMMENT}
        refused = await _asked(client, drive_id, item, "checkin", how)
        if refused is not None and not item.checked_out:
            await _undo_check_out(client, drive_id, item)
    if refused is not None:
        _log.warning("a stored photo could not be published", error=str(refused))
    return await read_item(client, drive_id, item.item_id) or item


async def _undo_check_out(client: GraphClient, drive_id: str, item: Item) -> None:
    """Undo a check-out of ours that nothing was written in; otherwise nobody else could publish the draft."""
    later = await read_item(client, drive_id, item.item_id)
    # an app may discard anybody's check-out, and with it what they wrote
    if later is None or later.checked_out != "us":
        return
    if refused := await _asked(client, drive_id, item, "discardCheckout", {}):
        _log.warning("a stored photo stays checked out to the app", error=str(refused))


async def _asked(
    client: GraphClient, drive_id: str, item: Item, action: str, body: dict[str, str]
) -> GraphError | None:
    """Ask for one action. Returns the library's refusal, which concerns this action alone."""
    try:
        await client.send(
            "POST",
            f"/drives/{segment(drive_id)}/items/{segment(item.item_id)}/{action}",
            doing=f"publishing {item.name} ({action})",
            json=body,
        )
    except GraphError as error:
        if error.status == _GONE:
            raise ItemChangedError(f"{item.name} was removed meanwhile") from error
        if error.status not in _REFUSED:
            raise
        return error
    return None
