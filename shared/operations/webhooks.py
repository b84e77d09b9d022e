"""Registers web hooks: adds, lists, removes, rotates and switches on."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec

from events import attributes, codec, keys, topology
from events.connection import call
from events.types import WebhookQueued
from shared.delivery import packing
from shared.fetching.webhooks import Posts
from shared.operations import activity
from shared.retry.errors import PermanentError
from shared.webhooks import endpoints, signature
from shared.webhooks.endpoints import Endpoint, UnreadableEndpointError
from shared.webhooks.notices import EVENTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.operations.activity import Person
    from shared.settings import Settings
    from shared.webhooks.endpoints import Signature

__all__ = [
    "InvalidWebhookError",
    "Registered",
    "UnreadableEndpointError",
    "add",
    "all_webhooks",
    "disable",
    "enable",
    "next_tries",
    "remove",
    "rotate",
    "verify_with",
]
MOST_PER_SOURCE: Final = 10
"""Endpoints that one source may have: each of them is a notice in the settlement of an end."""
_LOOKED_AT: Final = 1_000
"""Notices of a lane that are looked at, the next ones first, to find an endpoint's."""
_PAGE: Final = 100
OLD_SECRET_SECONDS: Final = 24 * 3600.0
"""How long notices are signed with the old secret, too, after a rotation."""


class InvalidWebhookError(ValueError):
    """Raised for a web hook that cannot be as it was asked for; the message says what to change."""


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an endpoint and what its receiver verifies with, which is shown this one time."""

    endpoint: Endpoint
    verify_with: str
    """The secret ``whsec_…`` (v1), or the public key ``whpk_…`` (v1a)."""


async def add(
    redis: Redis,
    settings: Settings,
    url: str,
    *,
    source: str,
    events: Sequence[str] = EVENTS,
    signed: Signature = "v1",
    by: Person | None = None,
) -> Registered:
    """Register an endpoint. Raises InvalidWebhookError and what redis-py raises.

    Agents write notices for it within two seconds.
    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    _check(settings, url, source, events)
    same = [one for one in await endpoints.all_endpoints(redis) if one.source == source]
    if len(same) >= MOST_PER_SOURCE:
        raise InvalidWebhookError(
            f"the source {source} has {len(same)} web hooks already, and more are not possible: remove one"
            " (erni webhook list)"
        )
    endpoint = Endpoint(
        id=f"wh_{secrets.token_hex(6)}",
        url=url,
        source=source,
        events=tuple(dict.fromkeys(events)),
        signature=signed,
        secret=_new(signed),
        created_at=round(time.time(), 3),
    )
    await endpoints.keep(redis, endpoint)
    await activity.noted(redis, by, "webhook add", endpoint.id)
    return Registered(endpoint=endpoint, verify_with=verify_with(endpoint))


async def rotate(redis: Redis, endpoint_id: str, *, by: Person | None = None) -> Registered | None:
    """Give an endpoint a new secret; None if there is no such endpoint.

    Notices carry signatures by both for a day. Raises InvalidWebhookError while an earlier rotation lasts:
    the secret before that one would stop working early.
    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    endpoint = await endpoints.find(redis, endpoint_id)
    if endpoint is None:
        return None
    now = time.time()
    if endpoint.old_until > now:
        hours = (endpoint.old_until - now) / 3600
        raise InvalidWebhookError(
            f"{endpoint_id} was rotated less than a day ago: its old secret still counts for {hours:.0f} h."
            " Rotate it again after that"
        )
    changed = msgspec.structs.replace(
        endpoint,
        secret=_new(endpoint.signature),
        old_secret=endpoint.secret,
        old_until=round(now + OLD_SECRET_SECONDS, 3),
    )
    if not await endpoints.rotated(redis, endpoint, changed):
        raise InvalidWebhookError(
            f"somebody else rotated or removed {endpoint_id} at the same moment: see erni webhook list"
        )
    await activity.noted(redis, by, "webhook rotate", endpoint_id)
    return Registered(endpoint=changed, verify_with=verify_with(changed))


async def enable(redis: Redis, endpoint_id: str, *, by: Person | None = None) -> bool:
    """Switch an endpoint on again; returns False if there is no such endpoint.

    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    endpoint = await endpoints.find(redis, endpoint_id)
    if endpoint is None or not await endpoints.switch_on(redis, endpoint):
        return False
    await activity.noted(redis, by, "webhook enable", endpoint_id)
    return True


async def disable(redis: Redis, endpoint_id: str, *, by: Person) -> bool:
    """Switch an endpoint off until somebody switches it on; returns False if there is no such endpoint.

    Agents write no notice for it from then on; notices that wait become dead letters.
    `who` stands in the reason that operators read.
    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    endpoint = await endpoints.find(redis, endpoint_id)
    if endpoint is None:
        return False
    await endpoints.failed(redis, endpoint, f"{by.name} switched it off", gone=True)
    await activity.noted(redis, by, "webhook disable", endpoint_id)
    return True


async def remove(redis: Redis, endpoint_id: str, *, by: Person | None = None) -> bool:
    """Remove an endpoint, and with it the notices that wait; returns False if there was none.

    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    removed = await endpoints.drop(redis, endpoint_id)
    if removed:
        await activity.noted(redis, by, "webhook remove", endpoint_id)
    return removed


async def all_webhooks(redis: Redis) -> list[Endpoint]:
    """Return every endpoint, the oldest first."""
    return await endpoints.all_endpoints(redis)


async def next_tries(redis: Redis, found: Collection[Endpoint], *, lanes: int) -> dict[str, float]:
    """Return when the next notice of each endpoint that fails is tried, by its id, as Unix time in seconds.

    An endpoint is left out if no notice for it waits, or none of the next thousand does.
    Raises what redis-py raises.
    """
    failing = {one.id for one in found if one.state == "failing"}
    tries: dict[str, float] = {}
    for lane in keys.all_lanes(lanes) if failing else ():
        for endpoint_id, at in (await _next_in(redis, lane, failing)).items():
            tries[endpoint_id] = min(at, tries.get(endpoint_id, at))
    return tries


async def _next_in(redis: Redis, lane: Keys, wanted: set[str]) -> dict[str, float]:
    delayed = lane.delayed(topology.NOTIFIER.agent)
    found: dict[str, float] = {}
    for begin in range(0, _LOOKED_AT, _PAGE):
        page = await call(redis, "ZRANGE", delayed, begin, begin + _PAGE - 1, "WITHSCORES")
        for member, due in zip(page[::2], page[1::2], strict=True):
            endpoint_id = _endpoint_of(member)
            if endpoint_id in wanted:
                found.setdefault(endpoint_id, float(due) / 1000)
        if len(page) < 2 * _PAGE or found.keys() == wanted:
            break
    return found


def _endpoint_of(member: bytes) -> str:
    """Return the endpoint of a notice that waits; '' for a foreign value in our set."""
    try:
        notice = codec.decode(topology.QUEUED, "0-0", packing.unpack(member)[1]).event
    except (ValueError, TypeError, LookupError, codec.UndecodableError):
        return ""
    return notice.endpoint if isinstance(notice, WebhookQueued) else ""


def verify_with(endpoint: Endpoint) -> str:
    """Return what a receiver verifies with."""
    return endpoint.secret if endpoint.signature == "v1" else signature.public_key(endpoint.secret)


def _new(signed: Signature) -> str:
    return signature.new_secret() if signed == "v1" else signature.new_private_key()


def _check(settings: Settings, url: str, source: str, events: Sequence[str]) -> None:
    try:
        Posts(settings.webhook_hosts, timeout=settings.webhook_timeout).check_with_host(url)
        attributes.source(source)
    except (PermanentError, ValueError) as error:
        raise InvalidWebhookError(str(error)) from None
    if not events or (unknown := [event for event in events if event not in EVENTS]):
        wrong = f"{unknown[0][:40]!r} is no event that a web hook can want" if events else "no event is named"
        raise InvalidWebhookError(f"{wrong}: there are {', '.join(EVENTS)}")
