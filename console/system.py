"""Finds which system a command talks to, says so where nobody chose it, and refuses to change a wrong one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from console.addresses import bare
from console.errors import CommandError
from console.output import Output
from console.up_state import starting
from shared import settings as settings_module

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.photo_store import BlobStore
    from shared.settings import Settings

_REDIS: Final = ("REDIS_URL", "SESSION_REDIS_URL")
_LEFT_BY_UP: Final = ("redis", "ports", "processes.json")
"""What a first `erni up` leaves in its folder."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the two addresses of a system come from: a file, ``Path()`` the environment, None the default."""

    redis: Path | None
    store: Path | None
    erni: Path | None
    """The nearest `.erni`, whether its system runs or not."""

    @property
    def stopped(self) -> Path | None:
        """The folder whose `erni up` does not run, if there is one and no address was chosen.

        A default store alone, or a demo, is no such folder.
        """
        if self.redis is not None or self.erni is None or starting(self.erni):
            return None
        return self.erni.parent if any((self.erni / name).exists() for name in _LEFT_BY_UP) else None


def find_place() -> Place:
    """Look where the addresses come from. Raises SettingsError."""
    found = settings_module.origins()

    def origin(*names: str) -> Path | None:
        return next((path for path, values in reversed(found) if not values.keys().isdisjoint(names)), None)

    erni = settings_module.erni_folder(Path.cwd())
    return Place(redis=origin(*_REDIS), store=origin("PHOTO_STORE_URL"), erni=erni)


def load() -> Settings:
    """Return the settings; say on standard error which system that is unless somebody chose it.

    Raises SettingsError, and CommandError while `erni up` of this folder is starting or does not run: what
    listens at the default address then is another system.
    """
    settings = settings_module.load()
    place = find_place()
    if place.redis is None and place.erni and (who := starting(place.erni)):
        raise CommandError(
            f"{who} is starting in {place.erni.parent} and cannot be asked yet. Try again in a few seconds"
        )
    if why := not_running(place):
        raise CommandError(why)
    if line := _sentence(place, settings):
        Output(as_json=False).warn(f"erni: {line}")
    return settings


def not_running(place: Place | None = None) -> str:
    """Say that the system of this folder does not run, and what to do; '' if it runs or there is none."""
    place = place or find_place()
    if place.stopped is None or place.erni is None:
        return ""
    from sandbox.claims import holder_of
    from sandbox.stack import kept_port

    if holder := holder_of(place.erni / "up.lock"):
        return (
            f"{holder} runs in {place.stopped} with an address of Redis that it does not write down, because"
            " it may have a secret in it. Set REDIS_URL to that address here, too"
        )
    port = kept_port(place.erni, "redis")
    where = f" (its Redis was redis://127.0.0.1:{port}/0)" if port else ""
    return (
        f"`erni up` does not run in {place.stopped}{where}. Start `erni up` there; to ask another system, set"
        " REDIS_URL"
    )


def _sentence(place: Place, settings: Settings) -> str:
    redis, store = bare(settings.redis_url), bare(settings.photo_store_url)
    if place.redis is None:
        line = f"Redis {redis} (the default, as REDIS_URL is not set)"
    elif place.redis.name != "env":
        # the environment or `.env`: somebody chose it, and a store that is not the agents' is refused
        return ""
    else:
        line = f"Redis {redis} (from {_shown(place.redis)})"
    store_why = " (the default, as PHOTO_STORE_URL is not set)" if place.store is None else ""
    return f"{line}, photo store {store}{store_why}"


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@asynccontextmanager
async def changing() -> AsyncIterator[tuple[Redis, Settings]]:
    """Open the Redis that a command changes, and the settings; both as `load` and `require_chosen` see them.

    Raises CommandError, and what redis-py raises.
    """
    from console.explain import redis_client

    settings = load()
    async with redis_client(settings) as redis:
        await require_chosen(redis, settings)
        yield redis, settings


async def require_chosen(redis: Redis, settings: Settings) -> None:
    """Refuse to change a system that nobody chose, or another than the one that is meant.

    Raises CommandError with the remedy, and what redis-py raises.
    """
    from console.explain import foreign

    require_named(settings)
    if why := await foreign(redis, settings):
        raise CommandError(why)


def require_named(settings: Settings) -> None:
    """Refuse the default address, at which somebody else's system may be. Raises CommandError."""
    place, where = find_place(), bare(settings.redis_url)
    if place.redis is None:
        raise CommandError(
            f"no setting says which Redis is meant, and {where} may be somebody else's: nothing was changed."
            " Either type the command in the folder of your `erni up`, or below it, or set"
            f" REDIS_URL={where}",
            code=2,
        )


async def require_same_store(redis: Redis, settings: Settings, store: BlobStore) -> None:
    """Refuse to use a photo store that the agents of this system do not read.

    Raises CommandError with the remedy, what redis-py raises and what the store raises.
    """
    from shared.operations.systems import other_store, read_system, same_store

    system = await read_system(redis)
    if system is None or await same_store(system, store):
        return
    raise CommandError(
        f"{other_store(system, settings)}: nothing was changed. Set PHOTO_STORE_URL={system.store}"
    )
