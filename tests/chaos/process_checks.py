"""What must be true of the processes after a run: how they retried, took over, ended, and what they left."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Final

from shared.retry.policy import ATTEMPTS, LONGEST_WAIT, SHORTEST_WAIT
from tests.chaos.check import Check
from tests.chaos.light_agents import DIED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.evidence import Evidence, Line
    from tests.chaos.herd import Process

_DEATHS: Final = 6
"""How many processes one photo may kill: one per delivery, and one more that died before it was counted."""
_REAL_LEASE: Final = 5.0
"""Seconds from which on a lease is long enough to hold somebody to the time limit of a take-over."""
_NO_ALARMS: Final = ("breaker open",)
"""Errors in the log that the nemesis provokes; it explains no other."""


def retries(evidence: Evidence) -> Check:
    problems, waits = [], 0
    for logged in evidence.logs:
        for line in logged.lines:
            if line.event == "retrying":
                waits += 1
                if not SHORTEST_WAIT <= round(line.wait, 2) <= LONGEST_WAIT or line.attempt >= ATTEMPTS:
                    problems.append(f"waited {line.wait} s after attempt {line.attempt}")
            elif line.event == "delivery" and line.attempts > ATTEMPTS:
                problems.append(f"{line.attempts} attempts")
    for buried in evidence.buried:
        attempts = buried.letter.attempts
        waited = [attempt.wait for attempt in attempts[:-1]]
        apart = [b.at - a.at for a, b in itertools.pairwise(attempts)]
        if buried.letter.reason == "permanent" and any(
            attempt.error_type == buried.letter.error_type for attempt in attempts[:-1]
        ):
            problems.append(f"{buried.letter.photo_id}: a permanent error was tried again")
        if len(attempts) > ATTEMPTS or any(
            wait is None or not SHORTEST_WAIT <= wait <= LONGEST_WAIT or gap < wait - 0.1
            for wait, gap in zip(waited, apart, strict=True)
        ):
            problems.append(f"{buried.letter.photo_id}: waits {waited}, in truth {apart}")
    return Check(name="retries", looked_at=f"{waits} waits", problems=problems)


def secrets(evidence: Evidence) -> Check:
    problems = [
        f"{logged.process.log.name}: {logged.secret_lines} lines"
        for logged in evidence.logs
        if logged.secret_lines
    ]
    problems += [
        f"the dead letter {buried.letter.id} of {buried.letter.agent}"
        for buried in evidence.buried
        if b"planted" in buried.beside
    ]
    problems += [f"trace {trace.trace_id}" for trace in evidence.traced if trace.secrets]
    lines = sum(len(logged.lines) for logged in evidence.logs)
    return Check(
        name="planted secret nowhere",
        looked_at=f"{lines} log lines, {len(evidence.buried)} dead letters",
        problems=problems,
    )


def keys(evidence: Evidence) -> Check:
    return Check(name="no key stays for ever", looked_at="all keys", problems=evidence.leaks)


def consumers(evidence: Evidence) -> Check:
    return Check(
        name="no consumer of the dead",
        looked_at="before and after the end",
        problems=[*evidence.strangers, *evidence.stayed],
    )


def living(evidence: Evidence) -> Check:
    """Nobody takes over from a process that lived.

    Where a strike or a starved machine may have silenced it, nothing is said.
    """
    problems, looked = [], 0
    lease = evidence.plan.lease
    by_pid = {f"-{process.pid}-": process for process in evidence.herd}
    # a struck connection may be silent until its time limit; a starved machine only while it starves
    doubts = [
        (i.start, i.end + lease + (10.0 if i.what == "strike" else 1.0))
        for i in evidence.intervals
        if i.what in ("strike", "starved")
    ]
    for logged in evidence.logs:
        for line in logged.lines:
            if line.event != "took over from a dead process":
                continue
            at = datetime.fromisoformat(line.timestamp).timestamp() - evidence.wall
            victim = next((p for mark, p in by_pid.items() if mark in line.consumer), None)
            if victim is None or any(start < at < end for start, end in doubts):
                continue
            looked += 1
            if not _silent(victim, at, lease):
                problems.append(f"{logged.process.log.name} took over from {line.consumer}, which lived")
    return Check(name="the living keep theirs", looked_at=f"{looked} take-overs", problems=problems)


def exits(evidence: Evidence) -> Check:
    problems = list(evidence.late)
    deaths = 0
    idle = {logged.process.log.name: _idle(logged.lines) for logged in evidence.logs}
    for process in evidence.herd:
        killed = any(number == signal.SIGKILL for _, number in process.signals)
        if process.code in (0, None) or (process.code == -signal.SIGKILL and killed):
            continue
        if process.code == DIED:
            deaths += 1
            continue
        if process.code == -signal.SIGTERM and idle[process.log.name]:
            continue
        problems.append(f"{process.log.name} ended with {process.code}")
    killers = sum(photo.way == "die" for photo in evidence.photos.values())
    if deaths > killers * _DEATHS:
        problems.append(f"{killers} photos killed {deaths} processes")
    for logged in evidence.logs:
        problems += [f"{logged.process.log.name}: {line[:200]}" for line in logged.not_json[:3]]
    return Check(name="no error exit", looked_at=f"{len(evidence.herd)} processes", problems=problems)


def alarms(evidence: Evidence) -> Check:
    found: Counter[str] = Counter()
    example: dict[str, str] = {}
    for logged in evidence.logs:
        for line in logged.lines:
            if line.level in ("error", "critical") and line.event not in _NO_ALARMS:
                found[line.event] += 1
                example.setdefault(line.event, f"{line.error[:150]} {line.exception[-300:]}".strip())
    return Check(
        name="no alarm",
        looked_at="logs",
        problems=[f"{count} times: {event} ({example[event]})" for event, count in found.items()],
    )


def take_over_in_time(evidence: Evidence) -> Check:
    limit = evidence.plan.lease + 4.0
    late = [t for t in evidence.take_overs if t.seconds > limit]
    allowed = len(evidence.take_overs) // 100
    problems = [f"{t.agent}: {t.seconds:.1f} s for {t.entries} entries" for t in late]
    return Check(
        name="take-over p99 in time",
        looked_at=f"{len(evidence.take_overs)} kills, within {limit:g} s",
        # with leases of a second or two a busy machine makes the watchers begin again and again
        problems=problems if len(late) > allowed and evidence.plan.lease >= _REAL_LEASE else [],
    )


def _idle(lines: Sequence[Line]) -> bool:
    """Whether a process had not begun to read yet, or had stopped: a signal ends it then at once."""
    events = {line.event for line in lines}
    return "stopped" in events or "agent reads" not in events


def _silent(process: Process, at: float, lease: float) -> bool:
    """Whether a process may have looked dead to others at that time."""
    if process.ended is not None and process.ended <= at + 0.5:
        return True
    stopped: float | None = None
    for when, number in process.signals:
        if number == signal.SIGSTOP:
            stopped = when
        elif number == signal.SIGCONT and stopped is not None:
            if stopped < at and when > at - lease - 3.0:
                return True
            stopped = None
    return stopped is not None and stopped < at
