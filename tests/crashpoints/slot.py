"""One run after the other in one database: publish, let the fault strike, let others finish, look."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from events import topology
from events.types import Hints, PhotoSubmitted
from tests.crashpoints import child
from tests.crashpoints.checker import check
from tests.crashpoints.coordinates import TAKEN
from tests.crashpoints.look import KEYS, State, look
from tests.crashpoints.trap import Made, Reached
from tests.key_leaks import PERMANENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crashpoints.coordinates import Call, Coordinates
    from tests.crashpoints.trap import Late
    from tests.crashpoints.world import Photo, World

LONGEST: Final = 300.0
"""Seconds after which what a run waits for will not come: many times what it takes on a busy machine."""
_POLL: Final = 0.015
_CREW_LEASE: Final = 30.0


class StuckError(Exception):
    """Something that had to happen did not."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    coordinates: str
    reached: bool
    wrong: list[str]
    seconds: float
    log: str = ""


class Agent:
    """A process of agents, forked from the server that has imported everything."""

    def __init__(self, world: World, job: child.Job) -> None:
        self._world = world
        self.link: Connection
        self.link, theirs = world.forks.Pipe()
        self.process = world.forks.Process(target=child.main, args=(job, theirs), daemon=True)
        with world.forking:
            self.process.start()
        theirs.close()
        self.messages: list[object] = []
        self._gone = False

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._gone or bool(wait([self.process.sentinel], 0))

    def listen(self) -> None:
        """Take in what it has told."""
        with contextlib.suppress(EOFError, OSError):
            while not self._gone and self.link.poll():
                self.messages.append(self.link.recv())

    def told(self, kind: type) -> Any:
        """The message of that type, None without."""
        self.listen()
        return next((message for message in self.messages if isinstance(message, kind)), None)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that is gone gets none."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            if not self.ended:
                os.kill(self.process.pid, number)

    def join(self, seconds: float = LONGEST) -> int:
        """Its exit code. Raises StuckError if it does not go."""
        if not wait([self.process.sentinel], seconds):
            self.kill()
            raise StuckError(f"process {self.process.pid} did not end after SIGTERM")
        self.listen()
        return self._reap()

    def kill(self) -> None:
        """End it at once; one that is gone needs no more."""
        if self._gone:
            return
        self.signal(signal.SIGKILL)
        wait([self.process.sentinel], LONGEST)
        self._reap()

    def _reap(self) -> int:
        self._gone = True
        with self._world.forking:
            self.process.join()
            code = self.process.exitcode
        self.link.close()
        return code if code is not None else -1


class Slot:
    """A database, the agents around the one under test, and the runs in it."""

    def __init__(
        self, world: World, number: int, agent: str, *, mutation: str = "", longest: float = LONGEST
    ) -> None:
        self._world = world
        self._number = number
        self._agent = agent
        self._mutation = mutation
        self._longest = LONGEST
        self._patience = longest
        """Seconds that a run waits; the start of the other agents' process may take longer."""
        self._log = world.folder / f"slot{number}.log"
        self._settings = world.settings(number)
        self._redis = Redis.from_url(
            world.redis_url(number), protocol=2, socket_timeout=20, retry=Retry(NoBackoff(), 0)
        )
        self._crew: Agent | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._redis.close()

    def _start(self) -> None:
        self._longest = LONGEST
        self._redis.flushdb()
        others = tuple(name for name in topology.AGENTS if name != self._agent)
        settings = self._world.settings(self._number, lease=_CREW_LEASE)
        self._crew = self._fork(agents=others, settings=settings)
        crew = self._crew
        self._until(lambda: crew.told(child.Ready), "the crew reads")
        self._longest = self._patience

    def _end(self) -> None:
        if self._crew:
            self._crew.kill()
            self._crew = None

    def _fork(self, **what: Any) -> Agent:
        job = child.Job(
            **{
                "agents": (self._agent,),
                "settings": self._settings,
                "log": str(self._log),
                "asked": str(self._world.asked),
                "mutation": self._mutation,
                **what,
            }
        )
        return Agent(self._world, job)

    def calls(self, *, waiting: bool = False) -> tuple[Call, ...]:
        """The calls of a process that hands one photo off and is told to stop. Raises StuckError.

        `waiting`: whether the photo comes when the process already waits for it.
        """
        photo, before = self._world.new_photo(), look(self._redis)
        if not waiting:
            self._publish(photo, wait_for_it=True)
        agent = self._fork(trapped=True)
        if waiting:
            self._until(lambda: agent.told(child.Ready), "the process reads")
            self._publish(photo, wait_for_it=False)
        self._until(lambda: self._finished(before), "the photo is through")
        agent.signal(signal.SIGTERM)
        agent.join()
        made = agent.told(Made)
        assert isinstance(made, Made)
        self._tidy()
        return made.calls

    def run(self, at: Coordinates) -> Result:
        """One run."""
        started = time.monotonic()
        self._log.write_bytes(b"")
        photo, before = self._world.new_photo(), look(self._redis)
        here: list[Agent] = []
        wrong: list[str] = []
        try:
            self._scenario(at, photo, before, here)
            wrong = self._look(photo, before)
        except StuckError as error:
            for agent in (*here, self._crew):
                if agent:
                    agent.signal(signal.SIGUSR1)
            time.sleep(0.5)
            wrong = [f"stuck: {error}", *self._look(photo, before)]
        finally:
            reached = bool(here) and here[0].told(Reached) is not None
            for agent in here:
                agent.kill()
        log = ""
        if wrong:
            log = self._log.read_text(errors="replace")[-20_000:]
            self._end()
            self._start()
        else:
            self._tidy()
        return Result(
            coordinates=str(at),
            reached=reached,
            wrong=wrong,
            seconds=round(time.monotonic() - started, 3),
            log=log,
        )

    def _scenario(self, at: Coordinates, photo: Photo, before: State, here: list[Agent]) -> None:
        """From the publication to the end of all processes, which are put into `here`."""
        waiting = TAKEN in at.call
        if not waiting:
            self._publish(photo, wait_for_it=True)
        faulty = self._fork(trapped=True, target=at)
        here.append(faulty)
        if waiting:
            self._until(lambda: faulty.told(child.Ready), "the process reads")
            self._publish(photo, wait_for_it=False)
        self._until(
            lambda: faulty.told(Reached) or faulty.ended or self._finished(before),
            "the fault strikes or the photo is through",
        )
        if not faulty.told(Reached):
            # what remains are the calls of an orderly end
            faulty.signal(signal.SIGTERM)
            self._until(lambda: faulty.told(Reached) or faulty.ended, "the process ends")
        reached: Reached | None = faulty.told(Reached)
        other: Agent | None = None
        if at.fault in ("crash", "stall", "stop"):
            # this one has to do it alone if the other lives on
            other = self._fork()
            here.append(other)
        self._until(lambda: self._finished(before), "the photo is through")
        if at.fault == "stall":
            if reached and reached.late:
                self._deliver(reached.late)
            faulty.signal(signal.SIGCONT)
            if at.choose(2):
                # awake for a while before it is told to stop: what it does then is its own
                wait([faulty.process.sentinel], self._world.lease / 2)
        faulty.signal(signal.SIGTERM)
        code = faulty.join()
        if code != (-signal.SIGKILL if reached and at.fault == "crash" else 0):
            raise StuckError(f"the faulty process ended with {code}")
        if reached and reached.late and at.fault != "stall":
            self._deliver(reached.late)
        if other is None and look(self._redis).names_of(self._agent):
            other = self._fork()
            here.append(other)
        if other is not None:
            living = other
            self._until(lambda: self._alone(living), "the dead process is forgotten")
            other.signal(signal.SIGTERM)
            if code := other.join():
                raise StuckError(f"the other process ended with {code}")

    def _finished(self, before: State) -> bool:
        now = look(self._redis)
        ends = {topology.INTAKE, *topology.PUBLIC} - {topology.FAILED}
        return now.waiting() == 0 and all(now.added(name) > before.added(name) for name in ends)

    def _alone(self, living: Agent) -> bool:
        """Whether nothing of a dead process is left beside the one that lives."""
        ready = living.told(child.Ready)
        if ready is None:
            return False
        now = look(self._redis)
        return now.names_of(self._agent) == {ready.consumer} and now.waiting() == 0

    def _until(self, true: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + self._longest
        while not true():
            if time.monotonic() > deadline:
                raise StuckError(f"not so after {self._longest:g} s: {what}; {look(self._redis)}")
            time.sleep(_POLL)

    def _publish(self, photo: Photo, *, wait_for_it: bool) -> None:
        """Submit the photo; `wait_for_it`: until it waits for the agent under test."""
        source = f"store:originals/{photo.sha256}"
        if self._agent == "photo_fetcher":
            source = self._world.put_in_sharepoint(photo)
        event = PhotoSubmitted(
            source_url=source,
            photo_id=photo.photo_id,  # type: ignore[arg-type]  # of the right form
            session_id=photo.session_id,  # type: ignore[arg-type]  # as above
            file_name=f"{photo.photo_id}.jpg",
            expected=1,
            hints=Hints(taken_at="2024-05-12", project="Schulhaus", place="Seewen"),
        )
        fields: Any = {
            "traceparent": f"00-{photo.trace}-00000000000000a1-01",
            "data": msgspec.json.encode(event),
        }
        self._redis.xadd(KEYS.stream(topology.INTAKE), fields)
        stage = topology.stage_of(self._agent)
        if wait_for_it and topology.INTAKE not in stage.reads:
            self._until(
                lambda: self._redis.xlen(KEYS.stream(stage.reads[0])), f"the photo reaches {self._agent}"
            )

    def _deliver(self, late: Late) -> None:
        if not late.redis:
            self._world.deliver(late)
            return
        database = b"*2\r\n$6\r\nSELECT\r\n$%d\r\n%d\r\n" % (len(str(self._number)), self._number)
        with socket.create_connection(("127.0.0.1", self._world.redis.port), timeout=5) as link:
            link.sendall(database + late.redis)
            link.settimeout(5)
            with contextlib.suppress(TimeoutError):
                # two answers, or at least what comes of them: then it was applied
                link.recv(5)
                link.recv(65536)

    def _look(self, photo: Photo, before: State) -> list[str]:
        asked = self._world.asked.read_text(encoding="ascii").split().count(photo.session_id)
        # paid twice only if its worker stood still or died between answer and cache
        return check(
            self._redis,
            photo,
            before,
            look(self._redis),
            self._world.effects(photo),
            asked=asked,
            agent=self._agent,
            most_asked=2 if self._agent == "vision_analyzer" else 1,
        )

    def _tidy(self) -> None:
        """Take away what the run left for a time; the streams go on."""
        names = [key for key in self._redis.scan_iter(count=1000) if not PERMANENT.fullmatch(key.decode())]
        if names:
            self._redis.delete(*names)
        self._redis.delete(KEYS.session_lru, KEYS.session_open)
        for name in topology.PUBLIC:
            self._redis.xtrim(KEYS.stream(name), maxlen=0)
