"""`POST /v1/dead/replay`, `GET /v1/operations/ID`: what the console and `erni dead replay` do, over HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from console.gateway import bodies, problems
from console.gateway.access import READERS
from console.gateway.answers import json_answer
from console.gateway.problems import Problem
from events import identities, topology
from events.codec import reason
from shared.delivery.dead_letter import REASONS
from shared.operations import letter_names
from shared.operations.activity import Person
from shared.operations.bulk import Bulk, Kind, State, UnknownOperationError
from shared.operations.dead_letters import DeadFilter

if TYPE_CHECKING:
    from aiohttp import web
    from redis.asyncio import Redis

    from console.gateway.access import Door
    from shared.operations.access_keys import Role
    from shared.settings import Settings

OPERATORS: Final[frozenset[Role]] = frozenset({"operator", "admin"})
_PEOPLE: Final = READERS - {"publisher"}
"""A publisher reads what its own source published; an operation is about everybody's."""
_MAX_BYTES: Final = 64 * 1024
_OPERATION: Final = re.compile(r"[0-9a-f]{1,64}", re.ASCII)

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]


class Replay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters to replay: all conditions must hold; a `*` in a name stands for any characters."""

    agent: _Text | None = None
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,19}-[0-9]{1,19}$")] | None = None
    """Of one dead letter."""
    reason: _Text | None = None
    error_type: _Text | None = None
    fingerprint: _Text | None = None
    session: _Text | None = None
    """A session id, or a part of one: ``*luzern*`` (upper and lower case are alike then), as in `photo`."""
    photo: _Text | None = None
    """A photo id, a file name, or the name of the file in SharePoint if the message mentions it."""
    trace: _Text | None = None
    """A trace id, 32 hex digits."""
    older_than: _Seconds | None = None
    """Seconds since the failure, at least."""
    newer_than: _Seconds | None = None
    """Seconds since the failure, at most."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    all: bool = False
    """Every dead letter is meant: needed if no condition is given."""
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """Dead letters a second, at most."""
    dry_run: bool = False
    """Answer how many match, and replay nothing."""

    @property
    def filter(self) -> DeadFilter:
        """Return the conditions."""
        return DeadFilter(**{name: getattr(self, name) for name in DeadFilter.__struct_fields__})


class Replaying(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters are replayed, and where to follow that."""

    dry_run: bool
    count: int
    """How many match."""
    operation: str | None
    """Where to follow the operation, such as ``/v1/operations/19a0…``; null if nothing is replayed."""


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """An operation on many dead letters, and how far it has come."""

    id: str
    kind: Kind
    who: str
    started_at: float
    """Unix time in seconds."""
    count: int
    """How many dead letters it is about."""
    state: State
    done: int
    gone: int
    """Dead letters that somebody else replayed or discarded meanwhile."""
    refused: int
    refusals: list[str]
    """The first sentences about dead letters that could not be replayed."""
    error: str
    """Why it failed."""


class DeadApi:
    """Handles the requests about dead letters."""

    def __init__(self, redis: Redis, settings: Settings, door: Door) -> None:
        self._door = door
        self._bulk = Bulk(
            redis,
            lanes=settings.lanes,
            session_ttl=settings.session_ttl,
            archive_days=settings.archive_days,
        )

    async def replay(self, request: web.Request) -> web.Response:
        """Order the replay of what a filter selects, or count it. Raises Problem."""
        caller = await self._door.admit(request, OPERATORS)
        body = await bodies.whole(request, _MAX_BYTES, seconds=10.0, remedy='send {"session": "…"}')
        try:
            wanted = msgspec.json.decode(body, type=Replay)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise Problem(
                problems.BAD_REQUEST, f"the body is no filter of dead letters: {reason(error)}"
            ) from None
        _check(wanted)
        selection = await self._bulk.select(wanted.filter, "replay")
        if wanted.dry_run or not selection.count:
            return json_answer(Replaying(dry_run=wanted.dry_run, count=selection.count, operation=None))
        who = Person(caller.key.name, caller.key.role)
        operation = await self._bulk.start("replay", selection, who, rate=wanted.rate)
        where = f"/v1/operations/{operation.id}"
        answer = Replaying(dry_run=False, count=selection.count, operation=where)
        return json_answer(answer, status=202, headers={"Location": where})

    async def operation(self, request: web.Request) -> web.Response:
        """Show how far an operation has come. Raises Problem."""
        await self._door.admit(request, _PEOPLE)
        operation_id = request.match_info["id"]
        missing = Problem(problems.NOT_FOUND, "there is no such operation (any more); it is kept for 90 days")
        if not _OPERATION.fullmatch(operation_id):
            raise missing
        try:
            operation = await self._bulk.get(operation_id)
            progress = await self._bulk.progress(operation_id)
        except UnknownOperationError:
            raise missing from None
        return json_answer(
            OperationView(
                id=operation.id,
                kind=operation.kind,
                who=operation.who.name,
                started_at=operation.started_at,
                count=operation.selection.count,
                state=progress.state,
                done=progress.done,
                gone=progress.gone,
                refused=progress.refused,
                refusals=progress.refusals,
                error=progress.error,
            )
        )


def _check(wanted: Replay) -> None:
    """Raise Problem for an order that means nothing, or perhaps too much."""
    if wanted.agent is not None and wanted.agent not in topology.CONSUMERS:
        raise Problem(
            problems.BAD_REQUEST,
            f"there is no agent {wanted.agent!r}: there are {', '.join(topology.CONSUMERS)}",
        )
    if wanted.reason is not None and wanted.reason not in REASONS:
        raise Problem(
            problems.BAD_REQUEST, f"there is no reason {wanted.reason!r}: there are {', '.join(REASONS)}"
        )
    if wanted.session is not None and not letter_names.is_part(wanted.session):
        try:
            identities.session_id(wanted.session)
        except ValueError as error:
            raise Problem(problems.BAD_REQUEST, f"session: {error}") from None
    if wanted.filter.empty and not wanted.all:
        raise Problem(
            problems.BAD_REQUEST,
            'without a condition this would replay every dead letter: name one, such as {"session": "…"}, or'
            ' send {"all": true}',
        )
    if not wanted.filter.empty and wanted.all:
        raise Problem(problems.BAD_REQUEST, "all and a condition exclude each other: send one of them")
