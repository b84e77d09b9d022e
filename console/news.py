"""Reports the news of a running pipeline: what goes wrong, what is over, and sessions that have completed."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Final

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
    from collections.abc import Callable, Mapping

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.operations.status import AgentStatus, PipelineStatus
    from shared.settings import Settings

_REPORTED: Final = "session.reported"
_LOOK_SECONDS: Final = 1.0
_PAGE: Final = 100
_LOOKS: Final = 3
"""Looks in a row that do not find a trouble any more before it is said to be over."""
_SAID_OTHERWISE: Final = ("missing", "killed", "late")
"""The supervisor says these; the age of the oldest entry is no news of its own."""
_PROVED: Final = ("outage", "unhealthy", "postponed")
"""These are over when an entry has gone well."""


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
                if place not in self._known:
                    said.append(finding.sentence)
                self._known[place] = _Known(finding=finding, done=done)
            said += self._over(agent, {(one.kind, one.about) for one in found}, done)
        return said

    def _over(self, agent: AgentStatus, found: set[tuple[str, str]], done: dict[str, int]) -> list[str]:
        """Return a sentence for each trouble that is over."""
        said: list[str] = []
        for place, known in list(self._known.items()):
            name, kind, about = place
            if name != agent.agent or (kind, about) in found:
                continue
            known.absent += 1
            if kind in _PROVED:
                # that no process reports it any more is no proof: the one that did may have ended
                if not any(number > known.done.get(consumer, 0) for consumer, number in done.items()):
                    continue
            elif known.absent < _LOOKS:
                continue
            del self._known[place]
            ended = kind == "frozen" and about not in {str(process.says.pid) for process in agent.processes}
            # of a process that has ended, the supervisor says it
            said += [] if ended else [over(name, known.finding)]
        return said


class Conditions:
    """Compares what is wrong on this machine with what was: each is said when it begins and when it ends."""

    def __init__(self) -> None:
        self._over: dict[str, str] = {}
        """By what it is about: what is said when it is over."""

    def news(self, wrong: Mapping[str, tuple[str, str]]) -> list[str]:
        """Return a sentence for each change; `wrong`: for each thing the sentence, and that of its end."""
        said = [sentence for about, (sentence, _) in wrong.items() if about not in self._over]
        said += [sentence for about, sentence in self._over.items() if about not in wrong]
        self._over = {about: sentence for about, (_, sentence) in wrong.items()}
        return said


def _here(settings: Settings) -> dict[str, tuple[str, str]]:
    """Look at this machine: its disks, and the processes of which Redis knows nothing."""
    wrong = {
        f"disk {disk.folder}{' full' if disk.full else ''}": (
            disk.trouble,
            f"the disk of {disk.folder} has room again",
        )
        for disk in disks_of(settings)
        if disk.trouble
    }
    frozen = process_troubles(settings)
    return wrong | {name: (sentence, f"{name}: its process goes on") for name, sentence in frozen.items()}


async def tell(redis: Redis, settings: Settings, say: Callable[[str], None]) -> None:
    """Report each piece of news in a sentence, until cancelled."""
    reported = Reported(redis, lanes=settings.lanes)
    troubles, here, connection = Troubles(), Conditions(), Conditions()
    skipped, lost, back = False, 0, _LOOKS
    while True:
        # a network drive may hang
        wrong = await asyncio.to_thread(_here, settings)
        away: dict[str, tuple[str, str]] = {}
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
            lost, back = (0 if any(disk.full for disk in disks_of(settings)) else lost + 1), 0
            # the supervisor reports a Redis that ended, and has started it again by the second look
            if lost > 1 or (lost and isinstance(error, RedisTimeoutError)):
                away["redis"] = (redis_trouble(error, settings), "Redis answers again, and all goes on")
        for sentence in (*here.news(wrong), *connection.news(away), *news):
            say(sentence)
        await asyncio.sleep(_LOOK_SECONDS)


def _completed(event: SessionReported, settings: Settings) -> list[str]:
    dead = f", {event.dead} dead (erni dead list --session {event.session_id})" if event.dead else ""
    return [
        f"{event.session_id} is through: {event.validated} validated{dead}",
        f"  report {place_of(settings, event.report_ref)}",
    ]
