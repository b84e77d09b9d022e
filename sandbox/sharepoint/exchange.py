"""One request and its answer, without HTTP: the same for a request of its own and for one within a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from sandbox.sharepoint.addressing import Address, Root, resolve
from sandbox.sharepoint.errors import GraphError, invalid
from sandbox.sharepoint.odata import Expansion, option, parse_expand, parse_select
from sandbox.sharepoint.rendering import Renderer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from sandbox.sharepoint.faults import Faults
    from sandbox.sharepoint.grants import Grants
    from sandbox.sharepoint.items import Items
    from sandbox.sharepoint.model import JsonObject
    from sandbox.sharepoint.store import Store
    from sandbox.sharepoint.throttling import Budget
    from sandbox.sharepoint.tokens import Tokens
    from sandbox.sharepoint.uploads import Uploads

MAX_JSON: int = 4 * 1024 * 1024
"""Bytes of a JSON body."""


@dataclass(slots=True)
class Service:
    """All parts of the emulator."""

    store: Store
    items: Items
    uploads: Uploads
    tokens: Tokens
    grants: Grants
    faults: Faults
    budget: Budget
    delta_generation: int = 0
    """Raised by an administrator to make all delta tokens given so far worthless."""
    calls: Counter[str] = field(default_factory=Counter)
    """How often what was asked for: ``PUT content``, ``GET item``."""


@dataclass(slots=True)
class Call:
    """A request. `path` is decoded and below the version, `headers` know no case."""

    service: Service
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]
    origin: str
    request_id: str
    client_request_id: str
    address: Address = field(default_factory=lambda: Address(Root()))

    @property
    def show(self) -> Renderer:
        """What renders the answer."""
        service = self.service
        return Renderer(service.store, service.items, service.tokens, self.origin)

    @property
    def select(self) -> tuple[str, ...] | None:
        """The names of ``$select``."""
        return parse_select(option(self.query, "select"))

    @property
    def expand(self) -> dict[str, Expansion]:
        """What ``$expand`` names. Raises GraphError 400."""
        return parse_expand(option(self.query, "expand"))

    def resolve(self) -> Address:
        """The address as things are now: they may have changed while a body came in."""
        self.address = resolve(self.service.store, self.path)
        return self.address

    async def json(self) -> JsonObject:
        """The body, a JSON object; none at all is an empty one. Raises GraphError 400 or 413."""
        data = bytearray()
        async for piece in self.body:
            data += piece
            if len(data) > MAX_JSON:
                raise GraphError(413, "invalidRequest", "The request is too large.")
        if not data:
            return {}
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise invalid(
                "Write requests (excluding DELETE) must contain the Content-Type header declaration"
                " application/json."
            )
        try:
            return msgspec.json.decode(data, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise invalid("Unable to read JSON request payload.") from None


@dataclass(slots=True)
class Answer:
    """An answer; `body` is encoded as JSON, None sends none; `file` is sent as it is, in part if asked."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None


Handler: TypeAlias = Callable[[Call], Awaitable[Answer]]
Routes: TypeAlias = dict[tuple[type, str], dict[str, Handler]]
"""By the kind of target and what is wanted of it, then by method."""
