"""Keeps the endpoints of web hooks in Redis: address, secrets, and how the last deliveries went.

Two keys with one hash tag, so that a script may use both on a cluster: the index, which every agent reads and
which holds nothing secret, and a hash for each endpoint, which the notifier and the operators read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from events import scripts
from events.connection import call
from shared.retry.errors import PermanentError
from shared.webhooks.subscriptions import INDEX, Subscription, read_index

if TYPE_CHECKING:
    from redis.asyncio import Redis

Signature: TypeAlias = Literal["v1", "v1a"]
SIGNATURES: Final[tuple[Signature, ...]] = get_args(Signature)
SWITCHED_OFF_AFTER: Final = 5 * 24 * 3600.0
"""Seconds of failures without a single delivery after which an endpoint is switched off."""
_NOTED = scripts.load("shared.webhooks", "noted")
_ENABLED = scripts.load("shared.webhooks", "enabled")
_ROTATED = scripts.load("shared.webhooks", "rotated")
_FRESH: Final = 60.0
"""Seconds for which a note that all is well is not written again."""


class UnreadableEndpointError(PermanentError):
    """Raised for an endpoint whose values are none that this version knows."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold one endpoint. Times are Unix seconds of the server's clock; 0: it did not happen."""

    id: str
    url: str
    source: str
    """The CloudEvents source whose ends it hears of."""
    events: tuple[str, ...]
    signature: Signature = "v1"
    secret: str
    """``whsec_…`` for v1, the private key ``whsk_…`` for v1a."""
    old_secret: str = ""
    """The one before a rotation; notices are signed with it too until `old_until`."""
    old_until: float = 0.0
    created_at: float = 0.0
    off_since: float = 0.0
    off_reason: str = ""
    failing_since: float = 0.0
    """When the first delivery failed since the last one that went well."""
    error: str = ""
    """How the last delivery failed; empty if it did not."""
    delivered_at: float = 0.0
    """When a delivery went well last, to about a minute."""

    @property
    def state(self) -> Literal["on", "failing", "off"]:
        """Return the state in a word."""
        if self.off_since:
            return "off"
        return "failing" if self.failing_since else "on"

    def secrets(self, now: float) -> tuple[str, ...]:
        """Return the secrets that sign a notice, the newest first."""
        return (self.secret, self.old_secret) if now < self.old_until else (self.secret,)

    @property
    def subscription(self) -> Subscription:
        """Return what the agents need to know of it."""
        return Subscription(source=self.source, events=self.events)


def key_of(endpoint_id: str) -> str:
    """Return the key of an endpoint's hash."""
    return f"{INDEX}:{endpoint_id}"


async def find(redis: Redis, endpoint_id: str) -> Endpoint | None:
    """Return an endpoint; None if there is none of that id.

    Raises UnreadableEndpointError, and what redis-py raises.
    """
    fields: dict[bytes, bytes] = await call(redis, "HGETALL", key_of(endpoint_id))
    return _read(endpoint_id, fields) if fields else None


async def all_endpoints(redis: Redis) -> list[Endpoint]:
    """Return every endpoint, the oldest first. Raises as `find` does."""
    found = [await find(redis, endpoint_id) for endpoint_id in await read_index(redis)]
    return sorted(filter(None, found), key=lambda endpoint: (endpoint.created_at, endpoint.id))


async def keep(redis: Redis, endpoint: Endpoint) -> None:
    """Write a new endpoint, and switch it on for the agents."""
    fields = _fields(endpoint)
    await call(redis, "HSET", key_of(endpoint.id), *(part for pair in fields.items() for part in pair))
    # last: an agent that knows of an endpoint writes notices for it
    await call(redis, "HSET", INDEX, endpoint.id, msgspec.json.encode(endpoint.subscription))


async def switch_on(redis: Redis, endpoint: Endpoint) -> bool:
    """Switch an endpoint on for the agents and the notifier, as if it had never failed.

    Returns False if it was removed meanwhile.
    """
    subscribed = msgspec.json.encode(endpoint.subscription)
    return bool(await _ENABLED(redis, [key_of(endpoint.id), INDEX], [endpoint.id, subscribed]))


async def rotated(redis: Redis, before: Endpoint, after: Endpoint) -> bool:
    """Give an endpoint the secrets of `after`; returns False if it no longer has the secret of `before`."""
    words: list[str | float] = [before.secret, after.secret, after.old_secret, after.old_until]
    return bool(await _ROTATED(redis, [key_of(before.id)], [*words]))


async def drop(redis: Redis, endpoint_id: str) -> bool:
    """Remove an endpoint; returns False if there was none."""
    known = await call(redis, "HDEL", INDEX, endpoint_id)
    return bool(await call(redis, "DEL", key_of(endpoint_id)) or known)


async def delivered(redis: Redis, endpoint: Endpoint, now: float) -> None:
    """Note that a delivery went well; at most once a minute while all do."""
    if endpoint.failing_since or now - endpoint.delivered_at > _FRESH:
        await _NOTED(redis, [key_of(endpoint.id), INDEX], [endpoint.id, "", 0, ""])


async def failed(redis: Redis, endpoint: Endpoint, error: str, *, gone: bool = False) -> str:
    """Note that a delivery failed. `gone`: switch the endpoint off at once.

    Returns why the endpoint was switched off by this failure, in a sentence; '' if it was not.
    """
    limit = 0.0 if gone else SWITCHED_OFF_AFTER
    why = error if gone else f"every delivery has failed for {SWITCHED_OFF_AFTER / 86_400:.0f} days: {error}"
    off = await _NOTED(redis, [key_of(endpoint.id), INDEX], [endpoint.id, error, limit, why])
    return why if off else ""


def _fields(endpoint: Endpoint) -> dict[str, str]:
    fields = {
        name: str(value)
        for name in Endpoint.__struct_fields__
        if name not in ("id", "events") and (value := getattr(endpoint, name))
    }
    return fields | {"events": ",".join(endpoint.events)}


def _read(endpoint_id: str, fields: dict[bytes, bytes]) -> Endpoint:
    """Return the endpoint of a hash. Raises UnreadableEndpointError."""
    try:
        text: dict[str, object] = {name.decode(): value.decode() for name, value in fields.items()}
        text["events"] = str(text.get("events", "")).split(",")
        return msgspec.convert({**text, "id": endpoint_id}, Endpoint, strict=False)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise UnreadableEndpointError(
            f"the web hook {endpoint_id} cannot be read ({str(error)[:200]}): a newer version wrote it, or"
            " somebody changed it in Redis. Update this version, or remove it: erni webhook remove"
            f" {endpoint_id}"
        ) from None
