"""Signs people in to the console: with a key, or with a link that works once."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from events.connection import call
from shared.operations import access_keys, scripts
from shared.operations.access_keys import Role

if TYPE_CHECKING:
    from redis.asyncio import Redis

STAYS_SECONDS: Final = 12 * 3600
"""How long somebody stays signed in: a working day."""
TICKET_SECONDS: Final = 15 * 60
"""How long a link can be used."""


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in."""

    name: str
    role: Role
    sha256: str = ""
    """Of the key, so that its removal signs out; '' for a link, which needs no key."""


_DECODER: Final = msgspec.json.Decoder(SignedIn)


async def with_key(redis: Redis, key: str) -> tuple[SignedIn, str] | None:
    """Sign in with a key; returns who it is, and the token for the cookie. None for no key of ours."""
    record = await access_keys.find(redis, key)
    if record is None:
        return None
    person = SignedIn(name=record.name, role=record.role, sha256=record.sha256)
    return person, await _open(redis, person)


async def make_ticket(redis: Redis, name: str, role: Role) -> str:
    """Return a secret that signs in once, within TICKET_SECONDS."""
    ticket = secrets.token_urlsafe(32)
    person = msgspec.json.encode(SignedIn(name=name, role=role))
    await scripts.write(redis, "SET", _ticket(ticket), person, "EX", TICKET_SECONDS)
    return ticket


async def with_ticket(redis: Redis, ticket: str) -> tuple[SignedIn, str] | None:
    """Sign in with a ticket, which ends with it. None for one that was used, or is too old."""
    found = await call(redis, "GETDEL", _ticket(ticket))
    if not found:
        return None
    person = _DECODER.decode(found)
    return person, await _open(redis, person)


async def who(redis: Redis, token: str) -> SignedIn | None:
    """Return who a cookie's token belongs to; None when signed out, too old, or the key was removed."""
    found = await call(redis, "GET", _session(token))
    if not found:
        return None
    person = _DECODER.decode(found)
    if not person.sha256:
        return person
    current = await access_keys.by_name(redis, person.name)
    if current is None or not current.accepts(person.sha256):
        return None
    # the role that the key has now
    return msgspec.structs.replace(person, role=current.role)


async def sign_out(redis: Redis, token: str) -> None:
    """Forget a token."""
    await call(redis, "DEL", _session(token))


async def _open(redis: Redis, person: SignedIn) -> str:
    token = secrets.token_urlsafe(32)
    await scripts.write(redis, "SET", _session(token), msgspec.json.encode(person), "EX", STAYS_SECONDS)
    return token


def _session(token: str) -> str:
    return f"erni:console-session:{_hash(token)}"


def _ticket(ticket: str) -> str:
    return f"erni:console-ticket:{_hash(ticket)}"


def _hash(secret: str) -> str:
    """Return what Redis knows a secret by: who can read Redis cannot use it."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
