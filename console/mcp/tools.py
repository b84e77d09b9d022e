"""The tools: each asks the operations that the command line, the gateway and the console use. None writes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from console import sessions
from console.agent_state import judge
from console.commands import status as status_command
from console.commands.dead import count as letters_in_words
from console.commands.dead_changes import bulk_of
from console.commands.photo import document as photo_document
from console.disk_state import problems_here
from console.errors import CommandError
from console.explain import no_trace
from console.mcp import inputs
from console.mcp.answers import MAX_TEXT, answer, plain
from console.mcp.callers import Caller
from console.up_state import agent_states
from events import identities
from shared.operations import photos, submissions
from shared.operations.memory import read_memory
from shared.operations.search import Search
from shared.operations.status import read_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from shared.delivery.dead_letter import DeadLetter
    from shared.delivery.photo_record import PhotoRecord
    from shared.operations.dead_letters import DeadFilter, Group
    from shared.settings import Settings

_OLD_SECONDS: Final = 600.0
"""As `erni status` has it: an entry that waits longer is a problem."""
_BETWEEN: Final = 1.0
"""Seconds between two looks, for the rate."""
_RECORDS: Final = 2000
"""Photos of a session that are counted by status."""
_PHOTOS: Final = 5
"""Photos of one file name that are shown."""
_FIELDS: Final = 40
_RAW: Final = 2000
"""Fields of an original entry, and characters of one."""
_FEW: Final = 15
"""The most fields of an entry that is shown together with long ones."""
_ATTEMPTS: Final = 5


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool."""

    name: str
    description: str
    takes: type[inputs.Input]
    run: Callable[[Caller, Any], Awaitable[str]]
    """From who calls and the arguments, of the type `takes`, to the answer."""
    publishers: bool = False
    """Whether a publisher may call it, and then sees what its source published."""


class Tools:
    """Answers the calls. Raises CommandError, TooLongError, InvalidIdError and what redis-py raises."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._bulk = bulk_of(redis, settings)
        self._letters = self._bulk.letters

    def all(self) -> list[Tool]:
        """Return every tool, the one to begin with first."""
        return [
            Tool(
                name="pipeline_status",
                description="Show how the pipeline stands now, agent by agent: state, processes, backlog,"
                " oldest entry, rate, postponed, dead letters and open breakers, with the problems in"
                " sentences. Start here. It takes a second.",
                takes=inputs.Input,
                run=self._status,
            ),
            Tool(
                name="search",
                description="Find photos, a session and dead letters by whatever is known: a photo id, a"
                " part of a file name, a session id, a trace id, or a SharePoint address.",
                takes=inputs.Text,
                run=self._search,
            ),
            Tool(
                name="sessions",
                description="List the sessions (batches of photos) that were used last, with their counters.",
                takes=inputs.Sessions,
                run=self._sessions,
            ),
            Tool(
                name="session_show",
                description="Show one session: how many photos are validated, on their way, postponed and"
                " dead, how many need a person, and the photos that did not end well with the reason.",
                takes=inputs.Session,
                run=self._session,
                publishers=True,
            ),
            Tool(
                name="photo_show",
                description="Show one photo's way through the agents: what each did, when, after how many"
                " attempts, why it failed or waits, its trace, and its dead letters.",
                takes=inputs.Photo,
                run=self._photo,
                publishers=True,
            ),
            Tool(
                name="dead_letter_groups",
                description="Group dead letters (photos that could not be processed) by cause, the"
                " largest group first: how many, since when, what happened, and the fingerprint that the"
                " other tools take.",
                takes=inputs.Letters,
                run=self._groups,
            ),
            Tool(
                name="dead_letters",
                description="List dead letters, the oldest first, by a filter.",
                takes=inputs.Letters,
                run=self._list,
            ),
            Tool(
                name="dead_letter_show",
                description="Show one dead letter with everything that is known: the reason, the"
                " attempts, the answer of the service, and the original entry.",
                takes=inputs.Letter,
                run=self._letter,
            ),
            Tool(
                name="replay_dry_run",
                description="Say what a replay would send back to the agents that failed, and the command"
                " that a person types for it. Nothing is changed.",
                takes=inputs.Replay,
                run=self._dry_run,
            ),
        ]

    async def _status(self, _: Caller, __: inputs.Input) -> str:
        lanes, lease = self._settings.lanes, self._settings.lease_seconds
        before = await read_status(self._redis, lanes=lanes, alive_within=lease)
        await asyncio.sleep(_BETWEEN)
        up = agent_states(self._settings)
        now = await read_status(self._redis, lanes=lanes, alive_within=lease)
        memory = await read_memory(self._redis, lanes=lanes)
        judged = [judge(agent, _OLD_SECONDS, up) for agent in now.agents]
        wrong = await asyncio.to_thread(problems_here, self._settings)
        wrong += [sentence for one in judged for sentence in one.problems]
        wrong += [] if up else filter(None, [await no_trace(self._redis, self._settings)])
        wrong += [memory.sentence] if memory.nearly_full else []
        rates = status_command.rates_between(before, now)
        found = status_command.document(now, rates, judged, wrong)
        states = Counter(one.word for one in judged)
        summary = f"{', '.join(f'{number} agents {word}' for word, number in states.items())};" + (
            f" {len(wrong)} problems" if wrong else " no problem was found"
        )
        agents = [
            {
                **one,
                "processes": len(agent.processes),
                "hosts": sorted({p.says.host for p in agent.processes})[:10],
            }
            for one, agent in zip(_list_of(found["agents"]), now.agents, strict=True)
        ]
        return answer(summary, {**found, "agents": agents})

    async def _search(self, _: Caller, wanted: inputs.Text) -> str:
        found = await Search(self._redis, self._letters, lanes=self._settings.lanes).find(wanted.text)
        more = ("; there are more photos" if found.more else "") + (
            "" if found.complete else "; the search ended after some seconds and may have missed some"
        )
        names = [found.session] if found.session else found.sessions
        summary = (
            f"{_count(found.photos, 'photo')}, {_count(names, 'session') if names else 'no session'} and"
            f" {letters_in_words(found.letters)} found{more}"
        )
        return answer(
            summary,
            {
                "photos": [_brief(one) for one in found.photos[: inputs.MAX_LIMIT]],
                "session": found.session or None,
                "sessions": names[: inputs.MAX_LIMIT],
                "dead_letters": found.letters,
            },
        )

    async def _sessions(self, _: Caller, wanted: inputs.Sessions) -> str:
        views, stats = await sessions.newest(self._redis, self._settings, most=wanted.limit)
        return answer(f"the {_count(views, 'session')} used last", {"sessions": views, "all": stats})

    async def _session(self, caller: Caller, wanted: inputs.Session) -> str:
        session_id, lanes = identities.session_id(wanted.session_id), self._settings.lanes
        seen = caller.sees_all or caller.may_see(
            await submissions.source_of_session(self._redis, session_id, lanes=lanes)
        )
        view = await sessions.read(self._redis, session_id, self._settings) if seen else None
        if view is None:
            raise CommandError(
                "there is no such session (any more), or this key may not see it: a session appears when"
                " the first agent has handled its first photo, and a finished one is forgotten"
                f" {self._settings.session_ttl} s after its last use (SESSION_TTL)"
            )
        records = await photos.of_session(self._redis, session_id, lanes=lanes, most=_RECORDS)
        records = [one for one in records if _seen(caller, one)]
        states = Counter(one.status for one in records)
        records.sort(key=lambda one: (one.status == "validated", one.status != "dead"))
        return answer(
            f"the session is {view.status}: {view.received} photos came in, {view.validated} are validated,"
            f" {view.dead} dead, {view.postponed} postponed, {view.in_flight} on their way",
            {
                "session": view,
                "photos_that_need_a_person": await sessions.needing_person(
                    self._redis, session_id, self._settings
                ),
                f"status_of_the_first_{_RECORDS}_photos": states,
                "photos": [_brief(one) for one in records[: wanted.limit]],
            },
        )

    async def _photo(self, caller: Caller, wanted: inputs.Photo) -> str:
        lanes = self._settings.lanes
        one = await photos.show(self._redis, wanted.photo, lanes=lanes)
        found = [one] if one else await photos.by_file_name(self._redis, wanted.photo, lanes=lanes)
        seen = [one for one in found if _seen(caller, one)]
        if not seen:
            raise CommandError(
                "no photo has this id or file name, or this key may not see it: its record appears when"
                f" the first agent is done with it, and is kept for {self._settings.photo_record_hours:g}"
                " hours"
            )
        seen.sort(key=lambda one: max((part.started for part in one.parts), default=0.0), reverse=True)
        shown = [
            {**photo_document(self._settings, one), "dead_letters": await self._letters_of(one)}
            for one in seen[:_PHOTOS]
        ]
        return answer(
            f"{_count(seen, 'photo')}, the newest first, {len(shown)} of them here", {"photos": shown}
        )

    async def _letters_of(self, record: PhotoRecord) -> list[dict[str, object]]:
        wanted = msgspec.structs.replace(inputs.Letters(limit=_PHOTOS).filter(), photo=record.photo_id)
        groups = await self._letters.groups(wanted)
        return [_letter(one) for group in groups for one in group.newest][:_PHOTOS]

    async def _groups(self, _: Caller, wanted: inputs.Letters) -> str:
        groups = [group for group in await self._letters.groups(wanted.filter()) if group.newest]
        total = sum(group.count for group in groups)
        return answer(
            f"{letters_in_words(total)} in {_count(groups, 'group')}, {min(len(groups), wanted.limit)} of"
            " them here",
            {"groups": [_group(group) for group in groups[: wanted.limit]]},
        )

    async def _list(self, _: Caller, wanted: inputs.Letters) -> str:
        selected = wanted.filter()
        letters = await self._first(selected, wanted.limit)
        total = await self._letters.count(selected)
        return answer(
            f"{letters_in_words(total)}, {len(letters)} of them here, the oldest of each agent first",
            {"dead_letters": [_letter(one) for one in letters]},
        )

    async def _first(self, selected: DeadFilter, limit: int) -> list[DeadLetter]:
        found = self._letters.find(msgspec.structs.replace(selected, limit=limit))
        return [letter async for letter in found]

    async def _letter(self, _: Caller, wanted: inputs.Letter) -> str:
        letter = await self._letters.get(inputs.entry_id(wanted.id), agent=inputs.known(wanted.agent))
        if letter is None:
            raise CommandError("there is no such dead letter (any more): replayed or discarded?")
        fields = await self._letters.original(letter)
        pairs = list(zip(fields[::2], fields[1::2], strict=False))
        shown: dict[str, object] = msgspec.to_builtins(letter)
        shown["attempts"] = letter.attempts[-_ATTEMPTS:]
        return answer(
            "the dead letter, and its entry as it came"
            + (", without the last fields" if len(pairs) > _FIELDS else ""),
            {
                "dead_letter": shown,
                "original": [[_text(name), _text(value)] for name, value in pairs[:_FIELDS]],
            },
            longest=_RAW if len(pairs) <= _FEW else MAX_TEXT,
        )

    async def _dry_run(self, _: Caller, wanted: inputs.Replay) -> str:
        selected = wanted.filter()
        if selected.empty != wanted.all:
            raise CommandError(
                "without a filter this would be every dead letter: give one, or all=true"
                if selected.empty
                else "all=true and a filter exclude each other"
            )
        selection = await self._bulk.select(selected, "replay")
        groups = [group for group in await self._letters.groups(selected) if group.newest]
        letters = await self._first(selected, wanted.limit)
        refused = [letter.id for letter in letters if letter.cut]
        return answer(
            f"{letters_in_words(selection.count)} would be replayed, {len(letters)} of them here; nothing was"
            " changed. A person replays them by the command, or in the console",
            {
                "would_replay": selection.count,
                # a command that was cut, or lost a secret, would select others
                "command": wanted.command if plain(wanted.command) == wanted.command else None,
                "groups": [_group(group) for group in groups[: wanted.limit]],
                "dead_letters": [_letter(one) for one in letters],
                "would_be_refused": refused,
            },
        )


def _list_of(value: object) -> list[dict[str, object]]:
    return msgspec.convert(value, list[dict[str, object]])


def _seen(caller: Caller, record: PhotoRecord) -> bool:
    return caller.may_see(record.submitted.source if record.submitted else None)


def _count(found: Sequence[object], what: str) -> str:
    return f"{len(found) or 'no'} {what}{'' if len(found) == 1 else 's'}"


def _brief(record: PhotoRecord) -> dict[str, object]:
    last = record.parts[-1] if record.parts else None
    return {
        "photo_id": record.photo_id,
        "file_name": record.file_name,
        "session_id": record.session_id,
        "status": record.status,
        "last_agent": last.agent if last else None,
        "message": last.message if last else "",
    }


def _letter(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "agent": letter.agent,
        "reason": letter.reason,
        "error_type": letter.error_type,
        "message": letter.message,
        "fingerprint": letter.fingerprint,
        "failed_at": letter.failed_at,
        "photo_id": letter.photo_id,
        "session_id": letter.session_id,
        "file_name": letter.file_name,
        "replays": letter.replays,
    }


def _group(group: Group) -> dict[str, object]:
    last = group.newest[-1]
    return {
        "fingerprint": group.fingerprint,
        "count": group.count,
        "since": group.since or None,
        "agent": last.agent,
        "reason": last.reason,
        "error_type": last.error_type,
        "message": last.message,
        "newest_ids": [letter.id for letter in group.newest],
    }


def _text(raw: bytes) -> str:
    return raw[: 2 * _RAW].decode("utf-8", "backslashreplace")
