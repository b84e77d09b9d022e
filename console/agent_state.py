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
from shared.delivery.dead_letter import fingerprint
from shared.operations.local_processes import STOPPED, local_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.operations.status import AgentStatus, Depth, ProcessStatus
    from shared.retry.call_times import SlowCalls

Word: TypeAlias = Literal["ok", "slow", "waiting", "failing", "missing", "frozen", "paused"]

Kind: TypeAlias = Literal[
    "missing", "frozen", "failing", "outage", "unhealthy", "late", "paused", "killed", "postponed", "slow"
]

_DIED: Final = 3
"""Deaths among the last entries below which it is the photos' fault."""
_WELL: Final = "." * _DIED
_IN_A_ROW: Final = 5
"""So many entries in a row that died of one cause are the cause's fault, however many went well before."""
_SLOWER: Final = 4.0
_NOTICED: Final = 0.5
"""An agent is slow when an entry takes four times as long as usual, and half a second at least."""
_REQUEST: Final = re.compile(r" \[request-id[^\]]*\]")
"""It differs from attempt to attempt, and the log and `erni photo show` have it."""
PARTS: Final = {
    "schema_extractor": "sharepoint",
    "photo_fetcher": "source",
    "vision_analyzer": "vision",
    "sharepoint_uploader": "sharepoint",
    "validation_reporter": "sharepoint",
    "webhook_notifier": "webhook",
}
"""What each agent waits for most of its time, by the word that metrics and breakers have for it."""

_OVER: Final[Mapping[Kind, str]] = {
    "failing": "entries go well again",
    "unhealthy": "healthy again, and its photos go on",
    "postponed": "no entry is postponed any more",
    "paused": "reads again",
}
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


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is worth saying of an agent."""

    kind: Kind
    sentence: str
    about: str = ""
    """Which part, process or pause: two looks find the same where agent, kind and this are the same."""
    cause: str = ""
    """What its reason is, without numbers and what differs from photo to photo; '' where none is known."""
    word: Word | None = None
    """The state that a problem puts the agent into; None: worth knowing, and it passes by itself."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one agent."""

    word: Word
    findings: list[Finding]

    @property
    def problems(self) -> list[str]:
        """What a person has to look at: `erni status` exits with 1."""
        return [one.sentence for one in self.findings if one.word]

    @property
    def notes(self) -> list[str]:
        """What is worth knowing and will pass by itself."""
        return [one.sentence for one in self.findings if not one.word]


def judge(
    agent: AgentStatus, max_age: float, up: Mapping[str, str] = NOTHING_KNOWN, says: Says = ENGLISH
) -> Judgement:
    """Judge an agent; `max_age`: seconds an entry may wait before its age is a problem.

    `up`: what an `erni up` says of the agents whose processes do not run (`console.up_state.agent_states`).
    `says`: the language of the sentences.
    """
    problems = [
        *_missing(agent, up.get(agent.agent, ""), says),
        *(_frozen(agent.agent, process, says) for process in agent.frozen),
        *_failing(agent, says),
        *_waiting(agent, says),
    ]
    word: Word = problems[0].word or "ok" if problems else _word(agent)
    rest = (*_late(agent, max_age, says), *_paused(agent, says), *_notes(agent, says))
    return Judgement(word=word, findings=[*problems, *rest])


def _word(agent: AgentStatus) -> Word:
    """Return the state of an agent that has none of the worse problems."""
    if agent.paused_since:
        return "paused"
    if agent.depth.delayed and not agent.depth.pending:
        return "waiting"
    return "slow" if _slow_parts(agent) else "ok"


def _late(agent: AgentStatus, max_age: float, says: Says) -> list[Finding]:
    if agent.depth.oldest_seconds <= max_age:
        return []
    sentence = says(
        "state.old.paused" if agent.paused_since else "state.old",
        agent=agent.agent,
        age=short(agent.depth.oldest_seconds),
        limit=short(max_age),
    )
    return [Finding(kind="late", sentence=sentence, word="waiting")]


def _paused(agent: AgentStatus, says: Says) -> list[Finding]:
    if not agent.paused_since:
        return []
    sentence = says("state.paused", agent=agent.agent, since=says.clock(agent.paused_since))
    return [Finding(kind="paused", sentence=sentence, word="paused")]


def _missing(agent: AgentStatus, up: str, says: Says) -> list[Finding]:
    if agent.processes or agent.frozen:
        return []
    name = agent.agent
    if up == "starting":
        return [Finding(kind="missing", sentence=says("state.starting", agent=name), word="waiting")]
    sentence = says("state.given_up" if up == "failed" else "state.missing", agent=name)
    return [Finding(kind="missing", sentence=sentence, word="missing")]


def _frozen(name: str, process: ProcessStatus, says: Says) -> Finding:
    it = process.says
    values = {"agent": name, "pid": it.pid, "silent": short(process.beat_seconds_ago)}
    if it.host != socket.gethostname():
        sentence = says("state.frozen.elsewhere", consumer=process.consumer, host=it.host, **values)
    elif local_state(it.pid) in STOPPED:
        sentence = says("state.frozen.stopped", **values)
    else:
        sentence = says("state.frozen.hangs", **values)
    return Finding(kind="frozen", sentence=sentence, about=str(it.pid), word="frozen")


def _failing(agent: AgentStatus, says: Says) -> list[Finding]:
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
    why = Quoted(without_request(agent.last_death)) if agent.last_death else says("state.unknown")
    sentence = says("state.failing", agent=agent.agent, which=which, why=why)
    return [Finding(kind="failing", sentence=sentence, cause=agent.last_death_cause, word="failing")]


def _waiting(agent: AgentStatus, says: Says) -> list[Finding]:
    name, depth = agent.agent, agent.depth
    back = f". {_postponed(depth, says)}" if depth.next_due else ""
    found = [
        Finding(
            kind="outage",
            sentence=outage(name, part, reason, says) + back,
            about=part,
            cause=_cause(reason),
            word="waiting",
        )
        for part, reason in agent.outages.items()
    ]
    found += [
        Finding(
            kind="outage",
            sentence=_calls("state.silent_part", name, part, calls, says) + back,
            about=part,
            word="waiting",
        )
        for part, calls in agent.slow_parts.items()
        if not calls.answers and part not in agent.outages
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
        sentence = says("state.unhealthy", agent=name, who=who, why=Quoted(why))
        found.append(Finding(kind="unhealthy", sentence=sentence, cause=_cause(why), word="waiting"))
    return found


def _cause(reason: str) -> str:
    """Return what says whether two reasons are the same one, numbers and quoted details apart."""
    return fingerprint("", "", "", without_request(reason)) if reason else ""


def outage(agent: str, part: str, reason: str, says: Says = ENGLISH) -> str:
    """Say that an outside part, or a target in it, is down for an agent, in the words of all commands."""
    reason = without_request(reason)
    why = says("state.because", why=Quoted(reason)) if reason else ""
    name, _, target = part.partition("/")
    if name == "webhook":
        return says("state.outage.webhook", agent=agent, target=target, why=why)
    if target:
        return says("state.outage.target", agent=agent, target=target, why=why)
    return says("state.outage.part", agent=agent, part=_part(name, says), why=why)


def without_request(reason: str) -> str:
    """Return a reason without the id of the request that met it."""
    return _REQUEST.sub("", reason)


def over(agent: str, finding: Finding) -> str:
    """Say that what was found is over."""
    part = finding.about
    if finding.kind == "outage":
        name, _, target = part.partition("/")
        what = "notices" if name == "webhook" else "photos"
        return f"{agent}: {target or _part(name, ENGLISH)} works again, and its {what} go on"
    if finding.kind == "slow":
        who = _part(part, ENGLISH)
        return f"{agent}: {who} answers as fast as usual again" if who else f"{agent}: as fast as usual again"
    if finding.kind == "frozen":
        return f"{agent}: process {part} goes on"
    return f"{agent}: {_OVER.get(finding.kind, 'all is well again')}"


def _notes(agent: AgentStatus, says: Says) -> list[Finding]:
    notes = [_killed(agent.agent, process, says) for process in agent.ended]
    depth = agent.depth
    if depth.delayed and depth.next_due and not agent.breakers_open:
        why = (
            says("state.reason", why=Quoted(without_request(depth.next_reason))) if depth.next_reason else ""
        )
        sentence = says("state.postponed", agent=agent.agent, what=_postponed(depth, says), why=why)
        notes.append(Finding(kind="postponed", sentence=sentence))
    if agent.slow_parts or agent.outages:
        # an entry takes longer because of that
        return notes + [
            Finding(
                kind="slow", sentence=_calls("state.slow_part", agent.agent, part, calls, says), about=part
            )
            for part, calls in _slow_parts(agent).items()
        ]
    for process in agent.processes:
        now, usual = process.says.seconds_now, process.says.seconds_usual
        if usual and now >= _NOTICED and now >= _SLOWER * usual:
            part = says(f"state.waits.{PARTS.get(agent.agent, 'service')}")
            sentence = says("state.slow", agent=agent.agent, now=short(now), usual=short(usual), part=part)
            notes.append(Finding(kind="slow", sentence=sentence))
            break
    return notes


def _killed(name: str, process: ProcessStatus, says: Says) -> Finding:
    pid = process.says.pid
    sentence = says("state.killed", agent=name, pid=pid, silent=short(process.beat_seconds_ago))
    return Finding(kind="killed", sentence=sentence, about=str(pid))


def _slow_parts(agent: AgentStatus) -> dict[str, SlowCalls]:
    """Return the parts that answer, and slowly; of one that is down, something worse is said."""
    down = {part.partition("/")[0] for part in agent.outages}
    return {part: calls for part, calls in agent.slow_parts.items() if calls.answers and part not in down}


def _calls(key: str, agent: str, part: str, calls: SlowCalls, says: Says) -> str:
    """Say how the calls to an outside part go: slowly, or without an answer."""
    return says(
        key,
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
