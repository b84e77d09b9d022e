"""Compares each look at the agents with those before: what goes wrong, and what is over."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from console.agent_state import Finding, judge, over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.operations.status import AgentStatus, PipelineStatus

LOOKS: Final = 3
"""Looks in a row that do not find a trouble any more before it is said to be over."""
_PROVED_LOOKS: Final = 2
"""The same where an entry has gone well besides."""
_SAID_OTHERWISE: Final = ("missing", "killed", "late")
"""The supervisor says these; the age of the oldest entry is no news of its own."""
_PROVED: Final = ("outage", "slow", "failing", "unhealthy", "postponed")
"""These are over when an entry has gone well."""
_OF_PARTS: Final = ("outage", "slow")
"""A part that is slow may fall silent, and a silent one be slow for a moment: no end of either is an end."""
_HIDDEN: Final = ("failing", "postponed")
"""These are not looked for, or not said, while a part of the agent is down."""


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
    """Knows what was reported of the agents and is not over."""

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
            if kind == "failing" and not agent.depth.dead and known.absent >= LOOKS:
                # somebody discarded or replayed them all: nothing shows yet that entries go well
                del self._known[place]
                continue
            # that no process reports it any more is no proof: the one that did may have ended
            proved = any(number > known.done.get(consumer, 0) for consumer, number in done.items())
            if known.absent < (_PROVED_LOOKS if kind in _PROVED else LOOKS):
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
