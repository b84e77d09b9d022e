"""Defines the errors with which agents and their clients report what went wrong.

A message is a sentence for the operator who reads the dead letter: what was being done, why it failed, and
what to do. It never holds a URL's query or userinfo, a token or a position.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class PermanentError(Exception):
    """Report that trying again cannot help: the photo goes to the dead letters with this sentence."""


class TransientError(Exception):
    """Report that trying again may help, where no connection error and no HTTP status shows it."""


class PostponeError(Exception):
    """Postpone the entry by `seconds` without using up an attempt (a budget is spent)."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class HttpStatusError(Exception):
    """Report an unexpected HTTP answer. 5xx and 429 are transient, other 4xx permanent."""

    def __init__(
        self, message: str, *, status: int, retry_after: float | None = None, code: str | None = None
    ) -> None:
        """Keep the answer. `retry_after`: seconds from now, by the header; `code`: the error body's code."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.code = code


_MARK = "_erni_dependency"
_answered: ContextVar[set[str]] = ContextVar("answered")


def parts_that_answer() -> set[str]:
    """Return a set that collects the outside parts as they answer; only their breakers close.

    A task has one such set and empties it before each attempt; its child tasks share it.
    """
    parts = _answered.get(None)
    if parts is None:
        _answered.set(parts := set())
    else:
        parts.clear()
    return parts


@contextmanager
def dependency(name: str, target: str = "") -> Iterator[None]:
    """Name the outside part (``sharepoint``, ``vision``, ``source``) that an exception here is about.

    `target`: the one library, deployment or host inside the part. Each has a breaker of its own: while it is
    open, entries of that target are postponed, and reading goes on. The innermost block wins.
    """
    key = f"{name}/{target}" if target else name
    try:
        yield
    except Exception as error:
        if not hasattr(error, _MARK):
            setattr(error, _MARK, key)
        raise
    if (parts := _answered.get(None)) is not None:
        # a target that answers shows that its part works
        parts.update((name, key))


def dependency_of(error: BaseException) -> str | None:
    """Return the outside part, or ``part/target``, of an exception or its cause; None if none was named."""
    at: BaseException | None = error
    while at is not None:
        name = getattr(at, _MARK, None)
        if isinstance(name, str):
            return name
        at = at.__cause__
    return None
