"""Judges one agent: a word for its state, what is wrong with it, and what to do, each in a sentence.

The sentences stand in the catalogue of the console: a page and a command say the same in the same words.
"""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import msgspec

from console.durations import short
from console.pages.texts import Quoted, Texts, has
from shared.operations.status import local_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.operations.status import AgentStatus, Depth, ProcessStatus
    from shared.retry.call_times import SlowCalls

Word: TypeAlias = Literal["ok", "slow", "waiting", "failing", "missing", "frozen", "paused"]

_DIED: Final = 3
"""Deaths among the last entries below which it is the photos' fault."""
_WELL: Final = "." * _DIED
_IN_A_ROW: Final = 5
"""So many entries in a row that died of one cause are the cause's fault, however many went well before."""
_SLOWER: Final = 4.0
_NOTICED: Final = 0.5
"""An agent is slow when an entry takes four times as long as usual, and half a second at least."""
_REQUEST: Final = re.compile(r" \[request-id[^\]]*\]")
PARTS: Final = {
    "schema_extractor": "sharepoint",
    "photo_fetcher": "source",
    "vision_analyzer": "vision",
    "sharepoint_uploader": "sharepoint",
    "validation_reporter": "sharepoint",
    "webhook_notifier": "webhook",
}
"""What each agent waits for most of its time, by the word that metrics and breakers have for it."""

NOTHING_KNOWN: Final[Mapping[str, str]] = {}


class Says(Protocol):
    """Says the sentences of the catalogue in one language."""

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence with its values filled in."""

    def clock(self, unix: float) -> str:
        """Return a time of day with its zone."""


class English:
    """Says the sentences as the commands do."""

    def __init__(self) -> None:
        self._texts = Texts("en")

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence with its values filled in."""
        return self._texts(key, **values)

    @staticmethod
    def clock(unix: float) -> str:
        """Return a time of day in UTC."""
        return time.strftime("%H:%M:%SZ", time.gmtime(unix))


ENGLISH: Final[Says] = English()


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one agent."""

    word: Word
    problems: list[str]
    """What a person has to look at: `erni status` exits with 1."""
    notes: list[str]
    """What is worth knowing and will pass by itself."""


def judge(
    agent: AgentStatus, max_age: float, up: Mapping[str, str] = NOTHING_KNOWN, says: Says = ENGLISH
) -> Judgement:
    """Judge an agent; `max_age`: seconds an entry may wait before its age is a problem.

    `up`: what an `erni up` says of the agents whose processes do not run (`console.up_state.agent_states`).
    `says`: the language of the sentences.
    """
    found: list[tuple[Word, str]] = [
        *_missing(agent, up.get(agent.agent, ""), says),
        *(("frozen", _frozen(agent.agent, process, says)) for process in agent.frozen),
        *_failing(agent, says),
        *_waiting(agent, says),
    ]
    problems = [sentence for _, sentence in found]
    if agent.depth.oldest_seconds > max_age:
        problems.append(
            says(
                "state.old.paused" if agent.paused_since else "state.old",
                agent=agent.agent,
                age=short(agent.depth.oldest_seconds),
                limit=short(max_age),
            )
        )
    if agent.paused_since:
        found.append(("paused", ""))
        problems.append(says("state.paused", agent=agent.agent, since=says.clock(agent.paused_since)))
    word: Word = "slow" if agent.slow_parts else "ok"
    if agent.depth.delayed and not agent.depth.pending:
        word = "waiting"
    return Judgement(word=found[0][0] if found else word, problems=problems, notes=_notes(agent, says))


def _missing(agent: AgentStatus, up: str, says: Says) -> list[tuple[Word, str]]:
    if agent.processes or agent.frozen:
        return []
    if up == "starting":
        return [("waiting", says("state.starting", agent=agent.agent))]
    return [
        ("missing", says("state.given_up" if up == "failed" else "state.missing", agent=agent.agent)),
    ]


def _frozen(name: str, process: ProcessStatus, says: Says) -> str:
    process_says = process.says
    values = {"agent": name, "pid": process_says.pid, "silent": short(process.beat_seconds_ago)}
    if process_says.host != socket.gethostname():
        return says("state.frozen.elsewhere", consumer=process.consumer, host=process_says.host, **values)
    if local_state(process_says.pid) == "T":
        return says("state.frozen.stopped", **values)
    return says("state.frozen.hangs", **values)


def _failing(agent: AgentStatus, says: Says) -> list[tuple[Word, str]]:
    # a process whose last entries went well has what it needs again
    recents = [process.says.recent for process in agent.processes if not process.says.recent.endswith(_WELL)]
    died, number = sum(one.count("x") for one in recents), sum(map(len, recents))
    in_a_row = sum(len(one) - len(one.rstrip("x")) for one in recents)
    mostly = died >= _DIED and 2 * died >= number
    alike = in_a_row >= _IN_A_ROW and agent.deaths_alike >= min(_IN_A_ROW, agent.depth.dead)
    if agent.outages or not agent.depth.dead or not (mostly or alike):
        return []
    which = (
        says("state.failing.mostly", died=died, number=number)
        if mostly
        else says("state.failing.alike", number=in_a_row)
    )
    why = Quoted(agent.last_death) if agent.last_death else says("state.unknown")
    return [("failing", says("state.failing", agent=agent.agent, which=which, why=why))]


def _waiting(agent: AgentStatus, says: Says) -> list[tuple[Word, str]]:
    name, depth = agent.agent, agent.depth
    back = f". {_postponed(depth, says)}" if depth.next_due else ""
    found: list[tuple[Word, str]] = [
        ("waiting", outage(name, part, reason, says) + back) for part, reason in agent.outages.items()
    ]
    unhealthy: dict[str, list[str]] = {}
    for process in agent.processes:
        if process.says.unwell:
            unhealthy.setdefault(process.says.unwell, []).append(process.consumer)
    for why, consumers in unhealthy.items():
        who = (
            says("state.unhealthy.one", consumer=consumers[0])
            if len(consumers) == 1
            else says("state.unhealthy.many", number=len(consumers))
        )
        found.append(("waiting", says("state.unhealthy", agent=name, who=who, why=Quoted(why))))
    return found


def outage(agent: str, part: str, reason: str, says: Says = ENGLISH) -> str:
    """Say that an outside part, or a target in it, is down for an agent, in the words of all commands."""
    # it differs from attempt to attempt, and the log has it
    reason = _REQUEST.sub("", reason)
    why = says("state.because", why=Quoted(reason)) if reason else ""
    name, _, target = part.partition("/")
    if name == "webhook":
        return says("state.outage.webhook", agent=agent, target=target, why=why)
    if target:
        return says("state.outage.target", agent=agent, target=target, why=why)
    return says("state.outage.part", agent=agent, part=_part(name, says), why=why)


def works_again(agent: str, part: str) -> str:
    """Say that an outage is over."""
    name, _, target = part.partition("/")
    what = "notices" if name == "webhook" else "photos"
    return f"{agent}: {target or _part(name, ENGLISH)} works again, and its {what} go on"


def _notes(agent: AgentStatus, says: Says) -> list[str]:
    notes = [
        says(
            "state.killed",
            agent=agent.agent,
            pid=process.says.pid,
            silent=short(process.beat_seconds_ago),
        )
        for process in agent.ended
    ]
    depth = agent.depth
    if depth.delayed and depth.next_due and not agent.breakers_open:
        why = says("state.reason", why=Quoted(depth.next_reason)) if depth.next_reason else ""
        notes.append(says("state.postponed", agent=agent.agent, what=_postponed(depth, says), why=why))
    if agent.slow_parts:
        # an entry takes longer because of that
        return notes + [slow_part(agent.agent, part, calls, says) for part, calls in agent.slow_parts.items()]
    for process in agent.processes:
        now, usual = process.says.seconds_now, process.says.seconds_usual
        if usual and now >= _NOTICED and now >= _SLOWER * usual:
            part = PARTS.get(agent.agent, "service")
            notes.append(
                says(
                    "state.slow",
                    agent=agent.agent,
                    now=short(now),
                    usual=short(usual),
                    part=says(f"state.waits.{part}"),
                )
            )
            break
    return notes


def slow_part(agent: str, part: str, calls: SlowCalls, says: Says = ENGLISH) -> str:
    """Say that an outside part answers slowly, in the words of all commands."""
    return says(
        "state.slow_part",
        agent=agent,
        part=_part(part, says),
        method=calls.method,
        now=short(calls.seconds_now),
        usual=short(calls.seconds_usual),
    )


def _part(name: str, says: Says) -> str:
    return says(f"state.part.{name}") if has(f"state.part.{name}") else name


def _postponed(depth: Depth, says: Says) -> str:
    until = says.clock(depth.next_due or 0.0)
    if depth.delayed == 1:
        return says("state.postponed.one", until=until)
    return says("state.postponed.many", number=depth.delayed, until=until)
