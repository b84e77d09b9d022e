"""The HTTP side: identifies a request, lets faults happen to it, and has it answered."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from sandbox.sharepoint import dispatch, files, pages, storage
from sandbox.sharepoint.admin import Admin
from sandbox.sharepoint.errors import GraphError, invalid, not_found
from sandbox.sharepoint.exchange import Answer, Call, Service
from sandbox.sharepoint.faults import FaultLine, Faults, Hit
from sandbox.sharepoint.grants import ALL, FULL, SELECTED, Grants
from sandbox.sharepoint.inbox import add_inbox
from sandbox.sharepoint.items import Items
from sandbox.sharepoint.journal import Journal
from sandbox.sharepoint.model import timestamp
from sandbox.sharepoint.rendering import Renderer, other_name
from sandbox.sharepoint.shipped import SITE_PATH
from sandbox.sharepoint.store import Store
from sandbox.sharepoint.throttling import Budget
from sandbox.sharepoint.tokens import LIFETIME, TokenRefusal, Tokens
from sandbox.sharepoint.uploads import Uploads

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = "/v1.0/"
ADMINISTRATORS_TOKEN: Final = web.AppKey("administrators_token", str)
"""Of who may grant the site to apps."""
_HOSTS: Final = frozenset({"127.0.0.1", "localhost"})
_JSON: Final = (
    "application/json; odata.metadata=minimal; odata.streaming=true; IEEE754Compatible=false; charset=utf-8"
)

_GARBAGE: Final = "<html><head><title>Working on it...</title></head><body>Sorry, something went wr"

# Seconds without a fragment after which an upload session expires.
_SESSION_SECONDS: Final = 900.0
_STRICT_SESSION_SECONDS: Final = 20.0
# Resource units per minute: what the smallest tenants have, and enough for 500 photos in strict mode.
_TENANT_BUDGET: Final = 1_200
_STRICT_BUDGET: Final = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the emulator shall behave."""

    strict: bool = False
    tenant_mode: bool = False
    """A tenant to practise on: the local client was consented ``Sites.Selected`` only, and is refused until
    granted the site; a library `Eingang` has photos to publish."""
    seed: int = 0
    budget: int | None = None
    """Resource units per minute; 0: no limit; None: by mode."""
    token_seconds: int = LIFETIME
    session_seconds: float | None = None


def build(folder: Path, options: Options) -> web.Application:
    """The application on `folder`. Raises FolderInUseError."""
    store = Store(folder, strict=options.strict)
    state = folder / "state"
    fault_log = Journal(folder / "faults.jsonl", FaultLine)
    faults = Faults(fault_log, strict=options.strict, seed=options.seed)
    items = Items(store)
    if options.tenant_mode:
        add_inbox(store, items)
    budget = options.budget
    if budget is None:
        budget = _TENANT_BUDGET if options.tenant_mode else _STRICT_BUDGET if options.strict else 0
    lifetime = options.session_seconds or (_STRICT_SESSION_SECONDS if options.strict else _SESSION_SECONDS)
    service = Service(
        store=store,
        items=items,
        uploads=Uploads(store, items, faults, lifetime=lifetime),
        tokens=Tokens(
            state, roles=(SELECTED if options.tenant_mode else ALL,), lifetime=options.token_seconds
        ),
        grants=Grants(state),
        faults=faults,
        budget=Budget(budget),
    )

    app = web.Application(client_max_size=dispatch.MAX_BODY)
    app[ADMINISTRATORS_TOKEN] = service.tokens.administrators(FULL)

    async def close(_app: web.Application) -> None:
        store.close()
        fault_log.close()

    app.add_routes(Admin(service, fault_log).routes())
    app.router.add_route("*", "/{path:.*}", _Front(service).handle)
    app.on_cleanup.append(close)
    return app


class _Front:
    """All addresses but the administrator's."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, with whatever goes wrong by order or by the day."""
        faults = self._service.faults
        exchange = _Exchange(self._service, request)
        hit = faults.draw(request.method, exchange.path, exchange.subject())
        if hit is not None:
            faults.log(hit, method=request.method, path=exchange.path, request_id=exchange.request_id)
        if hit is not None and hit.when == "before" and (troubled := await self._trouble(exchange, hit)):
            return troubled
        response = await exchange.answer()
        if hit is not None and hit.when == "after" and (troubled := await self._trouble(exchange, hit)):
            return troubled
        return response

    async def _trouble(self, exchange: _Exchange, hit: Hit) -> web.StreamResponse | None:
        """What the client sees of a fault; None: the proper answer after all."""
        match hit.kind:
            case "slow":
                await asyncio.sleep(hit.delay)
                return None
            case "reset":
                if exchange.request.transport is not None:
                    exchange.request.transport.abort()
                return web.Response()  # goes nowhere
            case "garbage":
                return web.Response(text=_GARBAGE, content_type="text/html")
            case _:
                return exchange.refuse(dispatch.fault_error(hit))


class _Exchange:
    """One request with its ids, and the form of its answers."""

    def __init__(self, service: Service, request: web.Request) -> None:
        self.service = service
        self.request = request
        self.path = unquote(request.rel_url.raw_path)
        self.request_id = str(uuid.uuid4())
        self.client_request_id = request.headers.get("client-request-id", self.request_id)
        self._storage = self.path.startswith(storage.PREFIX)

    def subject(self) -> str:
        """What strict mode spares after it struck."""
        if self._storage:
            return storage.subject_of(self.service, self.path)
        if self.path.startswith(VERSION):
            return dispatch.subject_of(self.service.store, self.path.removeprefix(VERSION))
        return self.path

    async def answer(self) -> web.StreamResponse:
        """The proper answer."""
        try:
            return await self._answer()
        except GraphError as error:
            return self.refuse(error)

    def refuse(self, error: GraphError) -> web.Response:
        """An error answer."""
        body = error.body(
            request_id=self.request_id,
            client_request_id=self.client_request_id,
            date=timestamp(time.time()).removesuffix("Z"),
            storage=self._storage,
        )
        return self._response(Answer(error.status, body, error.headers))

    async def _answer(self) -> web.StreamResponse:
        origin = self._origin()
        parts = self.path.strip("/").split("/")
        if parts[1:] == ["oauth2", "v2.0", "token"] and self.request.method == "POST":
            return await self._token(parts[0])
        if self._storage:
            service = self.service
            show = Renderer(service.store, service.items, service.tokens, other_name(origin))
            return await self._send(
                await storage.serve(service, self.request, self.path, show, self.request_id)
            )
        if self.request.method == "GET" and self._is_page():
            page = pages.serve(self.service.store, self.path, self.request.query.get("page", "0"))
            if page is not None:
                return await self._send(page) if isinstance(page, Answer) else page
        if not self.path.startswith(VERSION):
            raise not_found("There is nothing at this address; Graph is at /v1.0.")
        call = Call(
            service=self.service,
            method=self.request.method,
            path=self.path.removeprefix(VERSION),
            query=dict(self.request.query),
            headers=self.request.headers,
            body=storage.pieces(self.request),
            origin=origin,
            request_id=self.request_id,
            client_request_id=self.client_request_id,
        )
        return self._response(await dispatch.serve(call))

    def _is_page(self) -> bool:
        return self.path == f"/{SITE_PATH}" or self.path.startswith(f"/{SITE_PATH}/")

    def _origin(self) -> str:
        """Our address as the caller knows it; links go through the same proxy then."""
        host = self.request.host
        if host.partition(":")[0] not in _HOSTS:
            raise invalid("The Host header must name the loopback address this emulator listens on.")
        return f"{self.request.scheme}://{host}"

    async def _token(self, tenant: str) -> web.Response:
        self.service.calls["POST token"] += 1
        form = {key: value for key, value in (await self.request.post()).items() if isinstance(value, str)}
        try:
            answer = Answer(body=self.service.tokens.answer(tenant, form))
        except TokenRefusal as refusal:
            answer = Answer(refusal.status, refusal.body(self.client_request_id))
        return self._response(answer)

    async def _send(self, answer: Answer) -> web.StreamResponse:
        if answer.file is None:
            return self._response(answer)
        return await files.send(self.request, answer.file, answer.headers | self._ids())

    def _response(self, answer: Answer) -> web.Response:
        body = None if answer.body is None else msgspec.json.encode(answer.body)
        response = web.Response(status=answer.status, body=body, headers=answer.headers | self._ids())
        if body is not None:
            response.headers["Content-Type"] = _JSON
        response.headers["Cache-Control"] = "no-store"
        return response

    def _ids(self) -> dict[str, str]:
        return {"request-id": self.request_id, "client-request-id": self.client_request_id}
