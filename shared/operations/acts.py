"""Forgets what people did to a session: the operations and activities whose filters name it or its photos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from events import keys
from events.connection import call
from shared.operations import activity
from shared.operations.affected import Affected
from shared.operations.bulk import OPERATION, RUNNING
from shared.operations.scripts import replaced

if TYPE_CHECKING:
    from collections.abc import Collection

    from redis.asyncio import Redis

_PAGE: Final = 500
_PROOF: Final = "forget session"
"""The activity that says who forgot a session and when; it stays."""


_T = TypeVar("_T", "_Named", "_Order")


class _Named(msgspec.Struct):
    """The parts of a filter that name a session or a photo."""

    session: str | None = None
    photo: str | None = None


class _Selected(msgspec.Struct):
    """The part of a selection that does."""

    filter: _Named = msgspec.field(default_factory=_Named)


class _Order(msgspec.Struct):
    """The parts of an operation that name a session or a photo."""

    selection: _Selected = msgspec.field(default_factory=_Selected)
    affected: list[Affected] = []


async def forget(redis: Redis, session: str, photos: Collection[str], *, lanes: int) -> None:
    """Remove the operations and activities that name a session or one of its photos.

    An operation that runs ends with that. Raises what redis-py raises.
    """
    async for key in redis.scan_iter(match=f"{OPERATION}*", count=_PAGE, _type="hash"):
        order = await call(redis, "HGET", key, "order")
        await _unname(redis, key, order, session, photos)
        if _names(_decoded(order, _Order).selection.filter, session, photos):
            operation_id = key.decode().removeprefix(OPERATION)
            await call(redis, "SREM", RUNNING, operation_id)
            for lane in keys.all_lanes(lanes):
                await call(redis, "DEL", lane.operation_progress(operation_id))
            await call(redis, "DEL", key)
    newest = ""
    while page := await activity.newest(redis, most=_PAGE, before=newest):
        newest = page[-1].id
        gone = [one.id for one in page if one.action != _PROOF and _is_about(one.what, session, photos)]
        if gone:
            await call(redis, "XDEL", activity.ACTIVITY, *gone)


async def _unname(
    redis: Redis, key: bytes, order: bytes | None, session: str, photos: Collection[str]
) -> None:
    """Take the photos of a session out of an operation that is about others too."""
    named = _decoded(order, _Order).affected
    kept = [one for one in named if one.session_id != session and one.photo_id not in photos]
    if order and len(kept) < len(named):
        changed = msgspec.json.decode(order, type=dict[str, msgspec.Raw]) | {
            "affected": msgspec.Raw(msgspec.json.encode(kept))
        }
        await replaced(redis, key.decode(), "order", order, msgspec.json.encode(changed))


def _is_about(what: str, session: str, photos: Collection[str]) -> bool:
    """Return whether an activity names the session: as itself, with a number behind it, or in a filter."""
    plain = what == session or what.startswith(f"{session}: ")
    return plain or _names(_decoded(what.encode(), _Named), session, photos)


def _names(wanted: _Named, session: str, photos: Collection[str]) -> bool:
    return wanted.session == session or (wanted.photo is not None and wanted.photo in photos)


def _decoded(text: bytes | None, kind: type[_T]) -> _T:
    """Return what a text holds; nothing where it is no such document."""
    try:
        return msgspec.json.decode(text or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return kind()
