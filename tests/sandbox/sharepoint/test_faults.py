"""Faults by order, the budget of resource units, and the daily troubles of strict mode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import pytest

from sandbox.sharepoint.app import Options
from sandbox.sharepoint.faults import FaultLine, Faults, Hit
from sandbox.sharepoint.journal import Journal
from sandbox.sharepoint.uploads import ALIGNMENT
from tests.sandbox.sharepoint.client import LIBRARY, SITE, Graph

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sandbox.sharepoint.conftest import Open

STRICT = Options(strict=True, seed=3, budget=0)


@pytest.mark.parametrize(
    ("kind", "code", "retry_after"),
    [
        ("429", "activityLimitReached", "2"),
        ("503", "serviceNotAvailable", "2"),
        ("500", "generalException", None),
        ("504", "generalException", None),
        ("423", "notAllowed", None),
        ("507", "quotaLimitReached", None),
    ],
)
async def test_an_ordered_status_is_answered_until_it_is_healed(
    graph: Graph, kind: str, code: str, retry_after: str | None
) -> None:
    await graph.admin("POST", "/fault", {"kind": kind})
    reply = await graph.get(SITE)
    assert (reply.status, reply.code, reply.headers.get("Retry-After")) == (int(kind), code, retry_after)
    assert (await graph.admin("DELETE", "/fault"))["healed"] == 1
    assert (await graph.get(SITE)).status == 200


async def test_the_wait_and_the_code_can_be_chosen(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "503", "retry_after": 120, "code": "serviceReadOnly"})
    reply = await graph.get(SITE)
    assert (reply.headers["Retry-After"], reply.code) == ("120", "serviceReadOnly")


async def test_a_fault_ends_by_itself(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "503", "times": 2})
    assert [(await graph.get(SITE)).status for _ in range(3)] == [503, 503, 200]
    await graph.admin("POST", "/fault", {"kind": "503", "for": 0.05})
    assert (await graph.get(SITE)).status == 503
    deadline = time.monotonic() + 5
    while (await graph.get(SITE)).status != 200:
        assert time.monotonic() < deadline


async def test_a_fault_hits_only_what_it_matches(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "503", "match": "/columns$"})
    await graph.admin("POST", "/fault", {"kind": "500", "method": "PUT"})
    assert (await graph.get(SITE)).status == 200
    assert (await graph.get(f"{LIBRARY}/columns")).status == 503
    assert (await graph.upload("a.jpg")).status == 500
    active = (await graph.admin("GET", "/fault"))["faults"]
    assert [(fault["kind"], fault["hits"]) for fault in active] == [("503", 1), ("500", 1)]
    await graph.admin("DELETE", f"/fault/{active[0]['id']}")
    assert (await graph.get(f"{LIBRARY}/columns")).status == 200


async def test_a_share_hits_some(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "503", "share": 0.5})
    statuses = {(await graph.get(SITE)).status for _ in range(40)}
    assert statuses == {200, 503}


async def test_the_token_endpoint_is_hit_only_if_it_is_meant(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "503"})
    await graph.sign_in()
    await graph.admin("POST", "/fault", {"kind": "503", "match": "oauth2"})
    with pytest.raises(KeyError):
        await graph.sign_in()


async def test_a_reset_breaks_the_connection(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "reset", "method": "PUT"})
    with pytest.raises(aiohttp.ClientError):
        await graph.upload("a.jpg")
    assert await graph.effects() == []


async def test_a_lost_answer_leaves_its_effect(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "reset", "method": "PUT", "when": "after"})
    with pytest.raises(aiohttp.ClientError):
        await graph.upload("a.jpg")
    # aiohttp by itself sends a PUT once more when a connection that it used before breaks
    assert {effect["effect"] for effect in await graph.effects()} == {"upload"}


async def test_the_last_fragments_lost_answer_leaves_a_file_and_no_session(graph: Graph) -> None:
    url = await graph.open_session("a.jpg")
    await graph.admin("POST", "/fault", {"kind": "503", "match": "_storage", "when": "after", "times": 1})
    assert (await graph.fragment(url, b"photo", 0, 5)).status == 503
    assert (await graph.fragment(url, b"photo", 0, 5)).status == 404
    assert (await graph.get(f"{graph.drive}/root:/a.jpg")).json["size"] == 5


async def test_garbage_is_no_json(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "garbage"})
    reply = await graph.get(SITE)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    with pytest.raises(msgspec.DecodeError):
        _ = reply.json


async def test_slow_is_late_and_right(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "slow", "delay": 0.1})
    started = time.monotonic()
    assert (await graph.get(SITE)).status == 200
    assert time.monotonic() - started >= 0.1


async def test_a_stale_etag_is_one_that_the_service_changed_after_answering(graph: Graph) -> None:
    await graph.admin("POST", "/fault", {"kind": "stale_etag", "times": 1})
    answered = (await graph.upload("a.jpg")).json
    item = (await graph.get(f"{graph.drive}/root:/a.jpg")).json
    assert item["eTag"] != answered["eTag"]
    assert (item["cTag"], item["lastModifiedDateTime"]) == (
        answered["cTag"],
        answered["lastModifiedDateTime"],
    )
    assert [(effect["effect"], effect["by"]) for effect in await graph.effects()] == [
        ("upload", "app"),
        ("touched", "service"),
    ]


async def test_every_injected_fault_is_written_down(graph: Graph, folder: Path) -> None:
    await graph.admin("POST", "/fault", {"kind": "429", "retry_after": 9, "times": 1})
    reply = await graph.get(SITE)
    await graph.admin("POST", "/fault", {"kind": "stale_etag", "times": 1})
    await graph.upload("a.jpg")
    lines = [msgspec.json.decode(line) for line in (folder / "faults.jsonl").read_bytes().splitlines()]
    assert [line["kind"] for line in lines] == ["429", "stale_etag"]
    assert lines[0]["request_id"] == reply.headers["request-id"]
    assert lines[0]["retry_after"] == 9
    assert (await graph.admin("GET", "/faults"))["faults"] == lines


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "200"},
        {"kind": "nonsense"},
        {"kind": "503", "share": 2},
        {"kind": "503", "match": "("},
        {"kind": "503", "method": "get"},
        {"kind": "503", "whem": "after"},
        {},
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(graph: Graph, order: dict[str, object]) -> None:
    reply = await graph.call("POST", f"{graph.origin}/_erni/fault", json=order, token=False)
    assert reply.status == 400
    assert reply.json["error"]


async def test_the_budget_warns_from_four_fifths_on_and_then_throttles(open_graph: Open) -> None:
    async with open_graph(Options(budget=20)) as graph:
        spent = 1  # the drive was looked up
        while spent + 1 < 16:
            assert "RateLimit-Limit" not in (await graph.get(SITE)).headers
            spent += 1
        warned = await graph.get(SITE)
        assert (warned.status, warned.headers["RateLimit-Limit"]) == (200, "20")
        assert warned.headers["RateLimit-Remaining"] == "4"
        assert 0 < int(warned.headers["RateLimit-Reset"]) <= 60
        assert (await graph.upload("a.jpg")).status == 201
        assert (await graph.upload("b.jpg")).headers["RateLimit-Remaining"] == "0"
        throttled = await graph.get(SITE)
        assert (throttled.status, throttled.code) == (429, "activityLimitReached")
        assert throttled.headers["Retry-After"] == throttled.headers["RateLimit-Reset"]


async def test_strict_mode_refuses_fragments_that_are_not_aligned(open_graph: Open) -> None:
    async with open_graph(STRICT) as graph:
        url = await graph.open_session("a.jpg")
        odd = await graph.fragment(url, b"x" * 1000, 0, 2000)
        while odd.status in (429, 503):
            odd = await graph.fragment(url, b"x" * 1000, 0, 2000)
        assert (odd.status, odd.code, odd.inner) == (400, "invalidRequest", "fragmentLengthMismatch")


async def test_strict_mode_ships_the_columns_that_clients_stumble_over(open_graph: Open) -> None:
    async with open_graph(Options(budget=0)) as graph:
        before = len((await graph.get(f"{LIBRARY}/columns")).json["value"])
    async with open_graph(STRICT) as graph:
        names = {column["name"] for column in (await graph.get(f"{LIBRARY}/columns")).json["value"]}
    assert len(names) == before + 5
    assert "_x00c4_hnliche" in names


async def test_strict_mode_hits_a_photo_once_and_spares_it_after_the_wait(open_graph: Open) -> None:
    refused: dict[str, int] = {}
    async with open_graph(STRICT) as graph:
        for number in range(150):
            name = f"{number}.jpg"
            reply = await graph.upload(name)
            if reply.status in (429, 503):
                refused[name] = reply.status
                again = await graph.upload(name)  # before the time that Retry-After names
                assert again.status == reply.status
                assert float(again.headers["Retry-After"]) >= 1
        log = (await graph.admin("GET", "/faults"))["faults"]
    assert refused
    assert {"slow", "stale_etag"} <= {line["kind"] for line in log}
    assert all(line.get("order") is None for line in log)


def test_the_same_seed_brings_the_same_troubles(tmp_path: Path) -> None:
    def troubles(seed: int) -> list[Hit | None]:
        faults = Faults(Journal(tmp_path / "faults.jsonl", FaultLine), strict=True, seed=seed)
        return [faults.draw("GET", "/v1.0/sites", str(number)) for number in range(500)]

    assert troubles(3) == troubles(3) != troubles(4)
    assert 0 < sum(hit is not None for hit in troubles(3)) < 100


async def test_in_strict_mode_some_sessions_die_and_the_next_one_holds(open_graph: Open) -> None:
    data = bytes(4 * ALIGNMENT)

    async def try_once(graph: Graph, name: str) -> int:
        url = await graph.open_session(name)
        status = 0
        for start in range(0, len(data), ALIGNMENT):
            status = (await graph.fragment(url, data[start : start + ALIGNMENT], start, len(data))).status
            if status != 202:
                break
        return status

    async with open_graph(STRICT) as graph:
        # nothing but sessions that die: the other troubles are tested above
        await graph.admin("POST", "/fault", {"kind": "slow", "delay": 0})
        statuses = {str(number): await try_once(graph, f"{number}.jpg") for number in range(40)}
        died = [name for name, status in statuses.items() if status == 404]
        assert died
        assert set(statuses.values()) == {201, 404}
        for name in died:
            assert await try_once(graph, f"{name}.jpg") == 201


async def test_in_strict_mode_a_hash_may_be_missing_for_a_moment(open_graph: Open) -> None:
    async with open_graph(STRICT) as graph:
        await graph.admin("POST", "/fault", {"kind": "slow", "delay": 0})
        replies = [(await graph.upload(f"{number}.jpg")).json for number in range(60)]
        late = [item for item in replies if "hashes" not in item["file"]]
        assert 0 < len(late) < 30
        deadline = time.monotonic() + 5
        while "hashes" not in (await graph.get(f"{graph.drive}/items/{late[0]['id']}")).json["file"]:
            assert time.monotonic() < deadline
