"""docs/openapi.json is what the gateway serves, and names every route and every problem there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web
from redis.asyncio import Redis

from console.gateway import openapi, problems
from console.gateway.v1 import V1
from shared.settings import Settings
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.console.gateway.conftest import Client

DOCUMENT = openapi.document()


def test_the_copy_in_docs_is_the_document() -> None:
    copy = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert copy == openapi.text(), "python -m console.gateway.openapi > docs/openapi.json"


async def test_the_gateway_serves_it_to_everybody(client: Client) -> None:
    client.key = ""
    answer = await client.ask("GET", "/v1/openapi.json")
    assert (answer.status, answer.document) == (200, DOCUMENT)


async def test_every_route_is_in_it_and_nothing_else() -> None:
    app = web.Application()
    V1(Redis(), Settings()).add_to(app)
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    documented = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert routes == documented


def test_every_problem_is_documented_somewhere() -> None:
    statuses = {
        status
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for status in operation["responses"]
    }
    known = {str(kind.status) for kind in problems.KINDS.values()}
    assert known - statuses == {"405"}  # for methods that are not in the document


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for below in part.values():
            yield from _references(below)
    elif isinstance(part, list):
        for below in part:
            yield from _references(below)


def test_every_reference_leads_somewhere() -> None:
    names = {reference.removeprefix("#/components/schemas/") for reference in _references(DOCUMENT)}
    assert names <= DOCUMENT["components"]["schemas"].keys()
    assert names


@pytest.mark.parametrize("name", ["CloudEvent"])
async def test_the_example_can_be_published(client: Client, name: str) -> None:
    (example,) = DOCUMENT["components"]["schemas"][name]["examples"]
    assert (await client.publish(msgspec.json.encode(example))).status == 202
