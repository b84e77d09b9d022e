"""Acts on many dead letters as one operation, which survives the end of its process.

An operation is a selection that does not change: a filter, and the newest dead letter of each place that it
was made for. Whoever drives it walks the selection and acts on one letter after the other. Each step moves
one letter and counts it in one script, so a process that takes over acts on none twice and counts none twice.
The script also compares the cursor with where its caller left it: a process that was taken over from acts on
no letter more, and a limit is never exceeded.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from events import keys
from events.connection import call
from events.publisher import SESSION_TTL
from shared.operations import activity
from shared.operations.activity import Person
from shared.operations.affected import MOST, Affected, affected
from shared.operations.dead_letters import Bounds, DeadFilter, DeadLetters, Replayed, place_of
from shared.operations.scripts import EDITED, Mark, passed, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from redis.asyncio import Redis

    from shared.delivery.dead_letter import DeadLetter
    from shared.operations.letter_index import LetterIndex

RUNNING: Final = "erni:operations"
"""Set: ids of the operations that have not ended and that nobody stopped."""
OPERATION: Final = "erni:operation:"
"""What the keys of operations begin with: a hash for each."""
KEPT_SECONDS: Final = 90 * 24 * 3600
"""How long an operation can be looked at and repeated."""
_REFUSALS: Final = 20
"""Sentences about refused letters that are kept."""
_LOOK_SECONDS: Final = 0.5
"""How often a driver asks whether somebody stopped the operation."""

_NAMING_SECONDS: Final = 1.0

_EDITED: Final = "it was edited and replayed, so its photo is on its way again; it stays in the archive"

Kind: TypeAlias = Literal["replay", "discard", "restore", "delete"]
OF_ARCHIVE: Final[frozenset[Kind]] = frozenset({"restore", "delete"})
"""Kinds of operations on discarded dead letters."""
State: TypeAlias = Literal["running", "stopped", "done", "failed"]
Driver: TypeAlias = Literal["gateway", "command"]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters an operation is about; stays the same over time."""

    filter: DeadFilter = DeadFilter()
    upto: Bounds = {}
    """Letters that came later do not belong to it."""
    at: float = 0.0
    """Unix time in seconds that the ages of the filter count from."""
    count: int = 0


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody ordered."""

    id: str
    kind: Kind
    who: Person
    started_at: float
    """Unix time in seconds."""
    selection: Selection
    rate: float | None = None
    """Letters a second at most; None: as fast as possible."""
    driver: Driver = "gateway"
    """A command drives its own operation; what it leaves unfinished can be resumed by a gateway."""
    for_good: bool = False
    """A discard deletes, and keeps nothing in the archive."""
    affected: list[Affected] = []
    """Its dead letters in the order in which it acts on them, if they are no more than `affected.MOST`."""

    @property
    def session(self) -> str:
        """Return the session that it is about; '' if there are several, or if that is not known."""
        named = {one.session_id for one in self.affected}
        return self.selection.filter.session or (named.pop() if len(named) == 1 else "")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an operation has come."""

    state: State
    done: int = 0
    gone: int = 0
    """Letters that somebody else replayed or discarded meanwhile."""
    refused: int = 0
    refusals: list[str] = []
    """The first sentences about letters that could not be replayed."""
    error: str = ""
    """Why it failed."""
    ended_at: float = 0.0
    driven: bool = False
    """Some process works on it now."""

    @property
    def handled(self) -> int:
        """Return how many letters it has dealt with."""
        return self.done + self.gone + self.refused


_ORDER: Final = msgspec.json.Decoder(Operation)


class UnknownOperationError(LookupError):
    """Raised for an id that no operation has (any more)."""


class Bulk:
    """Starts, stops, reads and drives operations. Raises what redis-py raises when Redis is away."""

    def __init__(
        self,
        redis: Redis,
        *,
        lanes: int = 1,
        session_ttl: int = SESSION_TTL,
        archive_days: int = 90,
        index: LetterIndex | None = None,
    ) -> None:
        self._redis = redis
        self._lanes = keys.all_lanes(lanes)
        self._archive_days = archive_days
        self.letters = DeadLetters(redis, lanes=lanes, session_ttl=session_ttl, index=index)

    async def select(self, wanted: DeadFilter, kind: Kind) -> Selection:
        """Return what a filter selects at this moment, with the exact count."""
        now, archived = time.time(), kind in OF_ARCHIVE
        upto = await self.letters.bounds(wanted, archived=archived)
        count = await self.letters.count(wanted, archived=archived)
        return Selection(filter=wanted, upto=upto, at=now, count=count)

    async def start(
        self,
        kind: Kind,
        selection: Selection,
        who: Person,
        *,
        rate: float | None = None,
        driver: Driver = "gateway",
        for_good: bool = False,
    ) -> Operation:
        """Order an operation; a gateway begins within a second, or the caller drives it with `run`.

        `for_good`: of a discard, which then frees memory, as the archive keeps nothing.
        """
        operation = Operation(
            id=f"{time.time_ns() // 1_000_000:x}{secrets.token_hex(4)}",
            kind=kind,
            who=who,
            started_at=time.time(),
            selection=selection,
            rate=rate,
            driver=driver,
            for_good=for_good,
            affected=await self._affected(kind, selection),
        )
        name = _key(operation.id)
        await write(self._redis, "HSET", name, "order", msgspec.json.encode(operation), "state", "running")
        await call(self._redis, "EXPIRE", name, KEPT_SECONDS)
        what = msgspec.json.encode(_given(selection.filter)).decode()
        await activity.note(self._redis, who, kind, what, operation=operation.id)
        # last: a gateway that sees it finds all of it
        await write(self._redis, "SADD", RUNNING, operation.id)
        return operation

    async def _affected(self, kind: Kind, selection: Selection) -> list[Affected]:
        """Return what a small selection is about; none if it takes long to find them among many others."""
        if not 0 < selection.count <= MOST:
            return []
        letters = self.letters.find(
            selection.filter, archived=kind in OF_ARCHIVE, upto=selection.upto, now=selection.at
        )
        try:
            async with asyncio.timeout(_NAMING_SECONDS):
                return [affected(letter) async for letter in letters][:MOST]
        except TimeoutError:
            return []

    async def get(self, operation_id: str) -> Operation:
        """Return an operation. Raises UnknownOperationError."""
        order = await call(self._redis, "HGET", _key(operation_id), "order")
        if not order:
            raise UnknownOperationError(operation_id)
        return _ORDER.decode(order)

    async def progress(self, operation_id: str) -> Progress:
        """Return how far an operation has come. Raises UnknownOperationError."""
        found = _texts(await call(self._redis, "HGETALL", _key(operation_id)))
        if "order" not in found:
            raise UnknownOperationError(operation_id)
        numbers = dict.fromkeys(("done", "gone", "refused"), 0)
        refusals: list[str] = []
        for lane in self._lanes:
            part = _texts(await call(self._redis, "HGETALL", lane.operation_progress(operation_id)))
            for name in numbers:
                numbers[name] += int(part.get(name, 0))
            refusals += [text for name, text in sorted(part.items()) if name.startswith("refusal:")]
        return Progress(
            state=msgspec.convert(found.get("state"), State),
            **numbers,
            refusals=refusals[:_REFUSALS],
            error=found.get("error", ""),
            ended_at=float(found.get("ended_at", 0)),
            driven=bool(await call(self._redis, "EXISTS", lease_key(operation_id))),
        )

    async def running(self) -> list[str]:
        """Return the ids of the operations that have not ended and that nobody stopped."""
        return sorted(raw.decode("utf-8", "replace") for raw in await call(self._redis, "SMEMBERS", RUNNING))

    async def stop(self, operation_id: str, who: Person) -> None:
        """Let an operation stop after the letter that it is at. Raises UnknownOperationError."""
        await self.get(operation_id)
        await activity.note(self._redis, who, "stop", operation=operation_id)
        await self._end(operation_id, "stopped")

    async def resume(self, operation_id: str, who: Person) -> None:
        """Let a gateway go on with an operation that was stopped or left. Raises UnknownOperationError."""
        operation = await self.get(operation_id)
        if (await self.progress(operation_id)).state == "done":
            return
        await activity.note(self._redis, who, "resume", operation=operation_id)
        order = msgspec.json.encode(msgspec.structs.replace(operation, driver="gateway"))
        await write(self._redis, "HSET", _key(operation_id), "order", order, "state", "running", "error", "")
        await write(self._redis, "SADD", RUNNING, operation_id)

    async def repeat(self, operation_id: str, who: Person) -> Operation:
        """Order the same for what the filter selects now. Raises UnknownOperationError."""
        before = await self.get(operation_id)
        selection = await self.select(before.selection.filter, before.kind)
        return await self.start(before.kind, selection, who, rate=before.rate, for_good=before.for_good)

    async def run(self, operation: Operation) -> AsyncIterator[Replayed]:
        """Act on what is left of the selection, one letter after the other, until the end or a stop.

        Yields the result of each letter. Cancelled or failed, the operation is as far as its progress says.
        Raises OvertakenError when another process has gone on with it.
        """
        stopped = _StopSign(self._redis, operation.id)
        for lane in self._lanes:
            name = lane.operation_progress(operation.id)
            await write(self._redis, "HSET", name, "begun", f"{time.time():.0f}")
            await call(self._redis, "EXPIRE", name, KEPT_SECONDS)
        number, cursors = 0, await self._cursors(operation.id)
        async for letter in self._left(operation, cursors.copy()):
            if operation.rate and number:
                await asyncio.sleep(1 / operation.rate)
            number += 1
            if await stopped():
                return
            yield await self._act(operation, letter, cursors)
        if not await stopped(now=True):
            await self._end(operation.id, "done")

    async def fail(self, operation_id: str, error: str) -> None:
        """Note that an operation cannot go on, and why; it can be resumed."""
        await write(self._redis, "HSET", _key(operation_id), "error", error[:500])
        await self._end(operation_id, "failed")

    async def _end(self, operation_id: str, state: State) -> None:
        ended = f"{time.time():.3f}"
        await write(self._redis, "HSET", _key(operation_id), "state", state, "ended_at", ended)
        await call(self._redis, "SREM", RUNNING, operation_id)

    async def _cursors(self, operation_id: str) -> Bounds:
        """Return the last letter of each place that a driver has acted on."""
        cursors: Bounds = {}
        for lane in self._lanes:
            part = _texts(await call(self._redis, "HGETALL", lane.operation_progress(operation_id)))
            cursors |= {name[3:]: cursor for name, cursor in part.items() if name.startswith("at:")}
        return cursors

    async def _left(self, operation: Operation, after: Bounds) -> AsyncIterator[DeadLetter]:
        """Yield what no driver has acted on; `after`: the cursors, which were read before this."""
        selection = operation.selection
        wanted = selection.filter
        if wanted.limit is not None:
            left = wanted.limit - (await self.progress(operation.id)).handled
            if left <= 0:
                return
            wanted = msgspec.structs.replace(wanted, limit=left)
        async for letter in self.letters.find(
            wanted,
            archived=operation.kind in OF_ARCHIVE,
            upto=selection.upto,
            after=after,
            now=selection.at,
        ):
            yield letter

    async def _act(self, operation: Operation, letter: DeadLetter, cursors: Bounds) -> Replayed:
        lane = keys.Keys(letter.lane)
        place = place_of(letter.agent, lane)
        mark = Mark(lane.operation_progress(operation.id), f"at:{place}", cursors.get(place, ""))
        result = await self._acted(operation, letter, mark)
        if result.outcome in ("gone", "refused"):
            why = f"{letter.id}: {result.message}"[:300] if result.outcome == "refused" else ""
            await passed(self._redis, mark, result.outcome, letter.id, why=why, most=_REFUSALS)
        cursors[place] = letter.id
        return result

    async def _acted(self, operation: Operation, letter: DeadLetter, mark: Mark) -> Replayed:
        if operation.kind == "replay":
            return await self.letters.replay(letter, mark=mark)
        if operation.kind == "restore":
            new_id = await self.letters.restore(letter, mark=mark)
            if new_id == EDITED:
                return Replayed(letter=letter, outcome="refused", message=_EDITED)
            return Replayed(letter=letter, outcome="restored" if new_id else "gone", entry_id=new_id)
        if operation.kind == "delete":
            deleted = await self.letters.delete_archived(letter, mark=mark)
            return Replayed(letter=letter, outcome="deleted" if deleted else "gone")
        who = operation.who.name if self._archive_days and not operation.for_good else ""
        discarded = await self.letters.discard(letter, who=who, mark=mark)
        return Replayed(letter=letter, outcome="discarded" if discarded else "gone")


class _StopSign:
    """Asks now and then whether somebody stopped an operation."""

    def __init__(self, redis: Redis, operation_id: str) -> None:
        self._redis = redis
        self._id = operation_id
        self._asked = 0.0

    async def __call__(self, *, now: bool = False) -> bool:
        if not now and time.monotonic() - self._asked < _LOOK_SECONDS:
            return False
        self._asked = time.monotonic()
        return not await call(self._redis, "SISMEMBER", RUNNING, self._id)


def lease_key(operation_id: str) -> str:
    """Return the key that the process holds which drives an operation; it expires."""
    return f"erni:operation-lease:{operation_id}"


def _key(operation_id: str) -> str:
    return OPERATION + operation_id


def _given(wanted: DeadFilter) -> dict[str, object]:
    """Return the conditions that a filter has."""
    return {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}


def _texts(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in raw.items()}
