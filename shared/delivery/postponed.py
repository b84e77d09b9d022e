"""Moves postponed entries, which wait in a sorted set until their time, back to their stream."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import codec, topology
from events.codec import UndecodableError
from shared.delivery import packing, scripts
from shared.retry.classify import Kind, classify, retry_after_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from events.keys import Keys
    from events.topology import Schedule, Stage
    from shared.delivery.lane import Lane
    from shared.delivery.runtime import Ttls
    from shared.retry.policy import Failed

LONGEST_SECONDS: Final = 24 * 3600.0
"""An entry that has been postponed for so long in all is dead (`exhausted`)."""
MOVED_AT_ONCE: Final = 100
_SPREAD: Final = 1.1
"""The waits of a schedule become longer by up to a tenth."""


class Delays(msgspec.Struct, frozen=True):
    """Hold what the field `ernidelayed` of an entry records about its postponements."""

    first: float = 0.0
    """Unix seconds of the first postponement; 0 if there was none."""
    deliveries: int = 0
    """Deliveries before the last postponement."""
    times: int = 0


def delays_of(field: bytes) -> Delays:
    """Read the field; what is unreadable counts as no postponement."""
    parts = field.split(b":")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return Delays()
    return Delays(int(parts[0]) / 1000, int(parts[1]), int(parts[2]))


def overdue(delays: Delays, schedule: Schedule | None = None) -> bool:
    """Return whether an entry has been postponed for too long."""
    longest = schedule.longest if schedule else LONGEST_SECONDS
    return delays.first > 0 and time.time() - delays.first > longest


def scheduled(failed: Failed, schedule: Schedule, delays: Delays) -> Failed:
    """Return a failure as the stage's schedule has it: postponed if it may pass and a step is left.

    A failure that asked for a wait itself (its breaker is open) was no attempt and stays as it is.
    """
    if classify(failed.error) is not Kind.TRANSIENT:
        return failed
    if delays.times >= len(schedule.delays):
        return msgspec.structs.replace(failed, kind=Kind.TRANSIENT)
    seconds = max(schedule.delays[delays.times], retry_after_of(failed.error) or 0.0)
    # so that entries that failed together do not come back together
    spread = random.uniform(1.0, _SPREAD)  # noqa: S311 - spread, not a secret
    return msgspec.structs.replace(failed, kind=Kind.POSTPONE, seconds=seconds * spread)


async def move_due(lane: Lane, stage: Stage, ttls: Ttls) -> int:
    """Move the entries that are due; several processes may try at once, each entry moves once."""
    fetch: Callable[..., Awaitable[Any]] = lane.writing.execute_command
    moved = 0
    while True:
        # the server's clock decides what is due, in the script; this look only fetches candidates
        seconds, micros = await lane.writing.time()
        now = seconds * 1000 + micros // 1000
        key = lane.keys.delayed(stage.agent)
        members = await fetch("ZRANGEBYSCORE", key, "-inf", now, "LIMIT", 0, MOVED_AT_ONCE)
        if not members:
            return moved
        went = await scripts.due(
            lane.writing,
            lane.keys,
            stage.agent,
            topology.COMPLETED,
            [due for member in members if (due := _due(lane.keys, member))],
            ttl_ms=ttls.session,
            long_ttl_ms=ttls.session_in_flight,
        )
        moved += went
        if len(members) < MOVED_AT_ONCE or not went:
            return moved


def _due(keys: Keys, member: bytes) -> scripts.Due | None:
    """Return what waits in a member of the set; None for a foreign value."""
    try:
        entry_id, fields, _, stream = packing.unpack(member)
        return scripts.Due(
            member, stream.decode(), _counted_in(keys, entry_id.decode(), fields, stream.decode())
        )
    except (ValueError, TypeError, AttributeError):
        return None


def _counted_in(keys: Keys, entry_id: str, fields: Sequence[bytes], stream: str) -> str | None:
    """Return the session that counted an entry as postponed.

    Read as the delivery read it: a session may stand in the data alone, and a session's report is no photo.
    """
    try:
        envelope = codec.decode(topology.type_of(stream.removeprefix(keys.prefix)), entry_id, fields)
    except (UndecodableError, KeyError):
        return None
    return envelope.session_id if envelope.photo_id else None
