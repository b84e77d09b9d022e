"""Posts notices about ends to web hooks, signed, again and again by a schedule until each is accepted."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final

import structlog

from events.types import WebhookQueued
from shared.delivery.agent import Agent, current_delivery
from shared.fetching.webhooks import GoneError, Posts
from shared.retry.classify import Kind, classify, sentence_of
from shared.retry.errors import PermanentError, PostponeError, aimed_at, dependency
from shared.telemetry.redact import scrub
from shared.webhooks import endpoints, signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.settings import Settings
    from shared.webhooks.endpoints import Endpoint

DEPENDENCY: Final = "webhook"
_TURN_SECONDS: Final = 0.5
_BUSY_SECONDS: Final = 2.0
_ERROR: Final = 300
_log = structlog.get_logger(__name__)


class WebhookNotifier(Agent[WebhookQueued, None]):
    """From a queued notice to its delivery.

    It reads on whatever an endpoint does: a breaker for each endpoint holds back that endpoint's notices, and
    no endpoint gets more than its share of the slots.
    """

    name: ClassVar[str] = "webhook_notifier"

    def __init__(self, settings: Settings, redis: Redis) -> None:
        """Prepare the HTTP sessions."""
        super().__init__(settings, redis)
        self._posts = Posts(settings.webhook_hosts, timeout=settings.webhook_timeout)
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def open(self) -> None:
        """Open the HTTP sessions."""
        await self._posts.open()

    async def close(self) -> None:
        """Close them."""
        await self._posts.close()

    async def handle(self, event: WebhookQueued) -> None:
        """Post one notice.

        Raises PermanentError if the endpoint is switched off, and for an address that is not allowed; what
        else goes wrong is tried again by the stage's schedule. A removed endpoint's notice ends in silence.
        """
        # Before Redis is asked: a notice that is held costs as little as possible. By the endpoint, not by
        # its host, because two endpoints of a host may fail apart.
        with aimed_at(DEPENDENCY, event.endpoint, ()), dependency(DEPENDENCY, event.endpoint):
            endpoint = await endpoints.find(self.redis, event.endpoint)
            if endpoint is None:
                _log.info("the web hook was removed, its notice is dropped", webhook=event.endpoint)
                return
            if endpoint.off_since:
                raise PermanentError(
                    f"the web hook {endpoint.id} is switched off ({endpoint.off_reason}):"
                    f" `erni webhook enable {endpoint.id}`, then replay"
                )
            async with self._turn(endpoint.id):
                await self._deliver(endpoint, event.body.encode())

    async def _deliver(self, endpoint: Endpoint, body: bytes) -> None:
        headers = _headers(endpoint, body)
        try:
            await self._posts.post(endpoint.url, body, headers)
        except Exception as error:
            if classify(error) is not Kind.UNHEALTHY:
                await self._note(endpoint, error)
            raise
        await endpoints.delivered(self.redis, endpoint, time.time())

    async def _note(self, endpoint: Endpoint, error: Exception) -> None:
        why = scrub(sentence_of(error))[:_ERROR]
        gone = isinstance(error, GoneError)
        if off := await endpoints.failed(self.redis, endpoint, why, gone=gone):
            _log.error("a web hook is switched off", webhook=endpoint.id, error=off)

    @asynccontextmanager
    async def _turn(self, endpoint_id: str) -> AsyncIterator[None]:
        """Keep within the endpoint's share of the slots, or come back a little later."""
        share = self._turns.setdefault(endpoint_id, asyncio.Semaphore(max(1, self.settings.concurrency // 2)))
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await share.acquire()
        except TimeoutError:
            raise PostponeError(f"the web hook {endpoint_id} answers slowly", _BUSY_SECONDS) from None
        try:
            yield
        finally:
            share.release()


def _headers(endpoint: Endpoint, body: bytes) -> dict[str, str]:
    delivery = current_delivery.get()
    envelope = delivery.envelope
    message_id = envelope.event_id if envelope else delivery.entry_id
    now = int(time.time())
    signed = signature.header(endpoint.secrets(now), message_id=message_id, timestamp=now, body=body)
    headers = {
        "Content-Type": "application/json",
        "Accept": "*/*",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signed,
    }
    if delivery.traceparent:
        headers["traceparent"] = delivery.traceparent
    return headers
