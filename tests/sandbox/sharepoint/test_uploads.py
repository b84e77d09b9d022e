"""Simple uploads and upload sessions, with the answers to what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from sandbox.sharepoint.app import Options
from sandbox.sharepoint.quick_xor import QuickXor
from sandbox.sharepoint.uploads import ALIGNMENT, MAX_FRAGMENT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sandbox.sharepoint.client import Graph
    from tests.sandbox.sharepoint.conftest import Open

DATA = random.Random(5).randbytes(2 * ALIGNMENT + 1_000)
TOTAL = len(DATA)


def quick_xor(data: bytes) -> str:
    """The hash Graph shall give."""
    quick = QuickXor()
    quick.update(data)
    return quick.base64()


async def test_a_new_file_is_201_and_lies_in_the_folder(graph: Graph, folder: Path) -> None:
    reply = await graph.upload("a.jpg", DATA)
    assert reply.status == 201
    assert reply.json["size"] == TOTAL
    assert reply.json["file"]["hashes"] == {"quickXorHash": quick_xor(DATA)}
    assert (folder / "library" / "Referenzfotos" / "a.jpg").read_bytes() == DATA


async def test_an_upload_is_one_effect_with_hash_and_size(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", DATA)).json
    await graph.upload("a.jpg", b"other")
    created, replaced = await graph.effects()
    assert created["effect"] == replaced["effect"] == "upload"
    assert (created["outcome"], created["sha256"], created["size"]) == (
        "created",
        hashlib.sha256(DATA).hexdigest(),
        TOTAL,
    )
    assert (replaced["outcome"], replaced["item_id"], replaced["seq"]) == ("replaced", item["id"], 2)


async def test_replacing_is_the_default_and_changes_both_tags(graph: Graph) -> None:
    first = (await graph.upload("a.jpg", b"one")).json
    second = await graph.upload("a.jpg", b"two")
    assert (second.status, second.json["id"]) == (200, first["id"])
    assert second.json["eTag"] != first["eTag"]
    assert second.json["cTag"] != first["cTag"]


async def test_fail_and_rename_leave_the_file_alone(graph: Graph) -> None:
    await graph.upload("a.jpg", b"one")
    refused = await graph.upload("A.JPG", b"two", conflict="fail")
    assert (refused.status, refused.code) == (409, "nameAlreadyExists")
    renamed = await graph.upload("a.jpg", b"two", conflict="rename")
    assert (renamed.status, renamed.json["name"]) == (201, "a 1.jpg")
    assert (await graph.upload("a.jpg", conflict="sometimes")).status == 400


async def test_if_match_guards_a_replacement(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", b"one")).json
    assert (await graph.upload("a.jpg", b"two", headers={"If-Match": item["eTag"]})).status == 200
    stale = await graph.upload("a.jpg", b"three", headers={"If-Match": item["eTag"]})
    assert (stale.status, stale.code, stale.inner) == (412, "resourceModified", "entityTagDoesNotMatch")
    absent = await graph.upload("b.jpg", b"three", headers={"If-Match": "*"})
    assert absent.status == 412
    create_only = await graph.upload("a.jpg", b"three", headers={"If-None-Match": "*"})
    assert create_only.status == 412
    assert [effect["effect"] for effect in await graph.effects()] == ["upload", "upload"]


async def test_an_upload_onto_an_item_by_its_id(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", b"one")).json
    reply = await graph.call("PUT", f"{graph.drive}/items/{item['id']}/content", data=b"two")
    assert (reply.status, reply.json["size"]) == (200, 3)


async def test_missing_folders_are_made_on_the_way(graph: Graph) -> None:
    assert (await graph.upload("Seewen/Dach/a.jpg")).status == 201
    assert (await graph.get(f"{graph.drive}/root:/Seewen/Dach")).json["folder"] == {"childCount": 1}


@pytest.mark.parametrize(
    "name",
    [
        'a"b.jpg',
        "a*b.jpg",
        "a<b.jpg",
        "a>b.jpg",
        "a?b.jpg",
        "a\\b.jpg",
        "a|b.jpg",
        "a\x00b.jpg",
        " a.jpg",
        "a.jpg ",
        "~$a.jpg",
        "CON",
        "lpt1",
        "com0",
        ".lock",
        "desktop.ini",
        "a_vti_b.jpg",
        "x" * 252 + ".jpg",
        "folder./a.jpg",
        ("x" * 99 + "/") * 4 + "a.jpg",
    ],
)
async def test_names_that_sharepoint_refuses_are_refused(graph: Graph, name: str) -> None:
    reply = await graph.upload(name)
    assert (reply.status, reply.code) == (400, "invalidRequest")
    assert reply.inner in ("nameContainsInvalidCharacters", "pathIsTooLong")
    assert (await graph.get(f"{graph.drive}/root/children")).json["value"] == []


@pytest.mark.parametrize(
    "name", ["Größe #1 100%.jpg", "x" * 251 + ".jpg", "ä" * 251 + ".jpg", "console.jpg", "a+b&c=d.jpg"]
)
async def test_unusual_names_that_are_allowed_are_kept(graph: Graph, name: str) -> None:
    reply = await graph.upload(name)
    assert (reply.status, reply.json["name"]) == (201, name)
    read = await graph.call("GET", reply.json["@microsoft.graph.downloadUrl"], token=False)
    assert read.data == b"photo"


async def test_a_body_cut_off_by_the_network_leaves_nothing(graph: Graph, folder: Path) -> None:
    host, port = graph.origin.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"PUT /v1.0{graph.drive}/root:/a.jpg:/content HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Authorization: Bearer {graph.token}\r\nContent-Length: 1000\r\n\r\n"
    )
    writer.write(head.encode() + b"x" * 10)
    await writer.drain()
    writer.transport.abort()
    assert (await graph.get(f"{graph.drive}/root/children")).json["value"] == []
    assert await graph.effects() == []
    while list((folder / "state" / "incoming").iterdir()):
        await graph.get(f"{graph.drive}/root")


async def test_a_session_takes_fragments_in_order_and_becomes_a_file(graph: Graph, folder: Path) -> None:
    url = await graph.open_session("x/big.jpg")
    first = await graph.fragment(url, DATA[:ALIGNMENT], 0, TOTAL)
    assert (first.status, first.json["nextExpectedRanges"]) == (202, [f"{ALIGNMENT}-"])
    status = await graph.call("GET", url, token=False)
    assert (status.status, status.json["nextExpectedRanges"]) == (200, [f"{ALIGNMENT}-"])
    last = await graph.fragment(url, DATA[ALIGNMENT:], ALIGNMENT, TOTAL)
    assert (last.status, last.json["file"]["hashes"]["quickXorHash"]) == (201, quick_xor(DATA))
    assert (folder / "library" / "Referenzfotos" / "x" / "big.jpg").read_bytes() == DATA
    kinds = [effect["effect"] for effect in await graph.effects()]
    assert kinds == ["session_created", "folder_created", "upload", "session_finished"]
    gone = await graph.call("GET", url, token=False)
    assert (gone.status, gone.code) == (404, "itemNotFound")


async def test_a_session_is_made_at_a_percent_encoded_address(graph: Graph) -> None:
    path = f"{graph.drive}/items/root%3A%2Fx%2Fbig.jpg%3A/createUploadSession"
    reply = await graph.call("POST", path, json={})
    assert (reply.status, reply.json["nextExpectedRanges"]) == (200, ["0-"])


async def test_a_session_on_an_existing_file_replaces_it(graph: Graph) -> None:
    item = (await graph.upload("a.jpg", b"one")).json
    url = await graph.open_session("a.jpg")
    done = await graph.fragment(url, DATA, 0, TOTAL)
    assert (done.status, done.json["id"]) == (200, item["id"])


@pytest.mark.parametrize(
    ("start", "end", "content_range", "status", "code", "inner"),
    [
        (0, ALIGNMENT, None, 416, "invalidRange", "fragmentOverlap"),
        (2 * ALIGNMENT, TOTAL, None, 416, "invalidRange", "fragmentOutOfOrder"),
        (
            ALIGNMENT,
            TOTAL,
            f"bytes {ALIGNMENT}-{TOTAL - 2}/{TOTAL}",
            416,
            "invalidRange",
            "fragmentLengthMismatch",
        ),
        (ALIGNMENT, TOTAL, f"bytes {ALIGNMENT}-{TOTAL - 1}/{TOTAL + 5}", 400, "invalidRequest", None),
        (ALIGNMENT, TOTAL, f"bytes {ALIGNMENT}-{TOTAL - 1}/{TOTAL - 1}", 416, "invalidRange", None),
        (ALIGNMENT, TOTAL, "bytes 1-2", 400, "invalidRequest", None),
        (ALIGNMENT, TOTAL, "", 400, "invalidRequest", None),
        (
            ALIGNMENT,
            TOTAL,
            f"bytes {ALIGNMENT}-{ALIGNMENT + MAX_FRAGMENT - 1}/{10**9}",
            413,
            "invalidRequest",
            "maxFragmentLengthExceeded",
        ),
    ],
)
async def test_a_wrong_fragment_is_refused_and_does_not_count(
    graph: Graph, start: int, end: int, content_range: str | None, status: int, code: str, inner: str | None
) -> None:
    url = await graph.open_session("a.jpg")
    await graph.fragment(url, DATA[:ALIGNMENT], 0, TOTAL)
    if content_range is None:
        content_range = f"bytes {start}-{end - 1}/{TOTAL}"
    reply = await graph.call(
        "PUT", url, data=DATA[start:end], headers={"Content-Range": content_range}, token=False
    )
    assert (reply.status, reply.code, reply.inner) == (status, code, inner)
    assert "innererror" in reply.json["error"]
    state = await graph.call("GET", url, token=False)
    assert state.json["nextExpectedRanges"] == [f"{ALIGNMENT}-"]


async def test_the_upload_address_refuses_a_token_and_a_changed_signature(graph: Graph) -> None:
    url = await graph.open_session("a.jpg")
    assert (await graph.get(url)).status == 401
    assert (await graph.call("GET", url[:-3] + "xyz", token=False)).status == 404


async def test_a_cancelled_session_is_gone(graph: Graph, folder: Path) -> None:
    url = await graph.open_session("a.jpg")
    await graph.fragment(url, DATA[:ALIGNMENT], 0, TOTAL)
    assert (await graph.call("DELETE", url, token=False)).status == 204
    gone = await graph.fragment(url, DATA[ALIGNMENT:], ALIGNMENT, TOTAL)
    assert (gone.status, gone.inner) == (404, "uploadSessionNotFound")
    assert [effect["effect"] for effect in await graph.effects()] == ["session_created", "session_cancelled"]
    assert list((folder / "state" / "sessions").iterdir()) == []


async def test_an_expired_session_is_gone(open_graph: Open) -> None:
    async with open_graph(Options(session_seconds=0.01)) as graph:
        url = await graph.open_session("a.jpg")
        await asyncio.sleep(0.02)  # the session's own time is what is tested
        gone = await graph.fragment(url, DATA, 0, TOTAL)
        assert (gone.status, gone.code) == (404, "itemNotFound")
    async with open_graph() as graph:
        url = await graph.open_session("a.jpg")
        assert (await graph.admin("POST", "/expire/sessions"))["expired"] == 1
        assert (await graph.fragment(url, DATA, 0, TOTAL)).status == 404


async def test_fail_is_the_default_of_a_session_and_belongs_inside_item(graph: Graph) -> None:
    await graph.upload("a.jpg")
    path = f"{graph.drive}/root:/a.jpg:/createUploadSession"
    taken = await graph.call("POST", path, json={})
    assert (taken.status, taken.code) == (409, "nameAlreadyExists")
    outside = await graph.call("POST", path, json={"@microsoft.graph.conflictBehavior": "replace"})
    assert (outside.status, outside.code) == (400, "invalidRequest")
    other_name = await graph.call("POST", path, json={"item": {"name": "b.jpg"}})
    assert other_name.status == 400


async def test_if_match_guards_a_session(graph: Graph) -> None:
    item = (await graph.upload("a.jpg")).json
    path = f"{graph.drive}/root:/a.jpg:/createUploadSession"
    body = {"item": {"@microsoft.graph.conflictBehavior": "replace"}}
    for tag, status in ((item["cTag"], 200), (item["eTag"], 200), ('"{0},1"', 412)):
        assert (await graph.call("POST", path, json=body, headers={"If-Match": tag})).status == status
        await graph.admin("POST", "/expire/sessions")  # one open session per name


async def test_a_name_taken_meanwhile_shows_at_the_last_byte(graph: Graph) -> None:
    url = await graph.open_session("a.jpg", conflict="fail")
    await graph.fragment(url, DATA[:ALIGNMENT], 0, TOTAL)
    await graph.upload("a.jpg", b"faster")
    late = await graph.fragment(url, DATA[ALIGNMENT:], ALIGNMENT, TOTAL)
    assert (late.status, late.code) == (409, "nameAlreadyExists")
    assert (await graph.get(f"{graph.drive}/root:/a.jpg")).json["size"] == len(b"faster")
    await graph.call("DELETE", f"{graph.drive}/root:/a.jpg")
    committed = await graph.call("POST", url, token=False)
    assert committed.status == 201


async def test_a_deferred_commit_waits_for_its_post(graph: Graph) -> None:
    url = await graph.open_session("a.jpg", deferCommit=True)
    early = await graph.call("POST", url, token=False)
    assert (early.status, early.inner) == (400, "uploadSessionIncomplete")
    all_there = await graph.fragment(url, DATA, 0, TOTAL)
    assert (all_there.status, all_there.json["nextExpectedRanges"]) == (202, [])
    assert (await graph.get(f"{graph.drive}/root:/a.jpg")).status == 404
    assert (await graph.call("POST", url, token=False)).status == 201


async def test_a_fragment_cut_off_by_the_network_does_not_count(graph: Graph) -> None:
    url = await graph.open_session("a.jpg")
    await graph.fragment(url, DATA[:ALIGNMENT], 0, TOTAL)
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    _, writer = await asyncio.open_connection("127.0.0.1", int(port))
    target = url[url.index("/_storage") :]
    head = (
        f"PUT {target} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {ALIGNMENT}\r\n"
        f"Content-Range: bytes {ALIGNMENT}-{2 * ALIGNMENT - 1}/{TOTAL}\r\n\r\n"
    )
    writer.write(head.encode() + DATA[ALIGNMENT : ALIGNMENT + 9_000])
    await writer.drain()
    writer.transport.abort()
    done = await graph.fragment(url, DATA[ALIGNMENT:], ALIGNMENT, TOTAL)
    assert (done.status, done.json["file"]["hashes"]["quickXorHash"]) == (201, quick_xor(DATA))


async def test_sessions_and_their_progress_outlive_a_restart(open_graph: Open) -> None:
    async with open_graph() as graph:
        url = await graph.open_session("a.jpg")
        await graph.fragment(url, DATA[:ALIGNMENT], 0, TOTAL)
    async with open_graph() as graph:
        url = url.replace(url.partition("/_storage")[0], graph.origin)
        done = await graph.fragment(url, DATA[ALIGNMENT:], ALIGNMENT, TOTAL)
        assert (done.status, done.json["size"]) == (201, TOTAL)


@pytest.mark.parametrize("exists", [False, True])
async def test_a_name_has_one_open_session_and_a_second_is_refused_until_it_ends(
    graph: Graph, *, exists: bool
) -> None:
    """Sources: microsoft-graph-docs-contrib issues 412 and 6558, onedrive-api-docs issue 747."""
    if exists:
        await graph.upload("a.jpg", b"one")
    url = await graph.open_session("a.jpg")
    asked = {"item": {"@microsoft.graph.conflictBehavior": "replace", "name": "A.JPG"}}
    path = f"{graph.drive}/root:/A.JPG:/createUploadSession"
    refused = await graph.call("POST", path, json=asked)
    assert (refused.status, refused.code) == (409, "nameAlreadyExists")
    message = "upload session already exists" if exists else "currently being uploaded"
    assert message in refused.json["error"]["message"]
    await graph.open_session("b.jpg")
    assert (await graph.call("DELETE", url, token=False)).status == 204
    again = await graph.call("POST", path, json=asked)
    assert again.status == 200
    await graph.admin("POST", "/expire/sessions")
    assert (await graph.call("POST", path, json=asked)).status == 200


async def test_several_sessions_for_a_name_can_be_allowed(graph: Graph) -> None:
    """Source: "driveItem: createUploadSession" names no limit, and OneDrive for home users has none."""
    await graph.admin("PUT", "/lists/Referenzfotos/settings", {"one_session_per_name": False})
    assert await graph.open_session("a.jpg") != await graph.open_session("a.jpg")


async def test_a_library_may_make_files_longer_than_they_were(graph: Graph) -> None:
    """Source: microsoft-graph-docs-contrib issue 8903 (JPEGs come out 11 to 12 bytes longer)."""
    await graph.admin("PUT", "/lists/Referenzfotos/settings", {"alters_bytes": 12})
    reply = await graph.upload("a.jpg", DATA)
    assert reply.json["size"] == TOTAL + 12
    assert reply.json["file"]["hashes"] == {"quickXorHash": quick_xor(DATA + bytes(12))}
    session = await graph.open_session("b.jpg")
    done = await graph.fragment(session, DATA, 0, TOTAL)
    assert done.json["size"] == TOTAL + 12
