"""Keeps the keys by which systems and people use the pipeline over HTTP: name, role, source, and a hash.

A key is ``erni_<name>_<64 hex digits>``. The digits are 256 random bits, so a plain SHA-256 protects the key:
nobody can guess so many, and a slow hash would only slow us down. The key itself is never stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from events import attributes
from events.connection import RedisError, call
from shared.operations import activity, scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.operations.activity import Person

KEYS: Final = "erni:keys"
"""Hash: name → the record of a key (JSON)."""

USED: Final = "erni:keys:used"
"""Hash: name → when a gateway or `erni mcp` last saw the key, Unix time in seconds, to about a minute."""
NOTED_SECONDS: Final = 60.0
"""How often the use of a key is noted."""
GRACE_SECONDS: Final = 24 * 3600.0
"""How long the old secret works after a rotation, if nobody says otherwise: time to change a publisher."""
LONGEST_GRACE: Final = 90 * 24 * 3600.0

Role: TypeAlias = Literal["viewer", "publisher", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "publisher", "operator", "admin")

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
_KEY: Final = re.compile(r"erni_(?P<name>[a-z0-9-]{1,64})_[0-9a-f]{64}", re.ASCII)


class InvalidKeyError(ValueError):
    """Raised for a key that cannot be added as it was asked for; the message says what to change."""


class AccessKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one key."""

    name: str
    role: Role
    source: str = ""
    """The CloudEvents source that it publishes for; '' for a key that publishes nothing of its own."""
    needs_idempotency_key: bool = False
    """Whether an upload without the header ``Idempotency-Key`` is refused."""
    created_at: float = 0.0
    """Unix time in seconds."""
    sha256: str = ""
    """Of the key, as hex digits."""
    old_sha256: str = ""
    """Of the key before a rotation, which works until `old_until`."""
    old_until: float = 0.0
    """Unix time in seconds."""

    def accepts(self, sha256: str) -> bool:
        """Return whether a hash is that of the key, or of the one before while that still works."""
        known = (self.sha256, self.old_sha256) if time.time() < self.old_until else (self.sha256,)
        return any(hmac.compare_digest(one, sha256) for one in known)


_RECORD: Final = msgspec.json.Decoder(AccessKey)


async def add(
    redis: Redis,
    name: str,
    role: Role,
    *,
    source: str = "",
    needs_idempotency_key: bool = False,
    by: Person | None = None,
) -> str:
    """Make a key and return it; nobody can see it again. Raises InvalidKeyError and what redis-py raises.

    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    _check(name, role, source)
    key = _fresh(name)
    record = AccessKey(
        name=name,
        role=role,
        source=source,
        needs_idempotency_key=needs_idempotency_key,
        created_at=time.time(),
        sha256=_hash(key),
    )
    if not await scripts.write(redis, "HSETNX", KEYS, name, msgspec.json.encode(record)):
        raise InvalidKeyError(
            f"there is a key {name} already: choose another name, or remove that key first"
            f" (erni key remove {name})"
        )
    # of an earlier key of that name
    await call(redis, "HDEL", USED, name)
    await activity.noted(redis, by, "key add", name)
    return key


async def find(redis: Redis, key: str) -> AccessKey | None:
    """Return the record of a key that somebody presents; None if it is no key of ours (any more)."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    record = await by_name(redis, found["name"])
    return record if record is not None and record.accepts(_hash(key)) else None


async def by_name(redis: Redis, name: str) -> AccessKey | None:
    """Return the record of a key by its name; None if there is none (any more)."""
    return _read(await call(redis, "HGET", KEYS, name))


async def rotate(redis: Redis, name: str, *, grace: float = 0.0, by: Person | None = None) -> str | None:
    """Give a key a new secret and return it. None if there is no such key.

    `grace`: seconds for which the old secret works, too; 0: every earlier one stops working at once.
    `by`: who does it, for the list of activities; None: nobody is named there.
    Raises InvalidKeyError if an earlier secret still works and would stop early, and if somebody else renews
    or removes the key at the same moment: one secret can count.
    """
    if not 0 <= grace <= LONGEST_GRACE:
        raise InvalidKeyError(f"the old key can work for {LONGEST_GRACE / 86_400:.0f} days at most")
    before = await call(redis, "HGET", KEYS, name)
    record = _read(before)
    if record is None:
        return None
    key, now = _fresh(name), time.time()
    if grace and record.old_until > now:
        raise InvalidKeyError(
            f"{name} was renewed before, and the key before that still works for"
            f" {(record.old_until - now) / 3600:.1f} h: renew it after that, or end both old keys at once"
            " (--grace 0s)"
        )
    record = msgspec.structs.replace(
        record,
        sha256=_hash(key),
        created_at=now,
        old_sha256=record.sha256 if grace else "",
        old_until=round(now + grace, 3) if grace else 0.0,
    )
    if not await scripts.replaced(redis, KEYS, name, before, msgspec.json.encode(record)):
        raise InvalidKeyError(
            f"somebody else renewed or removed the key {name} at the same moment: this secret does not count."
            " Look at the list of keys, and renew it again if you need to"
        )
    await activity.noted(redis, by, "key rotate", name)
    return key


async def all_keys(redis: Redis) -> list[AccessKey]:
    """Return every key, by name."""
    flat = await call(redis, "HGETALL", KEYS)
    values = flat.values() if isinstance(flat, dict) else flat[1::2]
    return sorted(filter(None, map(_read, values)), key=lambda record: record.name)


async def note_use(redis: Redis, name: str) -> None:
    """Note that a key was used now. Raises what redis-py raises."""
    await scripts.write(redis, "HSET", USED, name, int(time.time()))


class Uses:
    """Notes the uses of keys, each key once a minute."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._noted: dict[str, float] = {}
        """By name of a key: until when its use is noted."""

    async def note(self, name: str) -> None:
        """Note that a key is used now. If Redis cannot write it, the caller goes on."""
        now = time.monotonic()
        if now < self._noted.get(name, 0.0):
            return
        self._noted[name] = now + NOTED_SECONDS
        with suppress(RedisError):
            await note_use(self._redis, name)


async def last_uses(redis: Redis) -> dict[str, float]:
    """Return when each key was last used, by name, as Unix time in seconds."""
    flat = await call(redis, "HGETALL", USED)
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    return {name.decode("utf-8", "replace"): float(at) for name, at in pairs if at.isdigit()}


async def remove(redis: Redis, name: str, *, by: Person | None = None) -> bool:
    """Remove a key; returns False if there was none. `by`: who does it, for the list of activities."""
    removed = bool(await call(redis, "HDEL", KEYS, name))
    await call(redis, "HDEL", USED, name)
    if removed:
        await activity.noted(redis, by, "key remove", name)
    return removed


def _check(name: str, role: Role, source: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidKeyError(
            f"the name {name[:80]!r} cannot be used: give 1 to 64 characters out of a-z 0-9 and -, the first"
            " and the last one a letter or digit"
        )
    if role == "publisher" and not source:
        raise InvalidKeyError(
            "a publisher's key belongs to one source: name it with --source, such as urn:camera-app"
        )
    if source and role == "viewer":
        raise InvalidKeyError("a viewer publishes nothing: leave --source out, or choose another role")
    if source:
        try:
            attributes.source(source)
        except ValueError as error:
            raise InvalidKeyError(str(error)) from None


def _fresh(name: str) -> str:
    return f"erni_{name}_{secrets.token_hex(32)}"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _read(value: bytes | None) -> AccessKey | None:
    """Return the record in a field of the hash; None for what is no record."""
    try:
        return _RECORD.decode(value) if value else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
