"""Names the library or site that calls of Graph are about, for its breaker.

A library or site may fail alone: its quota is used up, or its part of SharePoint is down. Then only its
photos wait. Sign-in, throttling and the network are common to all, and belong to SharePoint as a whole.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from shared.retry.errors import PostponeError, dependency_of
from shared.sharepoint.answers import GraphError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from events.types import LibraryRef

_SERVER_ERROR: Final = 500
_QUOTA: Final = 507
_QUOTA_SECONDS: Final = 60.0
"""Seconds until a photo of a full library is tried again: somebody has to make room first. After a few such
answers the breaker of the library opens, so that a backlog does not ask photo by photo."""

_current: ContextVar[str] = ContextVar("sharepoint_target", default="")


@contextmanager
def about(target: str) -> Iterator[None]:
    """Let failures of the calls inside count for this target. An inner block wins over an outer one."""
    token = _current.set(target)
    try:
        yield
    finally:
        _current.reset(token)


def current_target() -> str:
    """Return the target of the calls that are made now; '' if they concern no single one."""
    return _current.get()


def library_target(site: str, library: str) -> str:
    """Name a library by its site's path and its own name, ``sites/Bau/Fotos``, with or without a host.

    Its name alone is not enough: two sites may have libraries of one name.
    """
    return f"{site.rpartition(':/')[2].strip('/')}/{library}"


@contextmanager
def about_library(library: LibraryRef) -> Iterator[None]:
    """Let failures of the calls inside count for this library, and name it in those of its own server.

    Raises PostponeError for a full quota: it says nothing about other libraries, and lasts until somebody
    makes room.
    """
    target = library_target(library.site, library.library)
    try:
        with about(target):
            yield
    except GraphError as error:
        name = dependency_of(error) or ""
        beginning = f"the library {library.library!r}: "
        if error.status < _SERVER_ERROR or not name.endswith(f"/{target}"):
            raise
        sentence = str(error) if str(error).startswith(beginning) else beginning + str(error)
        if error.status == _QUOTA:
            raise PostponeError(sentence, _QUOTA_SECONDS) from error
        raise GraphError(
            sentence, status=error.status, retry_after=error.retry_after, codes=error.codes
        ) from error
