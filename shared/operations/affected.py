"""Names the photos that an operation is about, and says what became of them since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from events import topology
from shared.operations import photos

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from redis.asyncio import Redis

    from shared.delivery.dead_letter import DeadLetter
    from shared.delivery.photo_record import PhotoRecord

MOST: Final = 50
"""Dead letters up to which an operation names each of them: a page reads a photo record for each."""


class Affected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Name one dead letter of an operation as people know it."""

    id: str
    agent: str
    failed_at: float
    """Unix time in seconds."""
    lane: int | None = None
    photo_id: str = ""
    file_name: str = ""
    session_id: str = ""

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.file_name or self.photo_id or self.id


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """Say where a photo of an operation is now."""

    affected: Affected
    status: str
    """As of a photo record: validated, dead, postponed, unknown, or on its way to an agent."""

    @property
    def word(self) -> str:
        """Return validated, dead, postponed, unknown or running, which sums put together."""
        return "running" if self.status.startswith("on its way") else self.status


def affected(letter: DeadLetter) -> Affected:
    """Return what an operation keeps of a dead letter."""
    return Affected(
        id=letter.id,
        agent=letter.agent,
        failed_at=letter.failed_at,
        lane=letter.lane,
        photo_id=letter.photo_id or "",
        file_name=letter.file_name or "",
        session_id=letter.session_id or "",
    )


async def fates(
    redis: Redis, named: Sequence[Affected], *, handled: int, refused: Collection[str], fresh: bool
) -> list[Fate]:
    """Return where the photos of a replay are: one round trip for each lane.

    `handled`: how many of them the operation has dealt with, in their order; `refused`: ids of those that
    it could not replay; `fresh`: no record that was written since can be gone yet. Raises what redis-py
    raises.
    """
    records = await photos.of_ids(redis, [(one.lane, one.photo_id) for one in named if one.photo_id])
    return [
        Fate(
            affected=one,
            status="dead"
            if place >= handled or one.id in refused
            else _status(one, records.get(one.photo_id), fresh=fresh),
        )
        for place, one in enumerate(named)
    ]


def _status(one: Affected, record: PhotoRecord | None, *, fresh: bool) -> str:
    """Return where a photo is whose dead letter went back to its agent.

    Its record keeps the failure until the agent has tried again: an attempt that began before the failure
    was written is the old one.
    """
    if one.agent not in topology.AGENTS or not one.photo_id or (record is None and not fresh):
        return "unknown"
    parts = record.parts if record else []
    part = next((part for part in parts if part.agent == one.agent), None)
    if record is None or part is None or (part.outcome == "dead" and part.started <= one.failed_at):
        return f"on its way to {one.agent}"
    return record.status
