"""What was just asked need not be asked again, and what is being asked need not be asked twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

V = TypeVar("V")

_REFUSAL_SECONDS: Final = 10.0
"""How long a PermanentError is remembered: a batch for a library that does not exist asks once, and who then
makes the library does not wait for long."""


class Fresh(Generic[V]):
    """Values by key, each for `ttl` seconds; one call at a time per key, shared by all who ask."""

    def __init__(self, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, V | PermanentError]] = {}
        self._asked: dict[Hashable, asyncio.Task[V]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[None, None, V]]) -> V:
        """The value of a key, asked for if there is none or it is too old."""
        until, kept = self._kept.get(key, (0.0, None))
        if kept is not None and self._clock() < until:
            if isinstance(kept, PermanentError):
                # A new one each time: an exception raised twice collects both tracebacks.
                raise PermanentError(*kept.args)
            return kept
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._ask(key, ask))
            # If everybody who waited has gone, nobody else looks at its exception.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Shielded: one who gives up must not take the answer from the others.
        return await asyncio.shield(task)

    def forget(self, key: Hashable) -> None:
        """Ask again next time."""
        self._kept.pop(key, None)

    async def close(self) -> None:
        """Stop what is being asked."""
        for task in list(self._asked.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    async def _ask(self, key: Hashable, ask: Callable[[], Coroutine[None, None, V]]) -> V:
        try:
            value = await ask()
        except PermanentError as error:
            self._kept[key] = (self._clock() + min(self._ttl, _REFUSAL_SECONDS), error)
            raise
        else:
            self._kept[key] = (self._clock() + self._ttl, value)
            return value
        finally:
            del self._asked[key]
