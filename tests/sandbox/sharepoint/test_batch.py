"""Several requests in one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sharepoint.app import Options
from tests.sandbox.sharepoint.client import LIBRARY, SITE, Graph

if TYPE_CHECKING:
    from tests.sandbox.sharepoint.conftest import Open


async def batch(graph: Graph, *requests: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers by id."""
    reply = await graph.call("POST", "/$batch", json={"requests": requests})
    assert reply.status == 200, reply.data
    return {answer["id"]: answer for answer in reply.json["responses"]}


def get(number: str, url: str, **more: object) -> dict[str, Any]:
    """A GET within a batch."""
    return {"id": number, "method": "GET", "url": url, **more}


async def test_each_request_has_its_own_answer(graph: Graph) -> None:
    await graph.upload("a.jpg", b"photo")
    fields = {
        "id": "2",
        "method": "PATCH",
        "url": f"{graph.drive}/root:/a.jpg:/listItem/fields",
        "headers": {"Content-Type": "application/json"},
        "body": {"Ort": "Goldau"},
    }
    answers = await batch(graph, get("1", SITE), fields, get("3", f"{graph.drive}/root:/missing.jpg"))
    assert [answers[number]["status"] for number in "123"] == [200, 200, 404]
    assert answers["2"]["body"]["Ort"] == "Goldau"
    assert answers["3"]["body"]["error"]["code"] == "itemNotFound"
    assert answers["1"]["headers"]["Content-Type"].startswith("application/json")


async def test_a_file_travels_as_base64_and_comes_back_as_a_redirect(graph: Graph) -> None:
    put = {
        "id": "1",
        "method": "PUT",
        "url": f"{graph.drive}/root:/a.jpg:/content",
        "headers": {"Content-Type": "image/jpeg"},
        "body": base64.b64encode(b"\xff\xd8 photo").decode(),
    }
    content = get("2", f"{graph.drive}/root:/a.jpg:/content", dependsOn=["1"])
    answers = await batch(graph, put, content)
    assert [answers[number]["status"] for number in "12"] == [201, 302]
    plain = await graph.call("GET", answers["2"]["headers"]["Location"], token=False)
    assert plain.data == b"\xff\xd8 photo"


async def test_what_depends_on_a_failure_is_424(graph: Graph) -> None:
    answers = await batch(
        graph,
        get("a", f"{graph.drive}/root:/missing.jpg"),
        get("b", SITE, dependsOn=["a"]),
        get("c", SITE, dependsOn=["b"]),
        get("d", SITE),
    )
    assert [answers[number]["status"] for number in "abcd"] == [404, 424, 424, 200]


@pytest.mark.parametrize(
    "requests",
    [
        [get(str(number), SITE) for number in range(21)],
        [get("1", SITE), get("1", SITE)],
        [get("1", SITE, dependsOn=["2"]), get("2", SITE)],
        [{"id": "1"}],
        "nonsense",
    ],
)
async def test_a_batch_that_is_not_one_is_refused_whole(graph: Graph, requests: object) -> None:
    reply = await graph.call("POST", "/$batch", json={"requests": requests})
    assert (reply.status, reply.code) == (400, "invalidRequest")


async def test_one_request_of_a_batch_can_be_throttled(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "429", "match": "/columns", "retry_after": 7})
    answers = await batch(graph, get("1", f"{LIBRARY}/columns"), get("2", SITE))
    assert [answers[number]["status"] for number in "12"] == [429, 200]
    assert answers["1"]["headers"]["Retry-After"] == "7"


async def test_a_batch_needs_a_token_and_the_site_its_grant(open_graph: Open) -> None:
    async with open_graph(Options(tenant_mode=True)) as graph:
        assert (await batch(graph, get("1", SITE)))["1"]["status"] == 403
        bare = await graph.call("POST", "/$batch", json={"requests": []}, token=False)
        assert bare.status == 401
