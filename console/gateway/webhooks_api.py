"""`GET /v1/webhooks`: which web hooks there are, how their deliveries go, and when the next try is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from console.addresses import host
from console.gateway import problems
from console.gateway.access import READERS
from console.gateway.answers import json_answer
from console.gateway.problems import Problem
from shared.operations import webhooks

if TYPE_CHECKING:
    from aiohttp import web
    from redis.asyncio import Redis

    from console.gateway.access import Door
    from shared.settings import Settings
    from shared.webhooks.endpoints import Endpoint


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """One web hook. Times are Unix seconds; null: it did not happen."""

    id: str
    host: str
    """The address without its path, which may be secret: ``https://hooks.example.org``."""
    source: str
    """The CloudEvents source whose ends it hears of."""
    events: list[str]
    state: Literal["on", "failing", "off"]
    created_at: float
    delivered_at: float | None
    """When a delivery went well last, to about a minute."""
    failing_since: float | None
    next_try_at: float | None
    """When the next notice is tried again; null if none waits for that."""
    off_since: float | None
    error: str
    """How the last delivery failed, or why it is off; '' if all is well."""


class WebhooksView(msgspec.Struct, frozen=True, kw_only=True):
    """The web hooks that a key may see, the oldest first."""

    webhooks: list[WebhookView]


class WebhooksApi:
    """Answers what is asked about web hooks."""

    def __init__(self, redis: Redis, settings: Settings, door: Door) -> None:
        self._redis = redis
        self._lanes = settings.lanes
        self._door = door

    async def show(self, request: web.Request) -> web.Response:
        """List the web hooks; a publisher sees those of its source. Raises Problem."""
        caller = await self._door.admit(request, READERS)
        try:
            found = await webhooks.all_webhooks(self._redis)
        except webhooks.UnreadableEndpointError as error:
            raise Problem(problems.INTERNAL_ERROR, str(error)) from None
        mine = [one for one in found if caller.may_see(one.source)]
        tries = await webhooks.next_tries(self._redis, mine, lanes=self._lanes)
        return json_answer(WebhooksView(webhooks=[_view(one, tries.get(one.id)) for one in mine]))


def _view(endpoint: Endpoint, next_try: float | None) -> WebhookView:
    return WebhookView(
        id=endpoint.id,
        host=host(endpoint.url),
        source=endpoint.source,
        events=list(endpoint.events),
        state=endpoint.state,
        created_at=endpoint.created_at,
        delivered_at=endpoint.delivered_at or None,
        failing_since=endpoint.failing_since or None,
        next_try_at=next_try,
        off_since=endpoint.off_since or None,
        error=endpoint.off_reason or endpoint.error,
    )
