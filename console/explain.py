"""The sentence for each error that a user can cause: what was being done, the cause, what to do."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from obstore.exceptions import BaseError as StoreError
from redis.exceptions import RedisError

from console.errors import CommandError
from events.connection import Trouble, connect, trouble_of
from events.identities import InvalidIdError
from events.publisher import InvalidEventError, PublishRefusedError
from shared import settings as settings_module
from shared.blobs import BlobStore
from shared.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis


def explain(error: Exception) -> CommandError | None:
    """The sentence for an error, with its exit code; None if no user can have caused it."""
    if isinstance(error, (SettingsError, InvalidIdError, InvalidEventError)):
        return CommandError(str(error), code=2)
    if isinstance(error, PublishRefusedError):
        return CommandError(str(error))
    if isinstance(error, RedisError):
        return CommandError(redis_trouble(error, settings_module.load()))
    if isinstance(error, StoreError):
        return CommandError(store_trouble(error, settings_module.load()))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return CommandError(f"{where}{error.strerror or error}")
    return None


@asynccontextmanager
async def redis_client(settings: Settings) -> AsyncIterator[Redis]:
    """A client for one command. Makes no connection yet: the first question does."""
    redis = connect(settings.redis_url, password=str(settings.redis_password), client_name="erni-cli")
    try:
        yield redis
    finally:
        await redis.aclose()


def open_store(settings: Settings) -> BlobStore:
    """The photo store. Raises CommandError when there can be none at that address."""
    try:
        return BlobStore(settings.photo_store_url)
    except (OSError, ValueError, StoreError) as error:
        raise CommandError(store_trouble(error, settings)) from error


def store_trouble(error: Exception, settings: Settings) -> str:
    """What is wrong with the photo store, and what to do."""
    cause = (str(error) or type(error).__name__).splitlines()[0][:200]
    return (
        f"the photo store {bare(settings.photo_store_url)} cannot be used ({cause}): check"
        f" PHOTO_STORE_URL and"
        " its credentials"
    )


def redis_trouble(error: Exception, settings: Settings) -> str:
    """What is wrong with Redis, at which address, and what to do."""
    where = f"Redis at {bare(settings.redis_url)}"
    trouble = trouble_of(error)
    if trouble is None or trouble is Trouble.AWAY:
        return f"{where} does not answer ({_cause(error)}). {_where_the_address_is_from(settings)}"
    return _ANSWERED[trouble].format(where=where, error=error)


_ANSWERED = {
    Trouble.LOADING: "{where} is not ready yet ({error}). Try again in a moment.",
    Trouble.READ_ONLY: "{where} takes no writes ({error}). Set REDIS_URL to the primary.",
    Trouble.OUT_OF_MEMORY: "{where} is at its memory limit ({error}). Let the agents drain it.",
    Trouble.NO_PERMISSION: "{where} does not let us in ({error}). Check REDIS_PASSWORD and the rights.",
    Trouble.NO_GROUP: "{where} has no consumer groups yet ({error}). They are made when the agents start.",
    Trouble.NOT_SENT: "{where} refused a command: {error}",
}


def bare(url: str) -> str:
    """An address without what may be secret in it: userinfo and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _cause(error: Exception) -> str:
    """The root of a connection error in a few words; redis-py's own are long."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return (str(error) or type(error).__name__).splitlines()[0]


def _where_the_address_is_from(settings: Settings) -> str:
    """What to do about an address that does not answer."""
    from dotenv import dotenv_values

    left = Path(".erni") / "env"
    if left.is_file() and dotenv_values(left).get("REDIS_URL") == settings.redis_url:
        return (
            f"The address comes from {left}, which `erni up` writes while it runs: is it still running?"
            " Start `erni up` again in this folder."
        )
    return "Start everything on this machine with `erni up`, or set REDIS_URL to a server that runs."
