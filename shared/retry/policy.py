"""Makes the attempts at one delivery: three, 4 s and 8 s apart, for failures that may pass.

Waits are ``wait_exponential(multiplier=4, exp_base=2, max=10)``: 4 s after the first attempt, 8 s after
the second (10 s would follow), a little jitter within the bound. A wait the other side names
(Retry-After) is kept between 4 and 10 s; a longer one postpones the entry, so it holds no slot.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential

from shared.retry.attempt import Attempt
from shared.retry.classify import Kind, classify, retry_after_of, sentence_of
from shared.retry.errors import (
    PostponeError,
    TransientError,
    dependency_of,
    parts_that_answer,
    refuser_of,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from shared.retry.breaker import Breakers
    from shared.retry.limit import TimeLimit

E = TypeVar("E")
T = TypeVar("T")

ATTEMPTS: Final = 3
SHORTEST_WAIT: Final = 4.0
LONGEST_WAIT: Final = 10.0
_EXPONENTIAL: Final = wait_exponential(multiplier=SHORTEST_WAIT, exp_base=2, max=LONGEST_WAIT)
_REASON: Final = 400
"""Characters of a failure's sentence that its breaker keeps, for the process record."""
_JITTER: Final = 0.5
"""Seconds added at random, so that entries that failed together do not return together."""


class Succeeded(msgspec.Struct, Generic[T], frozen=True):
    """Hold what the handler returned."""

    value: T
    failures: tuple[Attempt, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """Hold why the handler did not return, and what that calls for."""

    kind: Kind
    error: BaseException
    failures: tuple[Attempt, ...]
    seconds: float = 0.0
    """For `Kind.POSTPONE`: how long."""


class Observer(Protocol):
    """Learn of attempts, for metrics and the span."""

    def retrying(self, attempt: int, wait: float, error: BaseException) -> None:
        """Note that attempt number `attempt` failed; the next one starts in `wait` seconds."""


_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@contextmanager
def without_waiting() -> Iterator[None]:
    """Compute and report waits, but do not sleep them (a switch for tests)."""
    global _sleep  # noqa: PLW0603 - the one switch, for tests alone
    before, _sleep = _sleep, lambda _: asyncio.sleep(0)
    try:
        yield
    finally:
        _sleep = before


async def attempt(
    handle: Callable[[E], Awaitable[T]],
    event: E,
    *,
    limit: TimeLimit,
    breakers: Breakers,
    observer: Observer,
    stopping: asyncio.Event,
    attempts: int = ATTEMPTS,
) -> Succeeded[T] | Failed:
    """Call ``handle(event)``, and call it again while that may help, `attempts` times at most.

    `limit` bounds each attempt; one that is cut off counts as a transient failure. tenacity starts only
    after a first failure, so a first try that succeeds costs nothing of it. `stopping` ends a wait at once
    with `Kind.UNHEALTHY` (the entry is released).
    """
    # Only the parts that answered in this attempt: an answer from a cache says nothing about the part it
    # once came from.
    parts = parts_that_answer(breakers.hold)
    try:
        value = await _within(limit, handle, event)
    except Exception as error:  # noqa: BLE001 - every failure of a handler becomes an outcome
        # a target may take reads and refuse writes: only a success of the whole attempt says that it works
        breakers.succeeded({part for part in parts if "/" not in part} - {dependency_of(error)})
        parts.clear()
        again = _Again(partial(_within, limit, handle, event), error, breakers, observer, stopping)
        return await again.run(attempts)
    if parts:
        breakers.succeeded(parts)
        parts.clear()
    return Succeeded(value)


async def _within(limit: TimeLimit, handle: Callable[[E], Awaitable[T]], event: E) -> T:
    """Make one attempt. Raises TimeoutError if it took too long, as `asyncio.timeout` would."""
    limit.since = time.monotonic()
    try:
        return await handle(event)
    except asyncio.CancelledError:
        late = limit.cause_of_cancellation()
        if late is not None:
            raise late from None
        if not limit.cancelled_from_outside:
            raise TransientError("the handler was cancelled from inside, by a library it uses") from None
        raise
    finally:
        limit.since = math.inf


class _StoppingError(Exception):
    """Signal that the process shuts down during a wait."""


class _Again(Generic[T]):
    """Repeat after a first failure, by tenacity, which also counts the attempt that was already made."""

    def __init__(
        self,
        call: Callable[[], Awaitable[T]],
        first: Exception,
        breakers: Breakers,
        observer: Observer,
        stopping: asyncio.Event,
    ) -> None:
        self._call = call
        self._first: Exception | None = first
        self._breakers = breakers
        self._observer = observer
        self._stopping = stopping
        self._failures: list[Attempt] = []
        self._since = breakers.now()

    async def run(self, attempts: int) -> Succeeded[T] | Failed:
        if attempts == 1 and self._first is not None:
            # nothing to repeat: tenacity would cost more than the rest of the hand-off
            self._worth_it(self._first)
            self._failures.append(_failure(self._first, None))
            return self._verdict(self._first)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=self._wait,
            retry=retry_if_exception(self._worth_it),
            sleep=self._sleep,
            before_sleep=self._note,
            reraise=True,
        )
        parts = parts_that_answer()
        try:
            value: T = await retrying(self._once)
        except _StoppingError as error:
            return Failed(Kind.UNHEALTHY, error, tuple(self._failures))
        except Exception as error:  # noqa: BLE001 - every failure of a handler becomes an outcome
            self._failures.append(_failure(error, None))
            return self._verdict(error)
        self._breakers.succeeded(parts)
        parts.clear()
        return Succeeded(value, tuple(self._failures))

    async def _once(self) -> T:
        # tenacity counts the attempt that was made before it as its first
        if self._first is not None:
            error, self._first = self._first, None
            raise error
        return await self._call()

    def _worth_it(self, error: BaseException) -> bool:
        kind = classify(error)
        name = dependency_of(error)
        if kind is not Kind.TRANSIENT:
            # a target may refuse for as long as nobody acts: its quota is used up
            refused = kind is Kind.PERMANENT or (kind is Kind.POSTPONE and refuser_of(error) is not None)
            if refused and name is not None:
                self._answered(error, name)
            return False
        self._breakers.failed(name, sentence_of(error)[:_REASON])
        asked = retry_after_of(error)
        return not (asked is not None and asked > LONGEST_WAIT) and not self._breakers.is_open(name)

    def _answered(self, error: BaseException, name: str) -> None:
        """Note that the other side answered, although it refused."""
        answered = {name, name.partition("/")[0]}
        if refuser := refuser_of(error):
            alike = (status_of(error), type(error))
            self._breakers.refused(refuser, alike, sentence_of(error)[:_REASON])
            answered.discard(refuser)
        self._breakers.succeeded(answered)

    @staticmethod
    def _wait(state: RetryCallState) -> float:
        asked = retry_after_of(_error_of(state))
        seconds = _EXPONENTIAL(state) if asked is None else max(asked, SHORTEST_WAIT)
        return min(seconds + random.uniform(0, _JITTER), LONGEST_WAIT)  # noqa: S311 - jitter, not a secret

    def _note(self, state: RetryCallState) -> None:
        error = _error_of(state)
        seconds = state.next_action.sleep if state.next_action else 0.0
        self._failures.append(_failure(error, seconds))
        self._observer.retrying(state.attempt_number, seconds, error)

    async def _sleep(self, seconds: float) -> None:
        waits = {asyncio.ensure_future(_sleep(seconds)), asyncio.ensure_future(self._stopping.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if self._stopping.is_set():
            raise _StoppingError

    def _verdict(self, error: Exception) -> Failed:
        kind, name, failures = classify(error), dependency_of(error), tuple(self._failures)
        if isinstance(error, PostponeError):
            return Failed(Kind.POSTPONE, error, failures, error.seconds)
        if kind is Kind.TRANSIENT:
            asked = retry_after_of(error)
            if asked is not None and asked > LONGEST_WAIT:
                return Failed(Kind.POSTPONE, error, failures, asked)
            if self._breakers.is_open(name) or self._breakers.is_silent(name, self._since):
                return Failed(Kind.POSTPONE, error, failures, self._breakers.come_back(name))
        refuser = refuser_of(error)
        if kind is Kind.PERMANENT and self._breakers.is_open(refuser):
            return Failed(Kind.POSTPONE, error, failures, self._breakers.come_back(refuser))
        return Failed(kind, error, failures)


def _failure(error: BaseException, wait: float | None) -> Attempt:
    return Attempt(
        at=time.time(), error_type=type(error).__name__, message=sentence_of(error)[:500], wait=wait
    )


def _error_of(state: RetryCallState) -> BaseException:
    outcome: Any = state.outcome
    error: BaseException = outcome.exception()
    return error
