"""Judges one agent: a word for its state, what is wrong with it, and what to do, each in a sentence."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from console.durations import short
from shared.operations.status import local_state

if TYPE_CHECKING:
    from shared.operations.status import AgentStatus, ProcessStatus

Word: TypeAlias = Literal["ok", "waiting", "failing", "missing", "frozen", "paused"]

_DIED: Final = 3
"""Deaths among the last entries below which it is the photos' fault."""
_SLOWER: Final = 4.0
_NOTICED: Final = 0.5
"""An agent is slow when an entry takes four times as long as usual, and half a second at least."""
_PARTS: Final = {
    "schema_extractor": "SharePoint",
    "photo_fetcher": "the source of the photos, or the photo store,",
    "vision_analyzer": "the vision model",
    "sharepoint_uploader": "SharePoint",
    "validation_reporter": "SharePoint",
}
"""What each agent waits for most of its time."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one agent."""

    word: Word
    problems: list[str]
    """What a person has to look at: `erni status` exits with 1."""
    notes: list[str]
    """What is worth knowing and will pass by itself."""


def judge(agent: AgentStatus, max_age: float) -> Judgement:
    """Judge an agent; `max_age`: seconds an entry may wait before its age is a problem."""
    found: list[tuple[Word, str]] = [
        *_missing(agent),
        *(("frozen", _frozen(agent.agent, process)) for process in agent.frozen),
        *_failing(agent),
        *_waiting(agent),
    ]
    problems = [sentence for _, sentence in found]
    if agent.depth.oldest_seconds > max_age:
        problems.append(
            f"{agent.agent}: the oldest entry has waited {short(agent.depth.oldest_seconds)}, more than"
            f" {short(max_age)}" + (f" ({_resume(agent.agent)})" if agent.paused_since else "")
        )
    if agent.paused_since:
        found.append(("paused", ""))
        problems.append(f"{agent.agent}: paused since {_clock(agent.paused_since)}; {_resume(agent.agent)}")
    notes = _notes(agent)
    word: Word = "waiting" if agent.depth.delayed and not agent.depth.pending else "ok"
    return Judgement(word=found[0][0] if found else word, problems=problems, notes=notes)


def _resume(agent: str) -> str:
    return f"the agent is paused: erni resume {agent}"


def _missing(agent: AgentStatus) -> list[tuple[Word, str]]:
    if agent.processes or agent.frozen:
        return []
    name = agent.agent
    return [("missing", f"{name}: no process runs. Start one: python -m consumers {name}")]


def _frozen(name: str, process: ProcessStatus) -> str:
    says, silent = process.says, f"no heartbeat for {short(process.beat_seconds_ago)}"
    if says.host != socket.gethostname():
        return (
            f"{name}: the process {process.consumer} (pid {says.pid} on {says.host}) sends {silent}: it is"
            f" frozen or was killed. Look at it there; another process of {name} takes over its entries"
        )
    if local_state(says.pid) == "T":
        return (
            f"{name}: process {says.pid} is stopped (SIGSTOP, or a debugger) and sends {silent}."
            f" Let it go on: kill -CONT {says.pid}"
        )
    return (
        f"{name}: process {says.pid} exists and sends {silent}: it hangs, or does not reach Redis. Look at"
        f" its log, then end it: kill -9 {says.pid}. Its entries are taken over"
    )


def _failing(agent: AgentStatus) -> list[tuple[Word, str]]:
    recent = "".join(process.says.recent for process in agent.processes)
    died = recent.count("x")
    if not agent.depth.dead or died < _DIED or 2 * died < len(recent):
        return []
    return [
        (
            "failing",
            (
                f"{agent.agent}: {died} of the last {len(recent)} entries died:"
                f" {agent.last_death or 'unknown'}. Look at them: erni dead list --agent {agent.agent}"
            ),
        )
    ]


def _waiting(agent: AgentStatus) -> list[tuple[Word, str]]:
    name, depth = agent.agent, agent.depth
    back = (
        f". {depth.delayed} entries are postponed, the first until {_clock(depth.next_due)}"
        if depth.next_due
        else ""
    )
    found: list[tuple[Word, str]] = [("waiting", outage(name, part) + back) for part in agent.breakers_open]
    found += [
        ("waiting", f"{name}: the process {process.consumer} is unhealthy: {process.says.unwell}")
        for process in agent.processes
        if process.says.unwell
    ]
    return found


def outage(agent: str, part: str) -> str:
    """Say that an outside part is down for an agent; everybody who reports it says it like this."""
    return (
        f"{agent}: {part} fails, or throttles us. Reading has stopped; it goes on by itself when {part} is"
        " back (asked every 2 to 10 s)"
    )


def _notes(agent: AgentStatus) -> list[str]:
    notes: list[str] = []
    depth = agent.depth
    if depth.delayed and depth.next_due and not agent.breakers_open:
        notes.append(
            f"{agent.agent}: {depth.delayed} entries are postponed, the first until {_clock(depth.next_due)}"
            + (f": {depth.next_reason}" if depth.next_reason else "")
        )
    for process in agent.processes:
        now, usual = process.says.seconds_now, process.says.seconds_usual
        if usual and now >= _NOTICED and now >= _SLOWER * usual:
            notes.append(
                f"{agent.agent}: slow: {short(now)} an entry where {short(usual)} is usual;"
                f" {_PARTS[agent.agent]} or this machine answers slowly"
            )
            break
    return notes


def _clock(unix: float | None) -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime(unix))
