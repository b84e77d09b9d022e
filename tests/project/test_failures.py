"""The list of answers says what the code does with each of them."""

from __future__ import annotations

import errno
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.retry.classify import Kind, classify
from shared.retry.errors import PermanentError, dependency_of
from shared.retry.failures import FAILURES, Failure, page
from shared.settings import Settings
from shared.sharepoint.client import GraphClient
from shared.sharepoint.target import about_library
from shared.vision.refusals import refusal
from tests.shared.delivery.harness import LIBRARY
from tests.shared.sharepoint.stub import Reply, Stub
from tests.shared.sharepoint.stub import refusal as graph_refusal
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY: Any = None
WHEN = {
    Kind.TRANSIENT: "again",
    Kind.POSTPONE: "postponed",
    Kind.UNHEALTHY: "released",
    Kind.PERMANENT: "dead letter",
}


def of(side: str) -> list[Failure]:
    return [one for one in FAILURES if one.side == side]


def test_the_page_is_made_of_the_list() -> None:
    assert (ROOT / "docs" / "failures.md").read_text() == page()


@pytest.fixture
async def graph() -> AsyncIterator[Stub]:
    stub = Stub()
    await stub.start()
    yield stub
    await stub.stop()


def reply(answer: str) -> Reply | None:
    status = answer.partition(" ")[0]
    if answer == "no connection":
        return Reply(drop=True)
    if answer == "unreadable":
        return Reply(body="<html>")
    if answer.endswith("Retry-After"):
        return Reply(503, headers={"Retry-After": "1"})
    return graph_refusal(int(status), "x") if status.isdigit() else None


@pytest.mark.parametrize("row", of("SharePoint"), ids=lambda row: row.answer)
async def test_what_sharepoint_answers(graph: Stub, row: Failure) -> None:
    settings = Settings(
        graph_url=f"{graph.url}/v1.0",
        azure_authority=graph.url,
        azure_tenant_id="tenant",
        azure_client_id="a",
        azure_client_secret="s",
    )
    answer = reply(row.answer)
    if row.answer == "sign-in refused":
        graph.on("POST", "/tenant/oauth2/v2.0/token", Reply(401, {"error": "invalid_client"}))
    elif answer is None:
        return  # tests/shared/sharepoint/test_library_settings.py has it
    else:
        graph.on("PATCH", "/v1.0/x", answer)
    async with GraphClient(settings) as client:
        with pytest.raises(Exception) as caught, about_library(LIBRARY):  # noqa: PT011 - any, it is classified
            (await client.send("PATCH", "/x", doing="writing", json={})).decode(dict, "writing")
    kind, name = classify(caught.value), dependency_of(caught.value)
    assert name is not None
    if row.then == "looked at":
        assert getattr(caught.value, "status", None) in (409, 412)
        return
    assert WHEN[kind] == row.then
    if row.concerns != "photo":
        assert ("/" in name) == (row.concerns == "target")


@pytest.mark.parametrize("row", of("vision"), ids=lambda row: row.answer)
def test_what_a_vision_service_answers(row: Failure) -> None:
    bodies = {
        "quota used up": (429, b'{"error": {"code": "insufficient_quota"}}'),
        "content filter": (400, b'{"error": {"code": "content_filter"}}'),
    }
    if row.answer in ("budget used up", "unreadable", "no connection"):
        return  # tests/shared/vision has them
    status, body = bodies.get(row.answer, (0, b""))
    headers = {"Retry-After": "1"} if "Retry-After" in row.answer else {}
    error = refusal(status or int(row.answer[:3]), headers, body)
    assert WHEN[classify(error)] == row.then


@pytest.mark.parametrize(
    ("side", "answer", "error"),
    [
        ("Redis", "no connection", RedisConnectionError()),
        ("Redis", "loading", BusyLoadingError("LOADING")),
        ("Redis", "out of memory", OutOfMemoryError("OOM command not allowed")),
        ("Redis", "read-only", ReadOnlyError("READONLY You can't write")),
        ("Redis", "refused command", ResponseError("WRONGTYPE")),
        ("machine", "disk full", OSError(errno.ENOSPC, "no space")),
        ("machine", "too many open files", OSError(errno.EMFILE, "too many")),
        (
            "machine",
            "TLS certificate",
            aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("expired")),
        ),
        ("machine", "any other error", ZeroDivisionError()),
        ("source", "401", PermanentError("it wants a login")),
        ("source", "no connection", aiohttp.ServerDisconnectedError()),
    ],
)
def test_what_redis_and_the_machine_do(side: str, answer: str, error: Exception) -> None:
    (row,) = [one for one in of(side) if one.answer == answer]
    assert WHEN[classify(error)] == row.then


def test_no_answer_is_listed_twice() -> None:
    assert len({(one.side, one.answer) for one in FAILURES}) == len(FAILURES)
