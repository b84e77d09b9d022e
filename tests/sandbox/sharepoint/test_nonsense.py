"""Whatever is sent, the answer is one of Graph's, never an accident of the emulator."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.sandbox.sharepoint.client import LIBRARY, SITE, Graph

WORDS = [
    "root",
    "items",
    "children",
    "content",
    "listItem",
    "fields",
    "delta",
    "delta(token='x')",
    "list",
    "drive",
    "drives",
    "sites",
    "columns",
    "createUploadSession",
    "driveItem",
    "lists",
    "$batch",
    ":",
    "::",
    "..",
    "%2F",
    "%3A",
    "%00",
    "%FF",
    "1",
    "999999999999999999999",
    "a.jpg",
    "Referenzfotos",
    "%F0%9F%8F%97",
]
VALUES: list[Any] = [None, True, 0, -1, 1e308, "", "x", [], ["x"], [None], {}, {"a": 1}, "2026-02-30", 2**70]
QUERIES = [
    "",
    "?$top=x",
    "?$select=,",
    "?$expand=fields(",
    "?$expand=((",
    "?$expand=a(b=c)",
    "?$filter=x",
    "?$skiptoken=e30",
    "?token=W10",
    "?$orderby=x%20y",
]


@pytest.mark.parametrize("seed", range(4))
async def test_odd_addresses(graph: Graph, seed: int) -> None:
    draw = random.Random(seed)
    await graph.upload("a.jpg")
    for _ in range(120):
        start = draw.choice(["", SITE, LIBRARY, graph.drive, f"{graph.drive}/root", f"{LIBRARY}/items/1"])
        rest = draw.choice(["/", ":/", ""]).join(draw.choices(WORDS, k=draw.randint(1, 4)))
        path = f"{start}{draw.choice(['/', ':/'])}{rest}{draw.choice(QUERIES)}"
        method = draw.choice(["GET", "GET", "POST", "PATCH", "PUT", "DELETE"])
        reply = await graph.call(method, path, json=draw.choice([None, *VALUES]))
        assert reply.status < 500, (method, path, reply.data)
        if reply.status >= 400:
            assert reply.code


@pytest.mark.parametrize("seed", range(2))
async def test_odd_values(graph: Graph, seed: int) -> None:
    draw = random.Random(seed)
    await graph.upload("a.jpg")
    row = f"{graph.drive}/root:/a.jpg:/listItem"
    names = [column["name"] for column in (await graph.get(f"{LIBRARY}/columns")).json["value"]]
    for _ in range(120):
        name = draw.choice(names) + draw.choice(["", "", "LookupId"])
        body: dict[str, Any] = {name: draw.choice(VALUES)}
        if draw.random() < 0.5:
            body[f"{name}@odata.type"] = draw.choice(["Collection(Edm.String)", "Collection(Edm.Int32)", 5])
        reply = await graph.patch(f"{row}/fields", body)
        assert reply.status < 500, (body, reply.data)
        if "FileLeafRef" in body and reply.status == 200:
            await graph.patch(f"{graph.drive}/root:/{reply.json['FileLeafRef']}:", {"name": "a.jpg"})
    assert (await graph.get(f"{row}/fields")).status == 200


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b"{}" * 3_000_000])
async def test_bodies_that_are_no_object(graph: Graph, data: bytes) -> None:
    await graph.upload("a.jpg")
    for method, path in (
        ("PATCH", f"{graph.drive}/root:/a.jpg:/listItem/fields"),
        ("POST", f"{graph.drive}/root:/b.jpg:/createUploadSession"),
        ("POST", f"{graph.drive}/root/children"),
        ("POST", "/$batch"),
    ):
        reply = await graph.call(method, path, data=data)
        assert reply.status in ((200, 400) if data == b"" else (400, 413)), (path, reply.data)
