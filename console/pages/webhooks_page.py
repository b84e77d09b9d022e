"""The page of web hooks: who is notified of the ends of photos, how that goes, and what waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from console.addresses import bare, host
from console.pages import refusals, rendering
from console.pages.desk import VISIT
from console.pages.guard import RefusedError, Route, form
from events import topology
from shared.operations import webhooks
from shared.webhooks.endpoints import SIGNATURES, Endpoint
from shared.webhooks.notices import EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from console.pages.desk import Desk, Visit
    from shared.operations.status import AgentStatus
    from shared.operations.webhooks import Registered

_NOTIFIER: Final = topology.NOTIFIER.agent


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint for the page, whose templates name single fields of it: `endpoint` has secrets."""

    endpoint: Endpoint
    address: str
    """Without what may be secret in it."""
    breaker: str | None
    """Why its breaker is open, '' if nobody says; None: it is closed."""
    next_try: float | None
    """When its next notice is tried again, Unix seconds; None if none waits."""


class WebhooksPage:
    """Lists web hooks, registers new ones, and changes them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Return the requests of this page."""
        return [
            Route("GET", "/webhooks", "viewer", self._show),
            Route("POST", "/webhooks", "operator", self._add),
            Route("GET", "/webhooks/{id}", "operator", self._one),
            Route("POST", "/webhooks/{id}/rotate", "operator", self._rotate),
            Route("POST", "/webhooks/{id}/enable", "operator", self._enable),
            Route("POST", "/webhooks/{id}/disable", "operator", self._disable),
            Route("POST", "/webhooks/{id}/remove", "operator", self._remove),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        refusal = refusals.refusal_of(request)
        shown = await self._list(request, wrong=refusal.wrong, given=refusal.given)
        return refusals.forget(request, shown)

    async def _list(
        self,
        request: web.Request,
        *,
        fresh: Registered | None = None,
        wrong: str = "",
        given: Mapping[str, str] | None = None,
    ) -> web.Response:
        snapshot = await self._desk.live.now()
        notifier = next((one for one in snapshot.status.agents if one.agent == _NOTIFIER), None)
        return await rendering.page(
            self._desk,
            request,
            "webhooks",
            hooks=await self._hooks(await self._endpoints(), notifier, request[VISIT]),
            notifier=notifier,
            agent=_NOTIFIER,
            events=EVENTS,
            signatures=SIGNATURES,
            fresh=fresh,
            wrong=wrong,
            given=given or {},
        )

    async def _endpoints(self) -> list[Endpoint]:
        """Return all endpoints. Raises RefusedError with the sentence of one that cannot be read."""
        try:
            return await webhooks.all_webhooks(self._desk.redis)
        except webhooks.UnreadableEndpointError as error:
            raise RefusedError("error.plain", why=str(error)) from None

    async def _hooks(self, found: list[Endpoint], notifier: AgentStatus | None, visit: Visit) -> list[Hook]:
        tries = await webhooks.next_tries(self._desk.redis, found, lanes=self._desk.settings.lanes)
        outages = notifier.outages if notifier else {}
        shown = bare if visit.may("operator") else host
        return [
            Hook(
                endpoint=one,
                address=shown(one.url),
                breaker=outages.get(f"webhook/{one.id}"),
                next_try=tries.get(one.id),
            )
            for one in found
        ]

    async def _add(self, request: web.Request) -> web.Response:
        given = await form(request)
        signed = next((one for one in SIGNATURES if one == given.get("signature")), None)
        if signed is None:
            raise RefusedError("error.address")
        try:
            made = await webhooks.add(
                self._desk.redis,
                self._desk.settings,
                given.get("url", "").strip(),
                source=given.get("source", "").strip(),
                events=[event for event in EVENTS if given.get(event)],
                signed=signed,
                by=request[VISIT].person,
            )
        except webhooks.InvalidWebhookError as error:
            return refusals.lead_to("/webhooks", request, str(error), given)
        return await self._list(request, fresh=made)

    async def _one(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        endpoint = next((one for one in await self._endpoints() if one.id == wanted), None)
        if endpoint is None:
            raise RefusedError("error.no_webhook", 404)
        snapshot = await self._desk.live.now()
        notifier = next((one for one in snapshot.status.agents if one.agent == _NOTIFIER), None)
        [hook] = await self._hooks([endpoint], notifier, request[VISIT])
        return await rendering.page(self._desk, request, "webhook", hook=hook)

    async def _rotate(self, request: web.Request) -> web.Response:
        try:
            made = await webhooks.rotate(self._desk.redis, request.match_info["id"], by=request[VISIT].person)
        except (webhooks.InvalidWebhookError, webhooks.UnreadableEndpointError) as error:
            return refusals.lead_to("/webhooks", request, str(error))
        if made is None:
            raise RefusedError("error.no_webhook", 404)
        return await self._list(request, fresh=made)

    async def _enable(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        return _changed(await webhooks.enable(self._desk.redis, wanted, by=request[VISIT].person))

    async def _disable(self, request: web.Request) -> web.Response:
        wanted, visit = request.match_info["id"], request[VISIT]
        return _changed(await webhooks.disable(self._desk.redis, wanted, by=visit.person))

    async def _remove(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        return _changed(await webhooks.remove(self._desk.redis, wanted, by=request[VISIT].person))


def _changed(done: bool) -> web.Response:  # noqa: FBT001 - what was asked for was done
    if not done:
        raise RefusedError("error.no_webhook", 404)
    return web.Response(status=303, headers={"Location": "/webhooks"})
