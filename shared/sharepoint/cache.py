"""A cache with a time to live that merges concurrent look-ups of one key."""

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
"""How long a PermanentError is remembered. A batch of photos for a library that does not exist asks once, and
somebody who then creates the library does not wait long."""


class TtlCache(Generic[V]):
    """Keeps values by key for `ttl` seconds. Concurrent callers of one key share one look-up."""

    def __init__(self, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, V | PermanentError]] = {}
        self._asked: dict[Hashable, asyncio.Task[V]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[None, None, V]]) -> V:
        """Return the value of a key. Call `ask` if there is none or it is too old."""
        until, kept = self._kept.get(key, (0.0, None))
        if kept is not None and self._clock() < until:
            if isinstance(kept, PermanentError):
                # A new exception each time, because one that is raised twice collects both tracebacks.
                raise PermanentError(*kept.args) from kept.__cause__
            return kept
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._ask(key, ask))
            # Read the exception here: perhaps no caller waits any more, and asyncio would log it.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Shielded, because a caller that is cancelled must not cancel the look-up of the others.
        return await asyncio.shield(task)

    def forget(self, key: Hashable) -> None:
        """Remove a key, so that the next `get` asks again."""
        self._kept.pop(key, None)

    async def close(self) -> None:
        """Cancel the look-ups that are running."""
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
