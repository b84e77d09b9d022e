"""Judges one agent: a word for its state, what is wrong with it, and what to do, each in a sentence."""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from console.durations import short
from console.up_state import stopped
from shared.operations.status import STOPPED, local_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.operations.status import AgentStatus, ProcessStatus
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
    "schema_extractor": "SharePoint",
    "photo_fetcher": "the source of the photos, or the photo store,",
    "vision_analyzer": "the vision model",
    "sharepoint_uploader": "SharePoint",
    "validation_reporter": "SharePoint",
    "webhook_notifier": "a web hook",
}
"""What each agent waits for most of its time."""
PART_NAMES: Final = {"sharepoint": "SharePoint", "vision": "the vision model"}
"""Outside parts by the word that metrics and breakers have for them."""

_OVER: Final[Mapping[Kind, str]] = {
    "failing": "entries go well again",
    "unhealthy": "healthy again, and its photos go on",
    "postponed": "no entry is postponed any more",
    "paused": "reads again",
}
NOTHING_KNOWN: Final[Mapping[str, str]] = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is worth saying of an agent."""

    kind: Kind
    sentence: str
    about: str = ""
    """Which part, process or pause: two looks find the same where agent, kind and this are the same."""
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


def judge(agent: AgentStatus, max_age: float, up: Mapping[str, str] = NOTHING_KNOWN) -> Judgement:
    """Judge an agent; `max_age`: seconds an entry may wait before its age is a problem.

    `up`: what an `erni up` says of the agents whose processes do not run (`console.up_state.agent_states`).
    """
    problems = [
        *_missing(agent, up.get(agent.agent, "")),
        *(_frozen(agent.agent, process) for process in agent.frozen),
        *_failing(agent),
        *_waiting(agent),
    ]
    word: Word = problems[0].word or "ok" if problems else _word(agent)
    return Judgement(word=word, findings=[*problems, *_late(agent, max_age), *_paused(agent), *_notes(agent)])


def _word(agent: AgentStatus) -> Word:
    """Return the state of an agent that has none of the worse problems."""
    if agent.paused_since:
        return "paused"
    if agent.depth.delayed and not agent.depth.pending:
        return "waiting"
    return "slow" if _slow_parts(agent) else "ok"


def _late(agent: AgentStatus, max_age: float) -> list[Finding]:
    if agent.depth.oldest_seconds <= max_age:
        return []
    sentence = (
        f"{agent.agent}: the oldest entry has waited {short(agent.depth.oldest_seconds)}, more than"
        f" {short(max_age)}" + (f" ({_resume(agent.agent)})" if agent.paused_since else "")
    )
    return [Finding(kind="late", sentence=sentence, word="waiting")]


def _paused(agent: AgentStatus) -> list[Finding]:
    if not agent.paused_since:
        return []
    sentence = f"{agent.agent}: paused since {_clock(agent.paused_since)}; {_resume(agent.agent)}"
    return [Finding(kind="paused", sentence=sentence, word="paused")]


def _resume(agent: str) -> str:
    return f"the agent is paused: erni resume {agent}"


def _missing(agent: AgentStatus, up: str) -> list[Finding]:
    if agent.processes or agent.frozen:
        return []
    name = agent.agent
    if up == "starting":
        sentence = f"{name}: `erni up` is starting its process. Wait for a moment"
        return [Finding(kind="missing", sentence=sentence, word="waiting")]
    if up == "failed":
        sentence = (
            f"{name}: its process ended too often, and `erni up` does not start it again. `erni up`"
            " and the end of its log in .erni/logs say how it ended; if nothing says why, it may"
            " have been killed for want of memory. Then end `erni up` with Ctrl-C and start it again,"
            f" or start one process: python -m consumers {name}"
        )
        return [Finding(kind="missing", sentence=sentence, word="missing")]
    sentence = f"{name}: no process runs. Start one: python -m consumers {name}"
    return [Finding(kind="missing", sentence=sentence, word="missing")]


def _frozen(name: str, process: ProcessStatus) -> Finding:
    says, silent = process.says, f"no heartbeat for {short(process.beat_seconds_ago)}"
    if says.host != socket.gethostname():
        sentence = (
            f"{name}: the process {process.consumer} (pid {says.pid} on {says.host}) is frozen or was killed"
            f" ({silent}). Look at it there; another process of {name} takes over its entries"
        )
    elif local_state(says.pid) in STOPPED:
        sentence = stopped(name, says.pid, f" ({silent})")
    else:
        sentence = (
            f"{name}: process {says.pid} exists, but it hangs or does not reach Redis ({silent}). Look at its"
            f" log, then end it: kill -9 {says.pid}. Another process takes over its entries"
        )
    return Finding(kind="frozen", sentence=sentence, about=str(says.pid), word="frozen")


def _failing(agent: AgentStatus) -> list[Finding]:
    # a process whose last entries went well has what it needs again
    recents = [process.says.recent for process in agent.processes if not process.says.recent.endswith(_WELL)]
    died, number = sum(one.count("x") for one in recents), sum(map(len, recents))
    in_a_row = sum(len(one) - len(one.rstrip("x")) for one in recents)
    mostly = died >= _DIED and 2 * died >= number
    alike = in_a_row >= _IN_A_ROW and agent.deaths_alike >= min(_IN_A_ROW, agent.depth.dead)
    if agent.outages or not agent.depth.dead or not (mostly or alike):
        return []
    which = (
        f"{died} of the last {number} entries died"
        if mostly
        else f"the last {in_a_row} entries died of the same cause"
    )
    sentence = (
        f"{agent.agent}: {which}: {without_request(agent.last_death) or 'unknown'}. Look at them: erni dead"
        f" list --agent {agent.agent}"
    )
    return [Finding(kind="failing", sentence=sentence, word="failing")]


def _waiting(agent: AgentStatus) -> list[Finding]:
    name, depth = agent.agent, agent.depth
    back = (
        f". {_postponed(depth.delayed)}, the first until {_clock(depth.next_due)}" if depth.next_due else ""
    )
    found = [
        Finding(kind="outage", sentence=outage(name, part, reason) + back, about=part, word="waiting")
        for part, reason in agent.outages.items()
    ]
    found += [
        Finding(kind="outage", sentence=silent_part(name, part, calls) + back, about=part, word="waiting")
        for part, calls in agent.slow_parts.items()
        if not calls.answers and part not in agent.outages
    ]
    unhealthy: dict[str, list[str]] = {}
    for process in agent.processes:
        if process.says.unwell:
            unhealthy.setdefault(process.says.unwell, []).append(process.consumer)
    for why, consumers in unhealthy.items():
        who = f"the process {consumers[0]} is" if len(consumers) == 1 else f"{len(consumers)} processes are"
        sentence = f"{name}: {who} unhealthy: {why}"
        found.append(Finding(kind="unhealthy", sentence=sentence, word="waiting"))
    return found


def outage(agent: str, part: str, reason: str) -> str:
    """Say that an outside part, or a target in it, is down for an agent, in the words of all commands."""
    reason = without_request(reason)
    why = f" ({reason})" if reason else ""
    name, _, target = part.partition("/")
    if name == "webhook":
        return (
            f"{agent}: the web hook {target} takes no notice{why}. Its notices are postponed, and those for"
            " other web hooks go on; `erni webhook list` shows since when"
        )
    if target:
        return (
            f"{agent}: every photo for {target} fails{why}. Its photos are postponed, and photos for other"
            " targets go on (one photo tries again every 2 to 10 s)"
        )
    name = PART_NAMES.get(name, name)
    return (
        f"{agent}: {name} cannot be used now{why}. The agent has stopped reading, and goes on by itself when"
        f" {name} works again (it asks every 2 to 10 s)"
    )


def without_request(reason: str) -> str:
    """Return a reason without the id of the request that met it."""
    return _REQUEST.sub("", reason)


def over(agent: str, finding: Finding) -> str:
    """Say that what was found is over."""
    part = finding.about
    if finding.kind == "outage":
        name, _, target = part.partition("/")
        what = "notices" if name == "webhook" else "photos"
        return f"{agent}: {target or PART_NAMES.get(name, name)} works again, and its {what} go on"
    if finding.kind == "slow":
        who = PART_NAMES.get(part, part)
        return f"{agent}: {who} answers as fast as usual again" if who else f"{agent}: as fast as usual again"
    if finding.kind == "frozen":
        return f"{agent}: process {part} goes on"
    return f"{agent}: {_OVER.get(finding.kind, 'all is well again')}"


def _notes(agent: AgentStatus) -> list[Finding]:
    notes = [_killed(agent.agent, process) for process in agent.ended]
    depth = agent.depth
    if depth.delayed and depth.next_due and not agent.breakers_open:
        sentence = f"{agent.agent}: {_postponed(depth.delayed)}, the first until {_clock(depth.next_due)}" + (
            f": {without_request(depth.next_reason)}" if depth.next_reason else ""
        )
        notes.append(Finding(kind="postponed", sentence=sentence))
    if agent.slow_parts or agent.outages:
        # an entry takes longer because of that
        return notes + [
            Finding(kind="slow", sentence=slow_part(agent.agent, part, calls), about=part)
            for part, calls in _slow_parts(agent).items()
        ]
    for process in agent.processes:
        now, usual = process.says.seconds_now, process.says.seconds_usual
        if usual and now >= _NOTICED and now >= _SLOWER * usual:
            sentence = (
                f"{agent.agent}: slow: {short(now)} an entry where {short(usual)} is usual;"
                f" {PARTS.get(agent.agent, 'its service')} or this machine answers slowly"
            )
            notes.append(Finding(kind="slow", sentence=sentence))
            break
    return notes


def _killed(name: str, process: ProcessStatus) -> Finding:
    sentence = (
        f"{name}: process {process.says.pid} was killed (no heartbeat for"
        f" {short(process.beat_seconds_ago)}). Another process takes over its entries after a short wait;"
        " `erni up` starts a new one by itself"
    )
    return Finding(kind="killed", sentence=sentence, about=str(process.says.pid))


def _slow_parts(agent: AgentStatus) -> dict[str, SlowCalls]:
    """Return the parts that answer, and slowly; of one that is down, something worse is said."""
    down = {part.partition("/")[0] for part in agent.outages}
    return {part: calls for part, calls in agent.slow_parts.items() if calls.answers and part not in down}


def silent_part(agent: str, part: str, calls: SlowCalls) -> str:
    """Say that an outside part does not answer, in the words of all commands."""
    return (
        f"{agent}: {PART_NAMES.get(part, part)} does not answer: a call ({calls.method}) has waited for"
        f" {short(calls.seconds_now)}, usually it takes {short(calls.seconds_usual)}. Photos wait, none is"
        " lost; the agent tries again by itself"
    )


def slow_part(agent: str, part: str, calls: SlowCalls) -> str:
    """Say that an outside part answers slowly, in the words of all commands."""
    return (
        f"{agent}: {PART_NAMES.get(part, part)} answers slowly: a call ({calls.method}) takes"
        f" {short(calls.seconds_now)}, usually {short(calls.seconds_usual)}. Photos go on, more slowly"
    )


def _postponed(number: int) -> str:
    return "1 entry is postponed" if number == 1 else f"{number} entries are postponed"


def _clock(unix: float | None) -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime(unix))
