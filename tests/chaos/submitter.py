"""The upstream: publishes photos, and writes down what it meant to before, and what it got after."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from redis.asyncio import Redis

from events import codec, topology
from events.connection import RedisError, connect
from events.identities import PhotoId, SessionId
from events.keys import Keys
from events.publisher import Publisher, PublishRefusedError
from events.types import PhotoSubmitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

INTAKE_KEY: Final = f"erni:{topology.INTAKE}"
Way = Literal["ok", "die", "refuse"]
SESSION: Final = 40
"""Photos of a session."""
_TASKS: Final = 6


class Photo(msgspec.Struct, kw_only=True):
    """One photo as the upstream knows it."""

    number: int
    event_id: str
    photo_id: str
    session_id: str | None
    trace_id: str
    way: Way = "ok"
    agent: int = 0
    """Which agent meets the trouble of `way`, counted from 0."""
    state: Literal["meant", "published", "given_up"] = "meant"
    """`given_up`: an error, and not tried again: it may be there or not."""
    acknowledged: float = 0.0
    """Monotonic time."""
    times: int = 0
    """How often publishing was tried."""
    repeated: bool = False
    """Published once more after it had been acknowledged."""


class Nonsense(msgspec.Struct, kw_only=True):
    """An entry that is no event, added by somebody else."""

    fields: list[bytes]
    acknowledged: bool = False


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """What is published: one in so many of each kind, 0 for none."""

    die: int = 700
    refuse: int = 150
    nonsense: int = 200
    without_session: int = 25
    given_up: int = 60
    repeated: int = 50


class Submitter:
    """Publishes until told to stop, never further ahead of the agents than `ahead` entries."""

    def __init__(
        self,
        url: str,
        *,
        password: str,
        admin: Redis,
        rng: random.Random,
        run: str,
        secret: str,
        journal: Path,
        mix: Mix,
        ahead: int = 300,
        rate: float = 0.0,
        bare: bool = False,
        source: Callable[[int], str] | None = None,
        lanes: tuple[Keys, ...] = (Keys(),),
        wait_replicas: int = 0,
    ) -> None:
        """`rng` decides what is published, in the same order every time; `rate`: most photos a second, 0 any.

        `bare`: the mistake of publishing with XADD over a client with redis-py's default retries.
        """
        self.photos: dict[str, Photo] = {}
        self._extra: dict[str, Photo] = {}
        self.nonsense: list[Nonsense] = []
        self.refused = 0
        self.errors = 0
        self._url = url
        self._password = password
        self._admin = admin
        self._redis: Redis = connect(url, password=password, client_name="upstream")
        # an upstream is free to be less patient than the agents
        self._redis.connection_pool.connection_kwargs["socket_timeout"] = 2.0
        self._bare: Redis | None = Redis.from_url(url, password=password) if bare else None
        self._lanes = lanes
        self._publisher = Publisher(
            self._redis, lanes=len(lanes), wait_replicas=wait_replicas, session_ttl=7 * 24 * 3600
        )
        self._rng = rng
        self._run = run
        self._secret = secret
        self._journal = journal.open("ab", buffering=0)
        self._mix = mix
        self._ahead = ahead
        self._rate = rate
        self._next = 0.0
        self._source = source
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()
        self._numbers = self._plan()

    def stop(self) -> None:
        """Begin no new session; the ones begun are published to their end."""
        self._stopping.set()
        self._room.set()

    async def run(self, most: int | None = None) -> None:
        """Publish until `stop`, or `most` photos (rounded up to whole sessions)."""
        ended = asyncio.Event()
        watch = asyncio.create_task(self._keep_near(ended))
        try:
            await asyncio.gather(*(self._work(most) for _ in range(_TASKS)))
        finally:
            # not cancelled: a client in the middle of a call may swallow that
            ended.set()
            await watch

    async def close(self) -> None:
        """Close the connections and the ledger."""
        await self._redis.aclose()
        if self._bare is not None:
            await self._bare.aclose()
        self._journal.close()

    def _plan(self) -> Iterator[Photo]:
        """The photos of the run, the same for the same seed."""
        rng, mix = self._rng, self._mix

        def one_in(number: int) -> bool:
            return bool(number) and rng.randrange(number) == 0

        number = 0
        while True:
            session = f"s-{self._run}-{number // SESSION}"
            for _ in range(SESSION):
                way: Way = "die" if one_in(mix.die) else "refuse" if one_in(mix.refuse) else "ok"
                yield Photo(
                    number=number,
                    event_id=f"e-{self._run}-{number}",
                    photo_id=f"p-{self._run}-{number}",
                    session_id=session,
                    trace_id=secrets.token_hex(16),
                    way=way,
                    agent=rng.randrange(len(topology.AGENTS)),
                )
                number += 1

    async def _work(self, most: int | None) -> None:
        while True:
            if len(self.photos) % SESSION == 0 and (
                self._stopping.is_set() or (most is not None and len(self.photos) >= most)
            ):
                return
            photo = next(self._numbers)
            self.photos[photo.photo_id] = photo
            if self._mix.without_session and photo.number % self._mix.without_session == 7:
                await self._alone(photo.number)
            if self._mix.nonsense and photo.number % self._mix.nonsense == 11:
                await self._say_nonsense(photo.number)
            await self._room.wait()
            if self._rate:
                now = time.monotonic()
                self._next = max(self._next, now) + 1 / self._rate
                await asyncio.sleep(self._next - now)
            await self._publish(photo)

    async def _alone(self, number: int) -> None:
        """A photo without session; of these some are given up at the first error."""
        photo = Photo(
            number=number,
            event_id=f"e-{self._run}-alone-{number}",
            photo_id=f"p-{self._run}-alone-{number}",
            session_id=None,
            trace_id=secrets.token_hex(16),
        )
        self._extra[photo.photo_id] = photo
        await self._publish(photo, once=bool(self._mix.given_up))

    @property
    def everything(self) -> dict[str, Photo]:
        """All photos, those without session among them."""
        return self.photos | self._extra

    async def publish_one(self, photo: Photo) -> None:
        """Publish a photo of a test's own making."""
        self.photos[photo.photo_id] = photo
        await self._publish(photo)

    async def _publish(self, photo: Photo, *, once: bool = False) -> None:
        """Publish until it is acknowledged, by the same event id."""
        event = PhotoSubmitted(
            source_url=self._source(photo.number)
            if self._source
            else f"https://bau.invalid/{photo.way}/{photo.agent}/{photo.number}.jpg?sig={self._secret}",
            photo_id=PhotoId(photo.photo_id),
            session_id=SessionId(photo.session_id) if photo.session_id else None,
            file_name=f"{photo.number}.jpg",
            expected=SESSION if photo.session_id else None,
        )
        self._note(photo)
        while True:
            photo.times += 1
            try:
                await self._send(event, photo)
            except PublishRefusedError:
                self.refused += 1
            except (RedisError, OSError):
                self.errors += 1
                if once:
                    photo.state = "given_up"
                    self._note(photo)
                    return
            else:
                break
            await asyncio.sleep(random.uniform(0.05, 0.4))
        photo.state, photo.acknowledged = "published", time.monotonic()
        self._note(photo)
        if self._mix.repeated and photo.number % self._mix.repeated == 3 and not self._bare:
            photo.repeated = True
            with contextlib.suppress(RedisError, OSError, PublishRefusedError):
                await self._send(event, photo)

    async def _send(self, event: PhotoSubmitted, photo: Photo) -> None:
        context = SpanContext(
            int(photo.trace_id, 16), secrets.randbits(63) + 1, is_remote=False, trace_flags=TraceFlags(1)
        )
        if self._bare is not None:
            flat = codec.encode(
                event,
                event_id=photo.event_id,
                source="upstream",
                photo_id=photo.photo_id,
                session_id=photo.session_id,
                traceparent=f"00-{photo.trace_id}-{context.span_id:016x}-01",
            )
            add: Callable[..., Awaitable[Any]] = self._bare.execute_command
            await add("XADD", INTAKE_KEY, "*", *flat)
            return
        with trace.use_span(NonRecordingSpan(context)):
            await self._publisher.publish(event, event_id=photo.event_id)

    async def _say_nonsense(self, number: int) -> None:
        """Somebody else's XADD into one of our streams, of something that is no event."""
        stage = topology.PIPELINE[number % len(topology.PIPELINE)]
        nonsense = Nonsense(
            fields=[b"\xff\x00name", secrets.token_bytes(12), b"data", b'{"source_url": %d' % number]
        )
        self.nonsense.append(nonsense)
        # past the proxy: this upstream does not try again
        call: Callable[..., Awaitable[Any]] = self._admin.execute_command
        with contextlib.suppress(RedisError, OSError):
            await call("XADD", f"erni:{stage.reads[0]}", "*", *nonsense.fields)
            nonsense.acknowledged = True

    def _note(self, photo: Photo) -> None:
        line = {"at": round(time.time(), 3), **msgspec.structs.asdict(photo)}
        self._journal.write(msgspec.json.encode(line) + b"\n")

    async def _keep_near(self, ended: asyncio.Event) -> None:
        """Let the upstream run only as far ahead as the agents can follow."""
        while not ended.is_set():
            try:
                waiting = 0
                for lane, stage in product(self._lanes, topology.PIPELINE):
                    for stream in stage.streams:
                        waiting += await self._admin.xlen(lane.stream(stream))
                if waiting < self._ahead or self._stopping.is_set():
                    self._room.set()
                else:
                    self._room.clear()
            except (RedisError, OSError):
                self._room.set()
            await asyncio.sleep(0.1)
