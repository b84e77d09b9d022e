"""Lets in who has a key, within its role, its source and its requests a minute."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from console.gateway import problems
from console.gateway.problems import Problem
from events.connection import RedisError
from shared.operations import access_keys
from shared.operations.access_keys import AccessKey

if TYPE_CHECKING:
    from collections.abc import Collection

    from redis.asyncio import Redis

    from shared.operations.access_keys import Role

REMEMBERED_SECONDS: Final = 5.0
"""How long a key that Redis knew is taken without asking again: a removed key works no longer than that."""
WINDOW_SECONDS: Final = 60
READERS: Final[frozenset[Role]] = frozenset({"viewer", "publisher", "operator", "admin"})
PUBLISHERS: Final[frozenset[Role]] = frozenset({"publisher", "operator", "admin"})
LIMITS: Final = web.RequestKey("limits", dict[str, str])
"""Under this name a request holds the headers about the limit of its key."""
_POLICY: Final = "default"


class Caller(msgspec.Struct, frozen=True):
    """Who sends a request."""

    key: AccessKey

    def may_see(self, source: str | None) -> bool:
        """Return whether the caller may see what a source published; None: nobody knows which one."""
        return self.key.role != "publisher" or source == self.key.source


class Door:
    """Finds out who sends a request, and counts the requests of each key."""

    def __init__(self, redis: Redis, *, per_minute: int) -> None:
        """`per_minute`: requests of one key; 0: no limit."""
        self._redis = redis
        self._per_minute = per_minute
        self._known: dict[bytes, tuple[AccessKey, float]] = {}
        self._uses = access_keys.Uses(redis)
        self._windows: dict[str, tuple[int, int]] = {}
        """By name of a key: the number of its window, and the requests in it."""

    @property
    def allowed_rate(self) -> str:
        """Return the requests a minute, as the header WebHook-Allowed-Rate says it."""
        return str(self._per_minute) if self._per_minute else "*"

    async def admit(self, request: web.Request, roles: Collection[Role]) -> Caller:
        """Return the caller. Raises Problem if it has no key, another role, or no requests left.

        Raises what redis-py raises when a key cannot be looked up.
        """
        key = await self._find(_presented(request))
        request[LIMITS] = self._count(key)
        if key.role not in roles:
            raise Problem(
                problems.ROLE_TOO_LOW,
                f"the key {key.name} has the role {key.role}; this needs {' or '.join(sorted(roles))}",
                headers={"WWW-Authenticate": 'Bearer realm="erni", error="insufficient_scope"'},
            )
        return Caller(key)

    async def still_knows(self, request: web.Request) -> bool:
        """Return whether the key of a request that was admitted is still there; so it is if Redis is away."""
        try:
            await self._find(_presented(request))
        except Problem:
            return False
        except RedisError:
            return True
        return True

    async def _find(self, presented: str) -> AccessKey:
        digest, now = hashlib.sha256(presented.encode("utf-8", "replace")).digest(), time.monotonic()
        known = self._known.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        record = await access_keys.find(self._redis, presented)
        if record is None:
            self._known.pop(digest, None)
            raise Problem(
                problems.KEY_UNKNOWN,
                "the key is not known: it is misspelt, or it was removed (erni key list shows all there are)",
                headers={"WWW-Authenticate": 'Bearer realm="erni", error="invalid_token"'},
            )
        await self._uses.note(record.name)
        self._known = {at: one for at, one in self._known.items() if one[1] > now}
        self._known[digest] = (record, now + REMEMBERED_SECONDS)
        return record

    def _count(self, key: AccessKey) -> dict[str, str]:
        """Count a request and return the headers about the limit. Raises Problem past the limit.

        https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-11
        """
        if not self._per_minute:
            return {}
        now = time.time()
        window = int(now // WINDOW_SECONDS)
        seen, used = self._windows.get(key.name, (window, 0))
        used = used + 1 if seen == window else 1
        self._windows[key.name] = (window, min(used, self._per_minute + 1))
        rest = max(1, round((window + 1) * WINDOW_SECONDS - now))
        headers = {
            "RateLimit-Policy": f'"{_POLICY}";q={self._per_minute};w={WINDOW_SECONDS}',
            "RateLimit": f'"{_POLICY}";r={max(0, self._per_minute - used)};t={rest}',
        }
        if used > self._per_minute:
            raise Problem(
                problems.TOO_MANY_REQUESTS,
                f"the key {key.name} has sent its {self._per_minute} requests of this minute: send the next"
                f" one in {rest} s, or several events in one batch (HTTP_RATE_PER_MINUTE)",
                headers={**headers, "Retry-After": str(rest)},
            )
        return headers


def _presented(request: web.Request) -> str:
    """Return the key of a request: by RFC 6750 § 2.1, or § 2.3, which web hooks may use. Raises Problem."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    key = given.strip() if scheme.lower() == "bearer" else ""
    key = key or request.query.get("access_token", "")
    if not key:
        raise Problem(
            problems.KEY_MISSING,
            "the request has no key: send the header `Authorization: Bearer KEY` (erni key add makes one)",
            headers={"WWW-Authenticate": 'Bearer realm="erni"'},
        )
    return key
