"""What must be true after a run, each looked at from outside. One problem anywhere, and the run failed."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from events import topology
from tests.chaos import hooks, process_checks
from tests.chaos.check import Check
from tests.chaos.figures import Figures, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.evidence import Buried, Evidence
    from tests.chaos.submitter import Photo

TAIL: Final = 1.0
"""Seconds before a fail-over in which acknowledged photos may be lost without WAIT_REPLICAS."""
LEFT: Final = 2.0
"""Seconds after it within which everybody has left the old primary; what it took until then may be lost."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run."""

    figures: Figures
    checks: list[Check]
    notes: list[str]

    @property
    def green(self) -> bool:
        """Whether all is true."""
        return not any(check.problems for check in self.checks)

    @property
    def red(self) -> list[str]:
        """The names of the checks that found something."""
        return [check.name for check in self.checks if check.problems]


def check(evidence: Evidence) -> Verdict:
    """Look at everything."""
    book = _Book(evidence)
    looks: list[Callable[[], Check]] = [
        book.lost,
        book.duplicated,
        book.unexpected,
        book.disjoint,
        book.hand_offs,
        book.failures,
        book.steps,
        book.effects,
        book.fates,
        book.nonsense,
        book.drained,
        book.sessions,
        book.completions,
        book.traces,
        partial(process_checks.retries, evidence),
        partial(process_checks.secrets, evidence),
        partial(process_checks.keys, evidence),
        partial(process_checks.consumers, evidence),
        partial(process_checks.living, evidence),
        partial(process_checks.exits, evidence),
        partial(process_checks.alarms, evidence),
        partial(process_checks.take_over_in_time, evidence),
    ]
    if evidence.plan.topology:
        # the files of one server say how often an entry was added; here a hand-off twice shows as two ends
        for look in (book.hand_offs, book.failures, book.nonsense):
            looks.remove(look)
    if evidence.plan.loses_a_tail:
        looks[0] = book.lost_tail
        for look in (book.sessions, book.completions):
            looks.remove(look)
    if evidence.plan.hooks:
        looks.append(partial(hooks.notices, evidence))
    return Verdict(figures=measure(evidence), checks=[look() for look in looks], notes=evidence.notes)


class _Book:
    """The evidence, sorted."""

    def __init__(self, evidence: Evidence) -> None:
        self.e = evidence
        self.validated = Counter(entry.photo_id for entry in evidence.validated)
        self.letters: dict[str, list[Buried]] = defaultdict(list)
        self.others: list[Buried] = []
        """Dead letters that are about no photo of ours."""
        for buried in evidence.buried:
            if buried.letter.photo_id is not None:
                self.letters[buried.letter.photo_id].append(buried)
            elif buried.letter.reason == "undecodable":
                self.others.append(buried)
        self.dead = Counter({photo: len(letters) for photo, letters in self.letters.items()})

    def ends(self, photo: Photo) -> int:
        """How often a photo's way ended."""
        return self.validated[photo.photo_id] + self.dead[photo.photo_id]

    def lost(self) -> Check:
        problems = [
            f"{photo.photo_id} was acknowledged and neither validated nor dead"
            for photo in self.e.photos.values()
            if photo.state == "published" and not self.ends(photo)
        ]
        return Check(name="lost", looked_at=f"{len(self.e.photos)} photos", problems=problems)

    def lost_tail(self) -> Check:
        """Only what was acknowledged shortly before a fail-over, or until all have left the old primary."""
        found = [
            photo for photo in self.e.photos.values() if photo.state == "published" and not self.ends(photo)
        ]
        times = [one for one in self.e.intervals if one.what == "change of primary"]
        problems = [
            f"{photo.photo_id} was acknowledged when no fail-over was near, and is lost"
            for photo in found
            if not any(one.start - TAIL <= photo.acknowledged <= one.end + LEFT for one in times)
        ]
        late = [
            min(p.acknowledged - one.end for one in times if one.start - TAIL <= p.acknowledged)
            for p in found
            if any(one.start - TAIL <= p.acknowledged for one in times)
        ]
        return Check(
            name="lost tail",
            looked_at=f"{len(found)} lost of {len(self.e.photos)} photos, {len(times)} fail-overs,"
            f" the last one {max(late, default=0.0):.1f} s after the change",
            problems=problems,
        )

    def duplicated(self) -> Check:
        problems = [
            f"{photo.photo_id} ended {self.ends(photo)} times"
            for photo in self.e.photos.values()
            if self.ends(photo) > 1
        ]
        return Check(name="duplicated", looked_at=f"{len(self.e.photos)} photos", problems=problems)

    def unexpected(self) -> Check:
        ended = self.validated.keys() | self.dead.keys()
        problems = [f"{photo} was never published" for photo in ended - self.e.photos.keys()]
        problems += [
            f"a dead letter ({b.letter.reason}) of {b.letter.agent} about no photo"
            for b in self.e.buried
            if b.letter.photo_id is None and b.letter.reason != "undecodable"
        ]
        return Check(name="unexpected", looked_at=f"{len(ended)} ends", problems=problems)

    def disjoint(self) -> Check:
        both = self.validated.keys() & self.dead.keys()
        return Check(
            name="validated and dead",
            looked_at=f"{len(self.validated)} and {len(self.dead)}",
            problems=[f"{photo} is both" for photo in both],
        )

    def hand_offs(self) -> Check:
        """By the server's own files: each photo was added once to each stream on its way, and to no other."""
        problems, handed = [], self.e.handed.handed
        count = 0
        for photo in self.e.photos.values():
            passed = self._passed(photo)
            if passed is None:
                continue
            streams = [topology.INTAKE, *(stage.writes[0] for stage in topology.PIPELINE)]
            for number, stream in enumerate(streams):
                found, wanted = handed[stream, photo.photo_id], int(number <= passed)
                count += found
                if found != wanted:
                    problems.append(f"{photo.photo_id} was added to {stream} {found} times, not {wanted}")
        return Check(name="hand-offs once", looked_at=f"{count} hand-offs in its files", problems=problems)

    def failures(self) -> Check:
        """By the server's own files: each dead letter of a photo was said in public, once."""
        problems, handed = [], self.e.handed.handed
        old = tuple(f"-{process.pid}-" for process in self.e.herd if process.earlier)
        count = 0
        for photo in self.e.photos.values():
            died = sum(handed[f"dead:{agent}", photo.photo_id] for agent in topology.AGENTS)
            # the code of an earlier commit did not say it
            silent = sum(
                any(mark in buried.letter.consumer for mark in old)
                for buried in self.letters.get(photo.photo_id, ())
            )
            said = handed[topology.FAILED, photo.photo_id]
            count += said
            if said != died - silent:
                problems.append(f"{photo.photo_id} died {died - silent} times, photo.failed says {said}")
        return Check(name="every failure said once", looked_at=f"{count} failures", problems=problems)

    def _passed(self, photo: Photo) -> int | None:
        """How many agents a photo passed; None if that cannot be told (lost or given up)."""
        if self.validated[photo.photo_id]:
            return len(topology.AGENTS)
        letters = self.letters.get(photo.photo_id)
        return topology.AGENTS.index(letters[0].letter.agent) if letters else None

    def steps(self) -> Check:
        problems = []
        for entry in self.e.validated:
            agents = tuple(step.agent for step in entry.steps)
            if agents != topology.AGENTS:
                problems.append(f"{entry.photo_id} went by {', '.join(agents)}")
        return Check(name="one way", looked_at=f"{len(self.e.validated)} ways", problems=problems)

    def effects(self) -> Check:
        if self.e.plan.real:
            return self._uploads()
        problems = []
        calls = [int(number) for number in self.e.plan.calls.split(",")]
        for photo in self.e.photos.values():
            for agent, number in zip(topology.AGENTS, calls, strict=True):
                if self.validated[photo.photo_id] and not all(
                    (agent, photo.photo_id, str(call)) in self.e.effects for call in range(number)
                ):
                    problems.append(f"{photo.photo_id} is validated without the effect of {agent}")
        known = self.e.photos.keys()
        sessions = set(self.e.sessions)
        if self.e.plan.loses_a_tail:
            # one that was lost with the tail may have been reported before
            sessions |= {photo.session_id for photo in self.e.photos.values() if photo.session_id}
        problems += [
            f"{agent} had an effect for {whom}, which nobody published"
            for agent, whom, _ in self.e.effects
            if whom not in known and whom.rpartition(".")[0] not in sessions
        ]
        return Check(
            name="effects",
            looked_at=f"{len(self.e.effects)} effects, tried {sum(self.e.tried.values())} times",
            problems=problems,
        )

    def _uploads(self) -> Check:
        """By SharePoint's own log: each picture became one item, once, and was never written over."""
        problems = []
        for sha256 in {entry.sha256 for entry in self.e.validated}:
            created, replaced = self.e.uploads[sha256, "created"], self.e.uploads[sha256, "replaced"]
            if (created, replaced) != (1, 0):
                problems.append(f"{sha256[:12]} was created {created} times and replaced {replaced} times")
        return Check(name="effects", looked_at=f"{len(self.e.uploads)} uploads", problems=problems)

    def fates(self) -> Check:
        """Who kills dies, who is refused is dead at once, and no innocent dies of what others did."""
        problems = []
        for photo in self.e.photos.values():
            letters = self.letters.get(photo.photo_id, [])
            for buried in letters:
                letter = buried.letter
                where = f"{photo.photo_id} ({photo.way}) is dead at {letter.agent}: {letter.reason}"
                guilty = photo.way != "ok" and letter.agent == topology.AGENTS[photo.agent]
                wanted = {"die": "delivery_limit", "refuse": "permanent"}.get(photo.way, "")
                if guilty and letter.reason not in (wanted, "exhausted"):
                    problems.append(f"{where}, not {wanted}")
                if not guilty and letter.reason != "exhausted":
                    problems.append(f"{where}: {letter.message[:100]}")
            if photo.way != "ok" and self.validated[photo.photo_id]:
                problems.append(f"{photo.photo_id} ({photo.way}) was validated")
        return Check(name="fates", looked_at=f"{len(self.letters)} dead", problems=problems)

    def nonsense(self) -> Check:
        problems = []
        found = Counter(tuple(buried.raw) for buried in self.others)
        for entry in self.e.nonsense:
            count = found.pop(tuple(entry.fields), 0)
            if count > 1 or (entry.acknowledged and not count):
                problems.append(f"entry {entry.fields!r} has {count} dead letters with its very bytes")
        problems += [f"an undecodable dead letter that nobody sent: {fields!r}"[:300] for fields in found]
        return Check(
            name="nonsense kept as it came", looked_at=f"{len(self.e.nonsense)} entries", problems=problems
        )

    def drained(self) -> Check:
        return Check(
            name="drained",
            looked_at=f"after {self.e.drain_seconds:.1f} s",
            problems=self.e.left + self.e.pending,
        )

    def sessions(self) -> Check:
        """Recount every session from where its photos ended."""
        wanted: dict[str, Counter[str]] = defaultdict(Counter)
        for photo in self.e.photos.values():
            if photo.session_id is None or photo.state != "published":
                continue
            count = wanted[photo.session_id]
            count["received"] += 1
            passed = self._passed(photo)
            for agent in topology.AGENTS[: passed or 0]:
                count[agent] += 1
            count["validated"] += self.validated[photo.photo_id]
            count["dead"] += self.dead[photo.photo_id]
        problems = []
        for session, count in wanted.items():
            said = self.e.sessions.get(session)
            if said is None:
                problems.append(f"{session} is not there")
                continue
            names = ("received", *topology.AGENTS, "validated", "dead", "postponed")
            differ = [
                f"{name} {said.get(name, '0')}, recounted {count[name]}"
                for name in names
                if int(said.get(name, 0)) != count[name]
            ]
            if differ:
                problems.append(f"{session}: {'; '.join(differ)}")
        problems += [f"{session} was never published" for session in self.e.sessions.keys() - wanted.keys()]
        return Check(name="session counters", looked_at=f"{len(wanted)} sessions", problems=problems)

    def completions(self) -> Check:
        problems = []
        for session, said in self.e.sessions.items():
            completion = int(said.get("completion", 0))
            if completion < 1 or said.get("status") != "completed":
                problems.append(f"{session} has not completed")
            for number in range(1, completion + 1):
                written = self.e.handed.handed[topology.COMPLETED, f"session:{session}:{number}"]
                if self.e.plan.topology:
                    written = 1
                reported = self.e.reported[session, number]
                if (written, reported) != (1, 1):
                    problems.append(
                        f"{session}, completion {number}: written {written} times, reported {reported}"
                    )
        return Check(
            name="completed once", looked_at=f"{len(self.e.sessions)} sessions", problems=problems[:50]
        )

    def traces(self) -> Check:
        problems = []
        seen = [(entry.photo_id, entry.trace_id) for entry in self.e.validated]
        seen += [
            (photo, buried.letter.traceparent[3:35])
            for photo, letters in self.letters.items()
            for buried in letters
        ]
        for photo_id, trace_id in seen:
            photo = self.e.photos.get(photo_id)
            if photo is not None and photo.trace_id != trace_id:
                problems.append(f"{photo_id} began in trace {photo.trace_id} and ended in {trace_id}")
        # a process that is killed takes spans along that it has not sent
        whole = not any(number == signal.SIGKILL for p in self.e.herd for _, number in p.signals)
        problems += [
            f"trace {trace.trace_id} has spans of {len(trace.agents)} agents and"
            f" {trace.foreign_parents - 1} gaps"
            for trace in self.e.traced
            if whole and (trace.foreign_parents > 1 or trace.agents != frozenset(topology.AGENTS))
        ]
        spans = f", {len(self.e.traced)} traces" if self.e.traced else ""
        return Check(name="one trace", looked_at=f"{len(seen)} ends{spans}", problems=problems)
