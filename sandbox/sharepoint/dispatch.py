"""From a call to its answer: token, permission, budget, address, handler. Also batches of calls."""

from __future__ import annotations

import base64
import time
import uuid
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from multidict import CIMultiDict

from sandbox.sharepoint import routes_items, routes_permissions, routes_rows, routes_sites
from sandbox.sharepoint.addressing import ItemTarget, RowTarget, resolve
from sandbox.sharepoint.errors import GraphError, invalid, not_allowed
from sandbox.sharepoint.exchange import Answer, Call
from sandbox.sharepoint.model import timestamp
from sandbox.sharepoint.throttling import cost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sandbox.sharepoint.exchange import Routes
    from sandbox.sharepoint.faults import Hit
    from sandbox.sharepoint.model import JsonObject
    from sandbox.sharepoint.store import Store

MAX_BATCH: Final = 20
MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of a body that is read at once (admin, token form)."""
_CODES: Final = {
    400: "invalidRequest",
    401: "unauthenticated",
    403: "accessDenied",
    404: "itemNotFound",
    409: "nameAlreadyExists",
    410: "resyncRequired",
    412: "resourceModified",
    416: "invalidRange",
    423: "notAllowed",
    429: "activityLimitReached",
    503: "serviceNotAvailable",
    507: "quotaLimitReached",
}
_ROUTES: Final[Routes] = (
    routes_sites.ROUTES | routes_permissions.ROUTES | routes_items.ROUTES | routes_rows.ROUTES
)


def subject_of(store: Store, path: str) -> str:
    """What a path is about: an item's place by name, however it is addressed, else the path itself."""
    try:
        target = resolve(store, path).target
    except GraphError:
        return path
    match target:
        case ItemTarget(record, None, parent, missing):
            return "/".join(filter(None, [record.display_name, store.graph_path(parent), *missing]))
        case ItemTarget(record, item) | RowTarget(record, item) if item and item.parent_id:
            return f"{record.display_name}/{store.graph_path(item)}"
        case _:
            return path


_SAYS: Final = {
    403: "Access denied",
    404: "The resource could not be found.",
    429: "The request has been throttled",
    503: "The service is unavailable.",
    507: "Insufficient Space Available",
}
"""What Graph says beside its code."""


def fault_error(hit: Hit) -> GraphError:
    """Make the refusal for an ordered or daily fault."""
    status = int(hit.kind)
    headers = {} if hit.retry_after is None else {"Retry-After": f"{hit.retry_after:g}"}
    code = hit.code or _CODES.get(status, "generalException" if status >= 500 else "invalidRequest")
    inner = "throttledRequest" if status == 429 else None
    return GraphError(status, code, _SAYS.get(status, "The request failed."), inner, headers)


def error_answer(error: GraphError, call: Call) -> Answer:
    """A refusal as an answer."""
    body = error.body(
        request_id=call.request_id,
        client_request_id=call.client_request_id,
        date=timestamp(time.time()).removesuffix("Z"),
        storage=False,
    )
    return Answer(error.status, body, dict(error.headers))


async def serve(call: Call) -> Answer:
    """The answer to a call; refusals are answers too."""
    try:
        answer = await _handle(call)
    except GraphError as error:
        answer = error_answer(error, call)
    answer.headers |= call.service.budget.headers()
    return answer


async def _handle(call: Call) -> Answer:
    service = call.service
    claims = service.tokens.check(call.headers.get("Authorization"))
    if call.path.strip("/") == "$batch":
        if call.method != "POST":
            raise not_allowed(call.method)
        return await batch(call)
    service.grants.check(claims, writes=call.method != "GET")
    address = call.resolve()
    action = address.action.partition("(")[0]
    if "/" in action:
        action = action.partition("/")[0] + "/"
    service.calls[
        f"{call.method} {action or type(address.target).__name__.removesuffix('Target').lower()}"
    ] += 1
    service.budget.spend(cost(call.method, action, has_token=_has_token(call)))
    methods = _ROUTES.get((type(address.target), action))
    if methods is None:
        raise invalid(f"Resource not found for the segment '{action}'.")
    handler = methods.get(call.method)
    if handler is None:
        raise not_allowed(call.method)
    return await handler(call)


def _has_token(call: Call) -> bool:
    """Whether a delta goes on from somewhere: by an option, or by ``delta(token='…')``."""
    return "(" in call.address.action or any("token" in name for name in call.query)


class _BatchRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: str
    method: str
    url: str
    headers: dict[str, str] = {}
    body: object = None
    depends_on: tuple[str, ...] = ()


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    requests: tuple[_BatchRequest, ...]


async def batch(call: Call) -> Answer:
    """``$batch``: up to 20 requests, each with an answer of its own. Raises GraphError 400.

    Source: "Combine multiple HTTP requests using JSON batching".
    """
    try:
        requests = msgspec.convert(await call.json(), _Batch).requests
    except msgspec.ValidationError as error:
        raise invalid(f"Invalid batch payload format: {error}") from None
    if len(requests) > MAX_BATCH:
        raise invalid(f"Number of batch request steps exceeds the maximum value of {MAX_BATCH}.")
    known: set[str] = set()
    for request in requests:
        if request.id in known or not request.id:
            raise invalid("Request ids in a batch must be unique and not empty.")
        if not known.issuperset(request.depends_on):
            raise invalid(f"Request '{request.id}' depends on a request that does not come before it.")
        known.add(request.id)
    statuses: dict[str, int] = {}
    responses: list[JsonObject] = []
    for request in requests:
        answer = await _one(call, request, statuses)
        statuses[request.id] = answer.status
        response: JsonObject = {"id": request.id, "status": answer.status, "headers": answer.headers}
        if answer.body is not None:
            answer.headers.setdefault("Content-Type", "application/json")
            response["body"] = answer.body
        responses.append(response)
    return Answer(body={"responses": responses})


async def _one(call: Call, request: _BatchRequest, statuses: Mapping[str, int]) -> Answer:
    path, _, query = request.url.partition("?")
    headers = CIMultiDict(request.headers)
    headers.setdefault("Authorization", call.headers.get("Authorization", ""))
    single = Call(
        service=call.service,
        method=request.method.upper(),
        path=unquote(path).strip("/"),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        body=_body(request),
        origin=call.origin,
        request_id=str(uuid.uuid4()),
        client_request_id=headers.get("client-request-id", call.client_request_id),
    )
    failed = [name for name in request.depends_on if statuses[name] >= 400]
    if failed:
        error = GraphError(
            424, "failedDependency", f"The request depends on request '{failed[0]}', which failed."
        )
        return error_answer(error, single)
    faults = call.service.faults
    address = f"/v1.0/{single.path}"
    hit = faults.draw(single.method, address, subject_of(call.service.store, single.path))
    if hit is not None and hit.kind.isdigit() and hit.when == "before":
        faults.log(hit, method=single.method, path=address, request_id=single.request_id)
        return error_answer(fault_error(hit), single)
    return await serve(single)


async def _body(request: _BatchRequest) -> AsyncIterator[bytes]:
    """The body of a request within a batch: JSON as it is, anything else as base64 text."""
    if isinstance(request.body, str):
        try:
            yield base64.b64decode(request.body, validate=True)
        except ValueError:
            raise invalid("A body that is not JSON must be base64.") from None
    elif request.body is not None:
        yield msgspec.json.encode(request.body)
