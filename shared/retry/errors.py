"""Defines the errors with which agents and their clients report what went wrong.

A message is a sentence for the operator who reads the dead letter: what was being done, why it failed, and
what to do. It never holds a URL's query or userinfo, a token or a position.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

OF_A_TARGET: Final = frozenset({403, 404, 507})
"""Answers that a target gives to every photo: a missing right, a wrong address, no space left."""
_OF_A_PART: Final = 401


class PermanentError(Exception):
    """Report that trying again cannot help: the photo goes to the dead letters with this sentence."""


class SetupError(PermanentError):
    """Report that every photo would be refused like this: a setting is wrong, and no photo is to blame."""


class TransientError(Exception):
    """Report that trying again may help, where no connection error and no HTTP status shows it."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """`retry_after`: seconds from now before which the other side does not want to be asked."""
        super().__init__(message)
        self.retry_after = retry_after


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
_REFUSED = "_erni_refused"
_ANSWER = "_erni_answer"
_CAUSE = "_erni_cause"


class Answered(set[str]):
    """Collect the outside parts and targets that answered in one attempt."""

    hold: Callable[[str], float] = staticmethod(lambda _target: 0.0)
    """Return the seconds that an entry of this target has to wait; 0 if it may go now."""


_answered: ContextVar[Answered] = ContextVar("answered")


def parts_that_answer(hold: Callable[[str], float] | None = None) -> Answered:
    """Return a set that collects the outside parts as they answer; only their breakers close.

    A task has one such set and empties it before each attempt; its child tasks share it. `hold`: asked
    before work for a target begins.
    """
    parts = _answered.get(None)
    if parts is None:
        _answered.set(parts := Answered())
    else:
        parts.clear()
    if hold is not None:
        parts.hold = hold
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


@contextmanager
def aimed_at(name: str, target: str, refusals: Collection[int] = OF_A_TARGET) -> Iterator[None]:
    """Name the target of all that `dependency(name)` does in this block: a library, a host, an endpoint.

    Answers with a status in `refusals` are about the target, whichever photo asks. Everything else stays
    the part's. An empty target means the part itself. Raises PostponeError while the target's breaker is
    open, so that a backlog does not ask it one by one.
    """
    key = f"{name}/{target}" if target else name
    parts = _answered.get(None)
    if target and parts is not None and (wait := parts.hold(key)):
        raise PostponeError(f"{target} has failed several times in a row", wait)
    try:
        yield
    except Exception as error:
        if status_of(error) in refusals and dependency_of(error) in (name, key):
            setattr(error, _MARK, key)
            setattr(error, _REFUSED, True)
        raise
    # what was answered from a cache says nothing about the target
    if parts is not None and name in parts:
        parts.add(key)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an exception or its cause; None if no answer came."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, HttpStatusError):
            return at.status
        at = at.__cause__
    return None


def refuser_of(error: BaseException) -> str | None:
    """Return the part or target that refused in a way no photo can be blamed for; None for other failures.

    A 401 and a SetupError are about the part, whose credentials or settings are wrong. So is a certificate
    that this machine does not trust.
    """
    if getattr(error, _REFUSED, False) or isinstance(error, (SetupError, ssl.SSLCertVerificationError)):
        return dependency_of(error)
    part = (dependency_of(error) or "").partition("/")[0]
    # sources are many hosts, and their rights are part of the addresses: a 401 is about that photo
    return part if part not in ("", "source") and status_of(error) == _OF_A_PART else None


@contextmanager
def answering(said: str) -> Iterator[None]:
    """Keep what the other side answered with an exception of this block, for the dead letter."""
    try:
        yield
    except Exception as error:
        setattr(error, _ANSWER, said)
        raise


def answer_of(error: BaseException) -> str:
    """Return what the other side answered; '' if that was not kept."""
    said = getattr(error, _ANSWER, "")
    return said if isinstance(said, str) else ""


@contextmanager
def because(code: str) -> Iterator[None]:
    """Name what is to blame for an exception of this block, by a code; the innermost block wins.

    Reports for people have a sentence for each code, in their language (`shared.reports.german.CAUSES`).
    """
    try:
        yield
    except Exception as error:
        if not hasattr(error, _CAUSE):
            setattr(error, _CAUSE, code)
        raise


def cause_of(error: BaseException) -> str:
    """Return the code of what is to blame; '' if none was named."""
    code = getattr(error, _CAUSE, "")
    return code if isinstance(code, str) else ""
