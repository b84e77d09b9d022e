"""Drive items: reading, children, delta, uploads, renaming, deleting."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast, get_args
from urllib.parse import urlencode

from sandbox.sharepoint.addressing import ItemTarget
from sandbox.sharepoint.contents import describe
from sandbox.sharepoint.errors import GraphError, invalid, not_found
from sandbox.sharepoint.exchange import Answer, Routes
from sandbox.sharepoint.faults import STRICT_SHARE_LATE_HASH
from sandbox.sharepoint.items import check_conditions
from sandbox.sharepoint.model import ConflictBehavior, Item, drive_id
from sandbox.sharepoint.odata import option, pack_token, parse_top, refuse_skip, unpack_token
from sandbox.sharepoint.versions import APPROVED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.sharepoint.exchange import Call
    from sandbox.sharepoint.model import JsonObject

MAX_SIMPLE_UPLOAD: Final = 250 * 1024 * 1024
_CONFLICT: Final = "@microsoft.graph.conflictBehavior"
_PAGE: Final = 200
_LARGEST_PAGE: Final = 999
_FUNCTION: Final = re.compile(r"delta\(token='([^']*)'\)")
_ORDERS: Final = {
    "name": lambda item: item.name.casefold(),
    "size": lambda item: item.content.size if item.content else 0,
    "lastModifiedDateTime": lambda item: item.modified,
    "createdDateTime": lambda item: item.created,
}


def item_target(call: Call) -> ItemTarget:
    """The drive item that the address means."""
    target = call.address.target
    if not isinstance(target, ItemTarget):
        raise not_found()
    return target


def conflict_behavior(value: object, default: ConflictBehavior) -> ConflictBehavior:
    """Read a conflict behaviour. Raises GraphError 400."""
    if value is None:
        return default
    if value not in get_args(ConflictBehavior):
        raise invalid(f"Invalid value for {_CONFLICT}.")
    return cast("ConflictBehavior", value)


def _visible(call: Call, item: Item) -> Item:
    """The item, if the app may see it: one that waits for approval may be hidden. Raises GraphError 404.

    Source: microsoft-graph-docs pull request 10153 (``Sites.Manage.All`` shows it).
    """
    settings = call.service.store.lists[item.list_id].settings
    if settings.hides_unapproved and item.moderation != APPROVED:
        raise not_found("Item not found")
    return item


async def get_item(call: Call) -> Answer:
    """A drive item."""
    item = _visible(call, item_target(call).existing())
    if call.headers.get("If-None-Match") in (item.etag, item.ctag):
        return Answer(304)
    body = call.show.drive_item(item, select=call.select, expand=call.expand)
    return Answer(
        body={"@odata.context": call.show.context("drives/items/$entity"), **body},
        headers={"ETag": item.etag},
    )


async def get_children(call: Call) -> Answer:
    """A folder's items, in pages."""
    target = item_target(call)
    folder = target.existing()
    if not folder.is_folder:
        raise invalid("The item is not a folder.")
    refuse_skip(call.query)
    top = parse_top(option(call.query, "top"), default=_PAGE, limit=_LARGEST_PAGE)
    children = _ordered(call.service.store.children(folder.id), option(call.query, "orderby"))
    token = option(call.query, "skiptoken")
    start = 0
    if token is not None:
        last = unpack_token(token).get("after")
        ids = [item.id for item in children]
        start = ids.index(last) + 1 if last in ids else _position(children, unpack_token(token))
    page = children[start : start + top]
    body: JsonObject = {"@odata.context": call.show.context("drives/items/children")}
    if option(call.query, "count") == "true":
        body["@odata.count"] = len(children)
    if start + top < len(children):
        after = page[-1]
        body["@odata.nextLink"] = next_link(
            call,
            f"drives/{drive_id(target.record.id)}/items/{folder.id}/children",
            pack_token(after=after.id, name=after.name.casefold()),
        )
    body["value"] = [call.show.drive_item(item, select=call.select, expand=call.expand) for item in page]
    return Answer(body=body)


def _ordered(children: list[Item], order: str | None) -> list[Item]:
    if order is None:
        return children
    name, _, direction = order.strip().partition(" ")
    key = _ORDERS.get(name)
    if key is None or direction not in ("", "asc", "desc"):
        raise invalid(f"Ordering by '{order[:40]}' is not supported.")
    return sorted(children, key=key, reverse=direction == "desc")


def _position(children: list[Item], token: dict[str, object]) -> int:
    """Where to go on when the last item of the page before is gone or renamed."""
    name = str(token.get("name", ""))
    return sum(1 for item in children if item.name.casefold() <= name)


def next_link(call: Call, path: str, token: str) -> str:
    """The absolute address of the next page, with the same options."""
    options = {
        key: value for key, value in call.query.items() if key.removeprefix("$") not in ("skiptoken", "token")
    }
    return f"{call.show.base}/{path}?{urlencode(options | {'$skiptoken': token})}"


async def get_delta(call: Call) -> Answer:
    """What changed in a library since a token, deleted items too; without a token all there is."""
    target = item_target(call)
    if target.existing().kind != "root":
        raise invalid("Delta is only supported on the root of a drive.")
    service = call.service
    store = service.store
    path = f"drives/{drive_id(target.record.id)}/root/delta"
    function = _FUNCTION.fullmatch(call.address.action)
    token = option(call.query, "skiptoken") or (function[1] if function else option(call.query, "token"))
    after, first = _delta_start(call, path, token)
    top = parse_top(option(call.query, "top"), default=_PAGE, limit=_LARGEST_PAGE)
    changes = store.changes(target.record.id, after) if after is not None else []
    if first:
        changes = [item for item in changes if not item.deleted]
    page = changes[:top]
    show = call.show
    body: JsonObject = {"@odata.context": show.context("drives/items"), "value": _delta_rows(call, page)}
    generation = service.delta_generation
    if len(changes) > top:
        body["@odata.nextLink"] = next_link(
            call, path, pack_token(after=page[-1].sequence, first=first, generation=generation)
        )
    else:
        link = pack_token(after=store.sequence, first=False, generation=generation)
        body["@odata.deltaLink"] = f"{show.base}/{path}?token={link}"
    return Answer(body=body)


def _delta_rows(call: Call, items: Iterable[Item]) -> list[JsonObject]:
    show = call.show
    return [
        show.deleted_item(item) if item.deleted else show.drive_item(item, select=call.select)
        for item in items
    ]


def _delta_start(call: Call, path: str, token: str | None) -> tuple[int | None, bool]:
    """After which change to begin (None: after all), and whether it is the first enumeration.

    Raises GraphError 410, with the address to start again at, for a token that is too old.
    """
    if not token:
        return -1, True
    if token == "latest":
        return None, False
    if re.match(r"\d{4}-\d\d-\d\dT", token):
        return _sequence_at(call, token), False
    content = unpack_token(token)
    after, first = content.get("after"), content.get("first")
    if not isinstance(after, int) or not isinstance(first, bool):
        raise invalid("The provided paging or delta token is malformed.")
    if content.get("generation") != call.service.delta_generation:
        raise GraphError(
            410,
            "resyncRequired",
            "Resync required. Replace any local items with the server's version.",
            "resyncChangesApplyDifferences",
            headers={"Location": f"{call.show.base}/{path}"},
        )
    return after, first


def _sequence_at(call: Call, moment: str) -> int:
    """The last change before a moment."""
    try:
        start = datetime.fromisoformat(moment)
    except ValueError:
        raise invalid("The provided delta token is not a time.") from None
    before = [
        effect.seq
        for effect in call.service.store.effects
        if datetime.fromisoformat(effect.time).timestamp() < start.timestamp()
    ]
    return max(before, default=0)


async def get_content(call: Call) -> Answer:
    """A redirect to where the bytes are."""
    item = item_target(call).existing()
    if item.content is None:
        raise invalid("The item has no content: it is a folder.")
    if call.headers.get("If-None-Match") in (item.etag, item.ctag):
        return Answer(304)
    return Answer(302, headers={"Location": call.show.download_url(item)})


async def put_content(call: Call) -> Answer:
    """The simple upload, by path or onto an item."""
    service = call.service
    item_target(call)
    conflict = conflict_behavior(call.query.get(_CONFLICT), "replace")
    with service.store.incoming() as incoming:
        size = 0
        with incoming.open("wb") as file:
            async for piece in call.body:
                size += len(piece)
                if size > MAX_SIMPLE_UPLOAD:
                    raise GraphError(413, "invalidRequest", "Max file size exceeded", "maxFileSizeExceeded")
                file.write(piece)
        target = item_target(call)
        content = await asyncio.to_thread(
            describe, incoming, target.item.name if target.item else target.missing[-1]
        )
        call.resolve()  # it may have come or gone while the bytes came in
        item, created = service.items.put(
            item_target(call),
            content,
            incoming,
            conflict=conflict,
            headers=call.headers,
            request_id=call.request_id,
        )
    return uploaded(call, item, created=created)


def uploaded(call: Call, item: Item, *, created: bool) -> Answer:
    """The answer to a finished upload; after it SharePoint may touch the item by itself."""
    service = call.service
    if service.faults.chance(STRICT_SHARE_LATE_HASH):
        service.items.delay_hash(item)
    body = {"@odata.context": call.show.context("drives/items/$entity"), **call.show.drive_item(item)}
    if service.faults.stale(call.method, f"/v1.0/{call.path}", call.request_id):
        service.items.touch(item, request_id=call.request_id)
    return Answer(201 if created else 200, body)


_SESSION: Final = frozenset({"item", "deferCommit"})
_UPLOADABLE: Final = frozenset(
    {
        _CONFLICT,
        "@odata.type",
        "description",
        "driveItemSource",
        "fileSize",
        "fileSystemInfo",
        "mediaSource",
        "name",
    }
)
"""Source: driveItemUploadableProperties resource type, and the body of "driveItem: createUploadSession"."""


def _check_properties(body: JsonObject, known: frozenset[str], kind: str) -> None:
    """Refuse a property that the type does not have. Raises GraphError 400."""
    for name in body:
        if name not in known:
            raise invalid(f"The property '{name}' does not exist on type 'microsoft.graph.{kind}'.")


async def create_upload_session(call: Call) -> Answer:
    """Open an upload session. The conflict behaviour must be within ``item``; the default is *fail*."""
    body = await call.json()
    wanted = body.get("item", {})
    if not isinstance(wanted, dict) or _CONFLICT in body:
        raise invalid(f"The property '{_CONFLICT}' belongs inside 'item'.")
    _check_properties(body, _SESSION, "createUploadSession")
    _check_properties(wanted, _UPLOADABLE, "driveItemUploadableProperties")
    target = item_target(call)
    name = wanted.get("name")
    if target.item is not None and target.item.is_folder:
        raise invalid("An upload session needs the path of a file.")
    own = target.item.name if target.item else target.missing[-1]
    if name is not None and (not isinstance(name, str) or name.casefold() != own.casefold()):
        raise invalid("The name in the body is not the name in the address.")
    session = call.service.uploads.create(
        target,
        conflict=conflict_behavior(wanted.get(_CONFLICT), "fail"),
        defer_commit=body.get("deferCommit") is True,
        headers=call.headers,
        request_id=call.request_id,
    )
    status = call.service.uploads.status(session)
    return Answer(
        body={
            "@odata.context": call.show.context("microsoft.graph.uploadSession"),
            "uploadUrl": call.show.upload_url(session.id),
            **status,
        }
    )


async def create_child(call: Call) -> Answer:
    """A new folder."""
    target = item_target(call)
    parent = target.existing()
    body = await call.json()
    name = body.get("name")
    if not isinstance(body.get("folder"), dict) or not isinstance(name, str) or not parent.is_folder:
        raise invalid("Only folders can be created here: send 'name' and 'folder'.")
    folder = call.service.items.make_folder(
        target.record,
        parent,
        name,
        conflict=conflict_behavior(body.get(_CONFLICT), "fail"),
        request_id=call.request_id,
    )
    return Answer(201, call.show.drive_item(folder))


async def patch_item(call: Call) -> Answer:
    """Rename or move an item."""
    item = item_target(call).existing()
    body = await call.json()
    item = call.service.store.items[item.id]
    check_conditions(item, call.headers)
    name = body.get("name", item.name)
    reference = body.get("parentReference")
    folder_id = reference.get("id", item.parent_id) if isinstance(reference, dict) else item.parent_id
    parent = call.service.store.items.get(str(folder_id))
    if not isinstance(name, str) or parent is None or not parent.is_folder or parent.list_id != item.list_id:
        raise invalid("Only the name and the folder (in the same drive) can be changed.")
    if (name, parent.id) != (item.name, item.parent_id):
        item = call.service.items.rename(item, name, parent, request_id=call.request_id)
    return Answer(body=call.show.drive_item(item, select=call.select))


async def delete_item(call: Call) -> Answer:
    """Delete an item."""
    item = item_target(call).existing()
    check_conditions(item, call.headers)
    call.service.items.delete(item, request_id=call.request_id)
    return Answer(204)


async def check_out(call: Call) -> Answer:
    """Check a file out."""
    call.service.items.check_out(item_target(call).existing(), request_id=call.request_id)
    return Answer(204)


async def check_in(call: Call) -> Answer:
    """Check a file in; ``checkInAs: published`` makes a major version of it."""
    body = await call.json()
    wanted = body.get("checkInAs", "unspecified")
    if wanted not in ("published", "unspecified"):
        raise invalid("checkInAs is 'published' or 'unspecified'.")
    item = call.service.store.items[item_target(call).existing().id]
    call.service.items.check_in(item, published=wanted == "published", request_id=call.request_id)
    return Answer(204)


async def discard_check_out(call: Call) -> Answer:
    """Undo a check-out and what was written in it."""
    item = call.service.store.items[item_target(call).existing().id]
    call.service.items.discard_check_out(item, request_id=call.request_id)
    return Answer(204)


ROUTES: Routes = {
    (ItemTarget, ""): {"GET": get_item, "PATCH": patch_item, "DELETE": delete_item},
    (ItemTarget, "children"): {"GET": get_children, "POST": create_child},
    (ItemTarget, "delta"): {"GET": get_delta},
    (ItemTarget, "content"): {"GET": get_content, "PUT": put_content},
    (ItemTarget, "checkout"): {"POST": check_out},
    (ItemTarget, "checkin"): {"POST": check_in},
    (ItemTarget, "discardCheckout"): {"POST": discard_check_out},
    (ItemTarget, "createUploadSession"): {"POST": create_upload_session},
}
