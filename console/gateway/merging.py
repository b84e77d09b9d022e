"""Publishes together what waits at the same time: one call of Redis for many requests, an answer for each.

A request that comes alone is sent at once. Those that come while a call is under way wait for its end and
share the next one: the number of calls grows slower than the load, and nobody waits for company.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

from redis.exceptions import ResponseError

from events.publisher import EventsReusedError, PublishRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from console.gateway.answers import Accepted
    from events.publisher import Prepared

MAX_EVENTS: Final = 128
"""Events of one call: the server answers others between two calls."""
MAX_BYTES: Final = 1_000_000
"""Bytes of their data together."""

_Line: TypeAlias = tuple[str, int | None]
"""Events that one script can publish: those of one source in one lane."""


class Waiting:
    """Holds an event, its photo's file name or '', and who waits for its answer."""

    __slots__ = ("answer", "event", "file_name")

    def __init__(self, event: Prepared, file_name: str) -> None:
        self.event = event
        self.file_name = file_name
        self.answer: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()

    def succeed(self, accepted: Accepted) -> None:
        """Return an answer where it is awaited."""
        if not self.answer.done():
            self.answer.set_result(accepted)

    def fail(self, error: Exception) -> None:
        """Raise an error where the answer is awaited."""
        if not self.answer.done():
            self.answer.set_exception(error)


class ReusedError(Exception):
    """Raised for an event whose id belongs to other content; the message says so."""


class MergedPublishes:
    """Publishes single events of many requests."""

    def __init__(
        self, publish_all: Callable[[str, Sequence[tuple[Prepared, str]]], Awaitable[list[Accepted]]]
    ) -> None:
        """`publish_all`: publishes events of a source, all or none; each comes with its photo's file name."""
        self._publish_all = publish_all
        self._waiting: dict[_Line, list[Waiting]] = {}
        """A line is here while its task runs."""
        self._running: set[asyncio.Task[None]] = set()

    async def publish(self, source: str, event: Prepared, file_name: str) -> Accepted:
        """Publish one event. Raises ReusedError, PublishRefusedError, and what redis-py raises."""
        mine = Waiting(event, file_name)
        line = (source, event.lane)
        others = self._waiting.get(line)
        if others is not None:
            others.append(mine)
        else:
            self._waiting[line] = [mine]
            task = asyncio.create_task(self._serve(line))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await mine.answer

    async def close(self) -> None:
        """End the calls that are under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, line: _Line) -> None:
        """Publish a line until nobody waits in it."""
        waiting = self._waiting[line]
        together: list[Waiting] = []
        try:
            while waiting:
                together = _first(waiting)
                del waiting[: len(together)]
                await self._publish(line[0], together)
        finally:
            del self._waiting[line]
            for one in (*together, *waiting):
                one.answer.cancel()

    async def _publish(self, source: str, together: Sequence[Waiting]) -> None:
        """Publish some events, and answer each."""
        try:
            accepted = await self._publish_all(source, [(one.event, one.file_name) for one in together])
        except EventsReusedError as error:
            for number, sentence in error.sentences.items():
                together[number].fail(ReusedError(sentence))
            rest = [one for number, one in enumerate(together) if number not in error.sentences]
            if rest:
                await self._publish(source, rest)
        except Exception as error:  # noqa: BLE001 - whoever waits has to know, whatever it is
            await self._trouble(source, together, error)
        else:
            for one, answer in zip(together, accepted, strict=True):
                one.succeed(answer)

    async def _trouble(self, source: str, together: Sequence[Waiting], error: Exception) -> None:
        """Answer events whose call failed."""
        if len(together) > 1 and isinstance(error, (PublishRefusedError, ResponseError)):
            # There may be room for some of them, and one that was published before needs none. And if a key
            # of one of them cannot be used, that is no matter of the others.
            for one in together:
                await self._publish(source, [one])
            return
        for one in together:
            one.fail(error)


def _first(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Return the first ones that fit into one call; at least one.

    Two contents of one id do not: which of them counts, the marker knows and their order does not.
    """
    found: list[Waiting] = []
    contents: dict[str, str] = {}
    room = MAX_BYTES
    for one in waiting[:MAX_EVENTS]:
        room -= len(one.event.fields[-1])
        is_other = contents.setdefault(one.event.event_id, one.event.once) != one.event.once
        if found and (room < 0 or is_other):
            break
        found.append(one)
    return found
