"""`GET /v1/stream`: what happens to the photos of a session or a source, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html. An end has an id, after which a client that
comes again goes on (`Last-Event-ID`). Steps have none: they are best effort.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from console.gateway import cursors, problems
from console.gateway.access import LIMITS, READERS, Caller
from console.gateway.ends import End, Ends, Listener
from console.gateway.problems import Problem
from console.gateway.steps import Steps
from events import attributes, identities, keys
from events.connection import RedisError, connect
from events.identities import SessionId
from shared.telemetry.metrics import HTTP_STREAMS

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from console.gateway.access import Door
    from console.gateway.ends import Positions, Seen
    from shared.settings import Settings

MAX_STREAMS: Final = 200
MAX_STREAMS_OF_A_KEY: Final = 20
MAX_WAITING: Final = 2_000
"""Ends and steps that wait for one client."""
HEARTBEAT_SECONDS: Final = 15.0
"""Proxies close a connection without bytes after a minute, some after half of one."""
WRITE_SECONDS: Final = 30.0
"""How long a client may take nothing."""
RETRY_MILLIS: Final = 2_000
"""After what time a browser comes again."""
_READERS: Final = 8
"""Connections for clients that catch up, beside one for each lane."""


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for."""

    caller: Caller
    session_id: SessionId | None
    source: str | None

    def has(self, one: End | Seen) -> bool:
        """Return whether something is asked for, and may be seen."""
        if self.session_id is not None and one.session_id != self.session_id:
            return False
        return (self.source is None or one.source == self.source) and self.caller.may_see(one.source)


class StreamApi:
    """Sends events to clients that stay connected."""

    def __init__(self, redis: Redis, settings: Settings, door: Door) -> None:
        self._door = door
        self._lanes = settings.lanes
        self._reading = connect(
            settings.redis_url,
            password=str(settings.redis_password),
            client_name="erni-gateway-stream",
            max_connections=settings.lanes + _READERS,
        )
        self._ends = Ends(self._reading)
        self._steps = Steps(redis, lanes=settings.lanes)
        self._open: dict[Listener, str] = {}
        """The clients, and the names of their keys."""
        self._closing = False

    async def shut_down(self, _app: web.Application) -> None:
        """End all streams, so that no client keeps the process waiting."""
        self._closing = True
        for listener in self._open:
            listener.wake()

    async def close(self) -> None:
        """End the readers."""
        await self._ends.close()
        await self._steps.close()
        await self._reading.aclose()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send what happens until the client leaves. Raises Problem, and what redis-py raises."""
        caller = await self._door.admit(request, READERS)
        wanted = _wanted(request, caller)
        all_lanes = keys.all_lanes(self._lanes)
        lanes = (keys.lane_of(wanted.session_id, self._lanes),) if wanted.session_id else all_lanes
        listener = Listener([lane.lane for lane in lanes], most=MAX_WAITING)
        self._refuse_too_many(caller)
        self._open[listener] = caller.key.name
        HTTP_STREAMS.inc()
        try:
            newest = await self._ends.listen(listener)
            if wanted.session_id:
                self._steps.watch(wanted.session_id, listener)
            return await self._send(
                request, _Client(request, wanted, listener, _cursor(request, newest)), newest
            )
        finally:
            self._ends.leave(listener)
            if wanted.session_id:
                self._steps.leave(wanted.session_id, listener)
            del self._open[listener]
            HTTP_STREAMS.dec()

    def _refuse_too_many(self, caller: Caller) -> None:
        mine = list(self._open.values()).count(caller.key.name)
        if len(self._open) >= MAX_STREAMS or mine >= MAX_STREAMS_OF_A_KEY:
            raise Problem(
                problems.TOO_MANY_STREAMS,
                f"{len(self._open)} streams are open, {mine} of them by the key {caller.key.name}; at most"
                f" {MAX_STREAMS} and {MAX_STREAMS_OF_A_KEY} are allowed: close one, or ask for a source"
                " instead of each session",
                headers={"Retry-After": "30"},
            )

    async def _send(self, request: web.Request, client: _Client, newest: Positions) -> web.StreamResponse:
        response = await client.begin()
        try:
            await self._catch_up(client, newest)
            while not client.listener.overrun and await self._goes_on(client, request):
                await client.send(await client.listener.take(client.rest))
        except (ConnectionError, TimeoutError, RedisError):
            # it left, or takes nothing, or Redis went away while it caught up: it comes again, with its place
            client.abort()
        return response

    async def _goes_on(self, client: _Client, request: web.Request) -> bool:
        """Return whether a client is there and may read on; its key is looked up from time to time."""
        if self._closing or client.is_gone:
            return False
        now = time.monotonic()
        if now - client.checked < HEARTBEAT_SECONDS:
            return True
        client.checked = now
        return await self._door.still_knows(request)

    async def _catch_up(self, client: _Client, newest: Positions) -> None:
        """Send the ends between the client's place and the first one that is offered."""
        for place, until in newest.items():
            while client.cursor[place] < until and not self._closing and not client.is_gone:
                page = await self._ends.between(place, client.cursor[place], until)
                await client.send(page.ends)
                client.cursor[place] = page.last


class _Client:
    """A client that is connected, and how far it has read."""

    def __init__(self, request: web.Request, wanted: _Wanted, listener: Listener, cursor: Positions) -> None:
        self.listener = listener
        self.cursor = cursor
        self.checked = time.monotonic()
        """When its key was looked up last."""
        self._written = self.checked
        self._request = request
        self._wanted = wanted
        self._response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache, no-store",
                # nginx would collect some kilobytes first
                "X-Accel-Buffering": "no",
                **request.get(LIMITS, {}),
            }
        )

    @property
    def rest(self) -> float:
        """Return after how many seconds a heartbeat or the look at its key is due.

        What happens to photos of others is no sign of life: on a busy system it never pauses.
        """
        return max(0.0, min(self._written, self.checked) + HEARTBEAT_SECONDS - time.monotonic())

    @property
    def is_gone(self) -> bool:
        """Return whether its connection is closed, which only a write would notice otherwise."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    async def begin(self) -> web.StreamResponse:
        """Send the header, and the place where the client stands."""
        await self._response.prepare(self._request)
        await self._write(f"retry: {RETRY_MILLIS}\nid: {cursors.write(self.cursor)}\n\n".encode())
        return self._response

    async def send(self, found: list[End | Seen]) -> None:
        """Send what the client asked for; if nothing was written for a while, a heartbeat."""
        lines: list[bytes] = []
        for one in found:
            if not isinstance(one, End):
                if self._wanted.has(one):
                    lines.append(b"event: step\ndata: %b\n\n" % one.step)
            elif one.number > self.cursor[one.place]:
                self.cursor[one.place] = one.number
                if self._wanted.has(one):
                    at = cursors.write(self.cursor)
                    lines.append(
                        b"event: %b\nid: %b\ndata: %b\n\n" % (one.place[1].encode(), at.encode(), one.event)
                    )
        if not lines and time.monotonic() - self._written >= HEARTBEAT_SECONDS:
            lines.append(b":\nid: %b\n\n" % cursors.write(self.cursor).encode())
        if lines:
            await self._write(b"".join(lines))

    async def _write(self, chunk: bytes) -> None:
        async with asyncio.timeout(WRITE_SECONDS):
            await self._response.write(chunk)
        self._written = time.monotonic()

    def abort(self) -> None:
        """Close the connection, whatever still waits in it."""
        if self._request.transport is not None:
            self._request.transport.abort()


def _wanted(request: web.Request, caller: Caller) -> _Wanted:
    """Return what a client asks for. Raises Problem."""
    session_id, source = request.query.get("session"), request.query.get("source")
    if not session_id and not source:
        raise Problem(
            problems.BAD_REQUEST, "the request names nothing to follow: add ?session=ID or ?source=URN"
        )
    try:
        session = identities.session_id(session_id) if session_id else None
        source = attributes.source(source) if source else None
    except ValueError as error:
        raise Problem(problems.BAD_REQUEST, str(error)) from None
    if source and not caller.may_see(source):
        raise Problem(
            problems.SOURCE_NOT_ALLOWED,
            f"the key {caller.key.name} follows the source {caller.key.source}, and the request names"
            f" {source[:80]!r}",
        )
    return _Wanted(caller=caller, session_id=session, source=source)


def _cursor(request: web.Request, newest: Positions) -> Positions:
    """Return where a client stands: after its last event, else at the newest ones. Raises Problem."""
    last = request.headers.get("Last-Event-ID", "").strip()
    if not last:
        return dict(newest)
    try:
        return cursors.read(last, newest)
    except ValueError:
        raise Problem(
            problems.BAD_REQUEST,
            f"Last-Event-ID {last[:40]!r} is no id of this stream: leave it out to begin now, or send"
            f" {cursors.BEGINNING} to begin with the oldest end that is kept",
        ) from None
