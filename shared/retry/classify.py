"""Decides which failures deserve another attempt. The order of the questions matters."""

from __future__ import annotations

import asyncio
import enum
import errno
import os
import ssl

import aiohttp
import msgspec

from events.connection import RedisError, Trouble, trouble_of
from shared.retry.errors import (
    HttpStatusError,
    PermanentError,
    PostponeError,
    TransientError,
)


class Kind(enum.Enum):
    """Name what a failure calls for."""

    TRANSIENT = "transient"
    """Try again after a wait."""
    PERMANENT = "permanent"
    """To the dead letters: another attempt fails the same way."""
    UNHEALTHY = "unhealthy"
    """It is not the photo, it is this machine: release the entry and stop reading."""
    POSTPONE = "postpone"
    """The failure itself says when to come back."""


_UNHEALTHY = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM}
)
_NO_THREAD = "can't start new thread"
_TRANSIENT = (
    TransientError,
    ConnectionError,
    TimeoutError,
    asyncio.IncompleteReadError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
)


def classify(error: BaseException) -> Kind:
    """Classify a failure of a handler.

    * This machine first: a connection error whose cause is "too many open files" says nothing about the
      other side, and three attempts would bury an innocent photo.
    * TLS certificates before connections: aiohttp's certificate error is a ClientConnectionError, and no
      certificate becomes valid by itself in ten seconds.
    * TimeoutError before OSError, which it is a subclass of.
    * Our Redis away is not the photo's fault either. Memory that runs out is: another machine would run
      out of it, too, and the photo would go round for ever.
    * Everything unknown is permanent: a bug does not go away by doing it three times.
    """
    if isinstance(error, OSError) and error.errno in _UNHEALTHY:
        return Kind.UNHEALTHY
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        # CPython's words where the system has no process or no memory left for it
        return Kind.UNHEALTHY
    if isinstance(error, RedisError):
        # a command that Redis refuses is a bug; a Redis that is away says nothing about the photo
        return Kind.PERMANENT if trouble_of(error) in (Trouble.NOT_SENT, Trouble.NO_GROUP) else Kind.UNHEALTHY
    if isinstance(error, ssl.SSLCertVerificationError):
        return Kind.PERMANENT
    if isinstance(error, PermanentError):
        return Kind.PERMANENT
    if isinstance(error, PostponeError):
        return Kind.POSTPONE
    if isinstance(error, HttpStatusError):
        return Kind.TRANSIENT if error.status == 429 or error.status >= 500 else Kind.PERMANENT
    if isinstance(error, aiohttp.ClientResponseError):
        return Kind.TRANSIENT if error.status == 429 or error.status >= 500 else Kind.PERMANENT
    if isinstance(error, _TRANSIENT):
        return Kind.TRANSIENT
    return Kind.PERMANENT


def retry_after_of(error: BaseException) -> float | None:
    """Return the seconds that the other side asked us to wait, if it did."""
    return error.retry_after if isinstance(error, (HttpStatusError, TransientError)) else None


def sentence_of(error: BaseException) -> str:
    """Describe the failure: its own message, or its kind if it has none. The kind is recorded beside it."""
    if isinstance(error, (PermanentError, TransientError, PostponeError, HttpStatusError)):
        return str(error)
    if isinstance(error, msgspec.ValidationError):
        return f"the data does not fit: {error}"
    text = str(error)
    if isinstance(error, aiohttp.ServerTimeoutError) or (isinstance(error, TimeoutError) and not text):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientError) and (said := _network_trouble(error)):
        return said
    if isinstance(error, KeyError):
        return f"missing key {text}"
    return text or f"failed without a reason ({type(error).__name__})"


def _network_trouble(error: aiohttp.ClientError) -> str:
    """Say in words for people what aiohttp says in its own; '' for what it says of something else."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"there is no host of the name {error.host}"
    if isinstance(error, aiohttp.ClientConnectorError):
        why = os.strerror(error.os_error.errno).lower() if error.os_error.errno else "refused"
        return f"no connection to {error.host}:{error.port} ({why})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was cut before an answer came"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was cut in the middle of the answer"
    if isinstance(error, aiohttp.ClientOSError):
        why = os.strerror(error.errno).lower() if error.errno else "no reason given"
        return f"the connection was lost ({why})"
    return ""
