"""The page of keys: who and which system may use the gateway."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from console.pages import refusals, rendering
from console.pages.desk import VISIT
from console.pages.guard import RefusedError, Route, form
from shared.operations import access_keys
from shared.operations.access_keys import GRACE_SECONDS, ROLES, InvalidKeyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from console.pages.desk import Desk


class KeysPage:
    """Lists keys, makes new ones, and removes them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Return the requests of this page."""
        return [
            Route("GET", "/keys", "admin", self._show),
            Route("POST", "/keys", "admin", self._add),
            Route("GET", "/keys/{name}", "admin", self._confirm),
            Route("POST", "/keys/{name}/rotate", "admin", self._rotate),
            Route("POST", "/keys/{name}/remove", "admin", self._remove),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        refusal = refusals.refusal_of(request)
        shown = await self._list(request, wrong=refusal.wrong, given=refusal.given)
        return refusals.forget(request, shown)

    async def _list(
        self,
        request: web.Request,
        *,
        fresh: str = "",
        fresh_name: str = "",
        wrong: str = "",
        given: Mapping[str, str] | None = None,
    ) -> web.Response:
        return await rendering.page(
            self._desk,
            request,
            "keys",
            keys=await access_keys.all_keys(self._desk.redis),
            used=await access_keys.last_uses(self._desk.redis),
            roles=ROLES,
            now=time.time(),
            fresh=fresh,
            fresh_name=fresh_name,
            wrong=wrong,
            given=given or {},
        )

    async def _add(self, request: web.Request) -> web.Response:
        given = await form(request)
        role = next((one for one in ROLES if one == given.get("role")), None)
        name, source = given.get("name", "").strip(), given.get("source", "").strip()
        if role is None:
            raise RefusedError("error.address")
        try:
            key = await access_keys.add(self._desk.redis, name, role, source=source, by=request[VISIT].person)
        except InvalidKeyError as error:
            return refusals.lead_to("/keys", request, str(error), given)
        return await self._list(request, fresh=key, fresh_name=name)

    async def _confirm(self, request: web.Request) -> web.Response:
        record = await access_keys.by_name(self._desk.redis, request.match_info["name"])
        if record is None:
            raise RefusedError("error.no_key", 404)
        return await rendering.page(self._desk, request, "key", key=record, now=time.time())

    async def _rotate(self, request: web.Request) -> web.Response:
        name, given = request.match_info["name"], await form(request)
        grace = GRACE_SECONDS if given.get("grace") else 0.0
        try:
            key = await access_keys.rotate(self._desk.redis, name, grace=grace, by=request[VISIT].person)
        except InvalidKeyError as error:
            return refusals.lead_to("/keys", request, str(error))
        if key is None:
            raise RefusedError("error.no_key", 404)
        return await self._list(request, fresh=key, fresh_name=name)

    async def _remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not await access_keys.remove(self._desk.redis, name, by=request[VISIT].person):
            raise RefusedError("error.no_key", 404)
        return web.Response(status=303, headers={"Location": "/keys"})
