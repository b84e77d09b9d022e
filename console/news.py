"""Reports the news of a running pipeline: what goes wrong, what is over, and sessions that have completed."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from redis.exceptions import TimeoutError as RedisTimeoutError

from console.agent_state import Finding, judge, over
from console.disk_state import disks_of
from console.explain import redis_trouble
from console.places import place_of
from console.up_state import process_troubles
from events import codec, keys
from events.connection import RedisError, call
from events.types import SessionReported
from shared.operations.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.operations.disks import Disk
    from shared.operations.status import AgentStatus, PipelineStatus
    from shared.settings import Settings

_REPORTED: Final = "session.reported"
_LOOK_SECONDS: Final = 1.0
_PAGE: Final = 100
_LOOKS: Final = 3
"""Looks in a row that do not find a trouble any more before it is said to be over."""
_PROVED_LOOKS: Final = 2
"""The same where an entry has gone well besides."""
_ROOM_LOOKS: Final = 10
"""The same of a full disk: a Redis that cannot save removes its temporary file, and tries again after 5 s."""
_SAID_OTHERWISE: Final = ("missing", "killed", "late")
"""The supervisor says these; the age of the oldest entry is no news of its own."""
_PROVED: Final = ("outage", "slow", "failing", "unhealthy", "postponed")
"""These are over when an entry has gone well."""
_OF_PARTS: Final = ("outage", "slow")
"""A part that is slow may fall silent, and a silent one be slow for a moment: no end of either is an end."""
_HIDDEN: Final = ("failing", "postponed")
"""These are not looked for, or not said, while a part of the agent is down."""


class Reported:
    """Reads the session reports that come in, each once."""

    def __init__(self, redis: Redis, *, lanes: int) -> None:
        self._redis = redis
        self._after: dict[Keys, bytes] = dict.fromkeys(keys.all_lanes(lanes), b"0-0")

    async def skip(self) -> None:
        """Skip the reports that are there already."""
        for lane in self._after:
            newest = await self._fetch("XREVRANGE", lane.stream(_REPORTED), "+", "-", "COUNT", 1)
            if newest:
                self._after[lane] = newest[0][0]

    async def new(self) -> list[SessionReported]:
        """Return the reports that came in since the last call."""
        found: list[SessionReported] = []
        for lane, after in self._after.items():
            start = b"(" + after
            for entry_id, flat in await self._fetch(
                "XRANGE", lane.stream(_REPORTED), start, "+", "COUNT", _PAGE
            ):
                self._after[lane] = entry_id
                try:
                    event = codec.decode(_REPORTED, entry_id.decode(), flat).event
                except codec.UndecodableError:
                    continue
                if isinstance(event, SessionReported):
                    found.append(event)
        return found

    async def _fetch(self, *words: str | bytes | int) -> list[Any]:
        page: list[Any] = await call(self._redis, *words)
        return page


class _Known(msgspec.Struct, kw_only=True):
    """A trouble that was reported and is not over."""

    finding: Finding
    done: dict[str, int]
    """How many entries each process had done when it was last seen."""
    causes: set[str]
    """Those that were reported."""
    absent: int = 0
    """Looks in a row that did not find it."""


class Troubles:
    """Compares each look at the agents with those before: what goes wrong, and what is over."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], _Known] = {}
        self._first_seen: set[tuple[str, str, str]] = set()
        """Postponements of the last look: the outage behind one may be reported a second later."""

    def news(self, status: PipelineStatus) -> list[str]:
        """Return a sentence for each change since the last call, in the words of `erni status`."""
        said: list[str] = []
        before, self._first_seen = self._first_seen, set()
        for agent in status.agents:
            done = {process.consumer: process.says.done for process in agent.processes}
            found = [one for one in judge(agent, inf).findings if one.kind not in _SAID_OTHERWISE]
            for finding in found:
                place = (agent.agent, finding.kind, finding.about)
                if finding.kind == "postponed" and place not in self._known and place not in before:
                    self._first_seen.add(place)
                    continue
                causes = self._known[place].causes if place in self._known else set()
                if place not in self._known or (finding.cause and finding.cause not in causes):
                    said.append(finding.sentence)
                self._known[place] = _Known(finding=finding, done=done, causes=causes | {finding.cause})
            said += self._over(agent, found, done)
        return said

    def _over(self, agent: AgentStatus, found: Sequence[Finding], done: dict[str, int]) -> list[str]:
        """Return a sentence for each trouble that is over."""
        here = {(one.kind, one.about) for one in found}
        ended: list[Finding] = []
        for place, known in list(self._known.items()):
            name, kind, about = place
            if name != agent.agent or (kind, about) in here:
                continue
            if any(_hides(one, known.finding) for one in found):
                known.absent, known.done = 0, done
                continue
            known.absent += 1
            if kind == "failing" and not agent.depth.dead and known.absent >= _LOOKS:
                # somebody discarded or replayed them all: nothing shows yet that entries go well
                del self._known[place]
                continue
            # that no process reports it any more is no proof: the one that did may have ended
            proved = any(number > known.done.get(consumer, 0) for consumer, number in done.items())
            if known.absent < (_PROVED_LOOKS if kind in _PROVED else _LOOKS):
                continue
            if kind in _PROVED and not proved:
                continue
            del self._known[place]
            if kind == "frozen" and about not in {str(process.says.pid) for process in agent.processes}:
                # of a process that has ended, the supervisor says it
                continue
            ended.append(known.finding)
        outages = [one for one in ended if one.kind == "outage"]
        return [
            over(agent.agent, one)
            for one in ended
            if one.kind != "slow" or not any(_hides(outage, one) for outage in outages)
        ]


def _hides(found: Finding, missing: Finding) -> bool:
    """Return whether what is found may be the reason why the other is not found any more."""
    if found.kind not in _OF_PARTS or not found.about:
        return False
    if missing.kind in _HIDDEN:
        return True
    if missing.kind not in _OF_PARTS:
        return False
    # two targets of one part are two things; of the part as a whole each of them is a piece
    parts = {found.about.partition("/")[0], missing.about.partition("/")[0]}
    whole = "/" not in found.about or "/" not in missing.about
    return not missing.about or found.about == missing.about or (whole and len(parts) == 1)


class Wrong(NamedTuple):
    """What is wrong on this machine, and how its end is said."""

    sentence: str
    end: str
    looks: int = 1
    """Looks in a row that do not find it any more before its end is said."""


class Conditions:
    """Compares what is wrong on this machine with what was: each is said when it begins and when it ends."""

    def __init__(self) -> None:
        self._known: dict[str, Wrong] = {}
        """By what it is about."""
        self._absent: dict[str, int] = {}
        """Looks in a row that did not find it."""

    def news(self, wrong: Mapping[str, Wrong], unsure: Collection[str] = ()) -> list[str]:
        """Return a sentence for each change.

        `unsure`: what is neither wrong enough to be said nor well enough to be over.
        """
        said = [one.sentence for about, one in wrong.items() if about not in self._known]
        self._known |= wrong
        for about, one in list(self._known.items()):
            well = about not in wrong and about not in unsure
            self._absent[about] = self._absent.get(about, 0) + 1 if well else 0
            if well and self._absent[about] >= one.looks:
                said.append(one.end)
                del self._known[about], self._absent[about]
        return said


def disk_conditions(disks: Iterable[Disk]) -> tuple[dict[str, Wrong], set[str]]:
    """Return what is wrong with each disk, and what is not over though it is not found now."""
    wrong: dict[str, Wrong] = {}
    unsure: set[str] = set()
    for disk in disks:
        little, full = f"disk {disk.folder}", f"disk {disk.folder} full"
        if disk.full:
            wrong[full] = Wrong(disk.trouble, f"the disk of {disk.folder} is no longer full", _ROOM_LOOKS)
        elif not disk.writable_again:
            unsure.add(full)
        if disk.trouble and not disk.full:
            wrong[little] = Wrong(disk.trouble, f"the disk of {disk.folder} has room again", _ROOM_LOOKS)
        elif not disk.has_room_again:
            unsure.add(little)
    return wrong, unsure


def _here(settings: Settings) -> tuple[dict[str, Wrong], set[str], bool]:
    """Look at this machine: its disks, the processes of which Redis knows nothing; and is a disk full."""
    disks = disks_of(settings)
    wrong, unsure = disk_conditions(disks)
    frozen = process_troubles(settings)
    ends = {name: Wrong(sentence, f"{name}: its process goes on") for name, sentence in frozen.items()}
    return wrong | ends, unsure, any(disk.full for disk in disks)


async def tell(redis: Redis, settings: Settings, say: Callable[[str], None]) -> None:
    """Report each piece of news in a sentence, until cancelled."""
    reported = Reported(redis, lanes=settings.lanes)
    troubles, here, connection = Troubles(), Conditions(), Conditions()
    skipped, lost, back = False, 0, _LOOKS
    while True:
        # a network drive may hang
        wrong, unsure, full = await asyncio.to_thread(_here, settings)
        away: dict[str, Wrong] = {}
        news: list[str] = []
        try:
            if not skipped:
                await reported.skip()
                skipped = True
            status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
            back += 1
            # after an absence of Redis the last heartbeats are old, and no process is frozen for that
            news += troubles.news(status) if back > _LOOKS else []
            for event in await reported.new():
                news += _completed(event, settings)
            lost = 0
        except RedisError as error:
            # where a disk is full that is the reason, and the supervisor waits until it has room
            lost, back = (0 if full else lost + 1), 0
            # the supervisor reports a Redis that ended, and has started it again by the second look
            if lost > 1 or (lost and isinstance(error, RedisTimeoutError)):
                away["redis"] = Wrong(redis_trouble(error, settings), "Redis answers again, and all goes on")
        for sentence in (*here.news(wrong, unsure), *connection.news(away), *news):
            say(sentence)
        await asyncio.sleep(_LOOK_SECONDS)


def _completed(event: SessionReported, settings: Settings) -> list[str]:
    dead = f", {event.dead} dead (erni dead list --session {event.session_id})" if event.dead else ""
    return [
        f"{event.session_id} is through: {event.validated} validated{dead}",
        f"  report {place_of(settings, event.report_ref)}",
    ]
