"""The sentence for each error that a user can cause: what was being done, the cause, what to do."""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obstore.exceptions import BaseError as StoreError
from redis.exceptions import InvalidResponse, NoPermissionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from console.addresses import bare
from console.disk_state import disks_of, store_folder
from console.errors import CommandError
from console.listening import is_here, listening_process
from console.up_state import erni_of
from events import keys, topology
from events.connection import Trouble, call, connect, trouble_of
from events.identities import InvalidIdError
from events.publisher import InvalidEventError, PublishRefusedError, PublishUnknownError
from events.redis_address import read as read_address
from events.redis_address import shown, tls_trouble
from shared import settings as settings_module
from shared.operations.disks import read_disks
from shared.operations.systems import read_system
from shared.photo_store import BlobStore, StoreUnhealthyError
from shared.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis


PATIENCE: Final = 3.0
"""Seconds a command waits for an answer of Redis: whoever typed it knows the cause in five."""


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
        return CommandError(f"{where}{error.strerror or error}{_room(error)}")
    return None


def _room(error: OSError) -> str:
    """Say which disk is full, where that is the error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    folder = Path(error.filename).absolute().parent if isinstance(error.filename, str) else Path.cwd()
    # a quota may be used up on a disk that has room
    troubles = [disk.trouble for disk in read_disks([folder])]
    return f": {troubles[0]}" if any(troubles) else ": free some space there"


async def foreign(redis: Redis, settings: Settings) -> str:
    """Say that a Redis belongs to another system than the one that is meant; '' if it does not.

    Raises what redis-py raises.
    """
    system = await read_system(redis) if settings.system_id else None
    if system is None or system.id == settings.system_id:
        return ""
    return (
        f"Redis at {bare(settings.redis_url)} belongs to another system ({system.id}) than the one that is"
        f" meant ({settings.system_id}): nothing was read or changed."
        " Set REDIS_URL to the right server, or start `erni up` again"
    )


@asynccontextmanager
async def redis_client(settings: Settings, *, whose: bool = True) -> AsyncIterator[Redis]:
    """A client for one command. Makes no connection yet: the first question does.

    Where a setting says which system is meant, that is the question whose Redis it is, unless not `whose`.
    Raises CommandError for an address that cannot be read, and for another system; what redis-py raises.
    """
    try:
        redis = connect(
            settings.redis_url,
            password=str(settings.redis_password),
            client_name="erni-cli",
            timeout=PATIENCE,
        )
    except ValueError as error:
        raise CommandError(f"REDIS_URL cannot be used: {error}", code=2) from None
    try:
        if whose and (why := await foreign(redis, settings)):
            raise CommandError(why)
        yield redis
    finally:
        await redis.aclose()


def open_store(settings: Settings) -> BlobStore:
    """The photo store. Raises CommandError when there can be none at that address."""
    try:
        return BlobStore(settings.photo_store_url)
    except (OSError, ValueError, StoreError) as error:
        raise CommandError(store_trouble(error, settings)) from error


def require_store(settings: Settings) -> BlobStore:
    """The photo store, if there is one already: looking at something must not make an empty one.

    Raises CommandError.
    """
    if (folder := store_folder(settings)) and not folder.is_dir():
        raise CommandError(
            f"there is no photo store in {folder}: type the command in the folder of your `erni up`, or set"
            " PHOTO_STORE_URL"
        )
    return open_store(settings)


@contextmanager
def leaving_no_folder(settings: Settings) -> Iterator[None]:
    """Remove the folders of a photo store that was not there before, as far as they are empty."""
    folder = store_folder(settings)
    missing = [one for one in (folder, *folder.parents) if not one.exists()] if folder else []
    try:
        yield
    finally:
        with suppress(OSError):
            for one in missing:
                one.rmdir()


def store_trouble(error: Exception, settings: Settings) -> str:
    """What is wrong with the photo store, and what to do."""
    if isinstance(error, (StoreUnhealthyError, CommandError)):
        return str(error)
    return (
        f"the photo store {bare(settings.photo_store_url)} cannot be used ({cause_of(error)}): check"
        f" PHOTO_STORE_URL and"
        " its credentials"
    )


def redis_trouble(error: Exception, settings: Settings) -> str:
    """What is wrong with Redis, at which address, and what to do."""
    if isinstance(error, PublishUnknownError):
        return f"{error}. It is safe to run the same command again"
    where = f"Redis at {shown(settings.redis_url)}"
    trouble = trouble_of(error)
    if trouble is None or trouble is Trouble.AWAY:
        if tls := tls_trouble(error, settings.redis_url):
            return f"{where} cannot be used: {tls}. {_what_to_do(settings)}"
        if isinstance(error, RedisTimeoutError):
            return _frozen(where, settings)
        return f"{where} does not answer ({cause_of(error)}). {_what_to_do(settings)}"
    if trouble is Trouble.READ_ONLY and _is_set(settings.redis_url):
        # the address names the set, and no server of it: the primary is found there when there is one
        trouble = Trouble.LOADING
    return _ANSWERED[trouble].format(where=where, error=error)


def _is_set(url: str) -> bool:
    address = read_address(url)
    return bool(address.sentinels or address.nodes)


_ANSWERED = {
    Trouble.LOADING: "{where} is not ready yet ({error}). Try again in a moment.",
    Trouble.READ_ONLY: "{where} takes no writes ({error}). Set REDIS_URL to the primary.",
    Trouble.OUT_OF_MEMORY: "{where} is at its memory limit ({error}). What fills it: erni doctor.",
    Trouble.NO_PERMISSION: "{where} does not let us in ({error}). Check REDIS_PASSWORD and the rights.",
    Trouble.NO_PRIMARY: "{where} cannot be found: {error}.",
    Trouble.NO_GROUP: "{where} has no consumer groups yet ({error}). They are made when the agents start.",
    Trouble.NOT_SENT: "{where} refused a command: {error}",
}


def cause_of(error: BaseException) -> str:
    """The root of an error in a few words: what the system says, else the error's own first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            # its numbers are not those of other system errors
            return "there is no host of that name"
        if isinstance(cause, OSError) and (cause.errno or 0) > 0:
            return os.strerror(cause.errno or 0).lower()
        cause = cause.__cause__ or cause.__context__
    # redis-py may have lost the system's error, but not its number
    if found := re.match(r"Error (\d+) connecting", str(error)):
        return os.strerror(int(found[1])).lower()
    if isinstance(error, InvalidResponse) or "Protocol error" in str(error):
        return "what answers there is no Redis"
    said = str(error).strip().splitlines()
    if said:
        return said[0][:200]
    return "no answer in time" if isinstance(error, TimeoutError) else "no reason given"


async def strange_redis(redis: Redis, settings: Settings) -> str:
    """`no_trace` as a line more of a sentence that says that something is not there."""
    sentence = await no_trace(redis, settings)
    return f"\n{sentence}" if sentence else ""


async def no_trace(redis: Redis, settings: Settings) -> str:
    """A sentence where this Redis holds nothing of ours: perhaps it is not the one that is meant. Else ''.

    Raises what redis-py raises.
    """
    for lane in keys.all_lanes(settings.lanes):
        streams = (lane.stream(name) for name in topology.STREAMS)
        agents = (key for name in topology.AGENTS for key in (lane.processes(name), lane.dead(name)))
        try:
            found = await call(redis, "EXISTS", *streams, *agents, lane.session_open, lane.session_lru)
        except NoPermissionError:
            # who may not look at all of it was let in by somebody who knows us
            return ""
        if found:
            return ""
    return (
        f"Redis at {shown(settings.redis_url)} has no trace of agents: if another one is meant, set"
        " REDIS_URL; `erni up` starts everything on this machine"
    )


def _what_to_do(settings: Settings) -> str:
    """Return what to do about an address that does not answer."""
    from sandbox.claims import holder_of

    if erni := erni_of(settings):
        holder = holder_of(erni / "up.lock")
        if holder and (full := [disk.trouble for disk in disks_of(settings) if disk.full]):
            # it cannot write, and ends each time it is started: nothing else helps
            return f"It is the one of {holder} in {erni.parent}, and {'; '.join(full)}."
        if holder:
            return (
                f"It is the one of {holder} in {erni.parent}, which starts it again when it ends: see"
                f" {erni / 'logs'}, or stop `erni up` with Ctrl-C and start it again."
            )
        return (
            f"It was the one of an `erni up` in {erni.parent} that was killed: start `erni up` there again."
        )
    if _is_set(settings.redis_url):
        return (
            "Try again in a moment: a replica may be about to take the place of a primary. If that does not"
            " help, start its servers, or set REDIS_URL to those that run."
        )
    return "Start everything on this machine with `erni up`, or set REDIS_URL to a server that runs."


def _frozen(where: str, settings: Settings) -> str:
    """Return the sentence for a server that takes connections and says nothing."""
    what = f"{where} takes connections and does not answer within {PATIENCE:.0f} s"
    safe = "No photo is lost; agents go on when it answers."
    address = read_address(settings.redis_url)
    # an address of a set does not say which of its servers it is
    here = not _is_set(settings.redis_url) and is_here(address.host)
    found = listening_process(address.port) if here else None
    if found and found.stopped:
        return (
            f"{what}: its process {found.pid} is stopped (SIGSTOP, or a debugger). Let it go on: kill -CONT"
            f" {found.pid}. {safe}"
        )
    who = f"its process {found.pid}" if found else "its process"
    return f"{what}: {who} is stopped (kill -CONT), or too busy. {safe} {_what_to_do(settings)}"
