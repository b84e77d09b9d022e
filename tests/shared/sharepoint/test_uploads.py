"""Upload sessions, answer by answer, as Graph gives them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shared.retry.errors import PostponeError, TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.items import Item
from shared.sharepoint.uploads import CHUNK, ItemChangedError, NameTakenError, Uploader
from tests.shared.sharepoint.stub import Reply, refusal

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from tests.shared.sharepoint.stub import Stub

STEP = 327_680
DATA = os.urandom(STEP * 2 + 1_000)
CREATE = "/v1.0/drives/d/root:/a.jpg:/createUploadSession"
REPLACE = "/v1.0/drives/d/items/1/createUploadSession"
MADE = Reply(201, {"id": "1", "name": "a.jpg", "size": len(DATA), "eTag": "e"})
LAST_RANGE = f"bytes {2 * STEP}-{2 * STEP + 999}/{len(DATA)}"
ITEM = Item(
    item_id="1",
    name="a.jpg",
    size=3,
    web_url="",
    etag='"{A},7"',
    fields_etag="",
    quick_xor_hash=None,
    fields={},
    touched_by_person=False,
)


def wants(start: int) -> Reply:
    """A chunk is in, or the session says where it is."""
    return Reply(202, {"expirationDateTime": "2026-05-12T08:00:00Z", "nextExpectedRanges": [f"{start}-"]})


@pytest.fixture
def uploader(graph: Stub, client: GraphClient) -> Uploader:
    graph.on(
        "POST", CREATE, Reply(body={"uploadUrl": f"{graph.url}/up/1?sig=x", "nextExpectedRanges": ["0-"]})
    )
    graph.on("POST", REPLACE, Reply(body={"uploadUrl": f"{graph.url}/up/1?sig=x"}))
    return Uploader(client, simple_limit=1_000, chunk=STEP, backoff=0)


def ranges(graph: Stub) -> list[str]:
    return [asked.headers["Content-Range"] for asked in graph.calls("PUT")]


def received(graph: Stub) -> bytes:
    """What a server has that keeps each range it was sent."""
    kept = bytearray(len(DATA))
    for asked in graph.calls("PUT"):
        start = int(asked.headers["Content-Range"].split()[1].partition("-")[0])
        kept[start : start + len(asked.body)] = asked.body
    return bytes(kept)


async def test_a_small_file_is_one_put_that_does_not_overwrite(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/v1.0/drives/d/root:/a.jpg:/content", MADE)
    item = await uploader.create("d", "a.jpg", b"small", "image/jpeg")
    [asked] = graph.calls("PUT")
    assert asked.path.endswith("?@microsoft.graph.conflictBehavior=fail")
    assert (asked.headers["Content-Type"], asked.body) == ("image/jpeg", b"small")
    assert item.item_id == "1"


async def test_a_taken_name_is_told_apart(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/v1.0/drives/d/root:/a.jpg:/content", refusal(409, "nameAlreadyExists"))
    with pytest.raises(NameTakenError):
        await uploader.create("d", "a.jpg", b"small", "image/jpeg")


async def test_a_replacement_names_the_state_it_replaces(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/v1.0/drives/d/items/1/content", MADE)
    await uploader.replace("d", ITEM, b"small", "image/jpeg")
    [asked] = graph.calls("PUT")
    assert asked.headers["If-Match"] == '"{A},7"'
    assert asked.path.endswith("=replace")


@pytest.mark.parametrize("status", [404, 409, 412])
async def test_a_replacement_of_what_has_changed_is_told_apart(
    graph: Stub, uploader: Uploader, status: int
) -> None:
    graph.on("PUT", "/v1.0/drives/d/items/1/content", refusal(status, "resourceModified"))
    graph.on("POST", REPLACE, refusal(status, "resourceModified"))
    for data in (b"small", DATA):
        with pytest.raises(ItemChangedError):
            await uploader.replace("d", ITEM, data, "image/jpeg")


async def test_a_large_file_goes_in_aligned_chunks_without_our_token(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", wants(STEP), wants(2 * STEP), MADE)
    await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert ranges(graph) == [
        f"bytes 0-{STEP - 1}/{len(DATA)}",
        f"bytes {STEP}-{2 * STEP - 1}/{len(DATA)}",
        LAST_RANGE,
    ]
    assert received(graph) == DATA
    assert all("Authorization" not in asked.headers for asked in graph.calls("PUT"))
    [session] = graph.calls("POST", CREATE)
    assert session.json == {
        "item": {"@microsoft.graph.conflictBehavior": "fail", "name": "a.jpg", "fileSize": len(DATA)},
        "deferCommit": False,
    }
    assert graph.calls("DELETE") == []


async def test_a_session_that_replaces_names_the_state_it_replaces(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", wants(STEP), wants(2 * STEP), MADE)
    await uploader.replace("d", ITEM, DATA, "image/jpeg")
    [session] = graph.calls("POST", REPLACE)
    assert session.headers["If-Match"] == '"{A},7"'
    assert session.json["item"]["@microsoft.graph.conflictBehavior"] == "replace"


@pytest.mark.parametrize("trouble", [Reply(503), Reply(500), Reply(504), refusal(429, "x", Retry_After="0")])
@pytest.mark.parametrize("arrived", [False, True])
async def test_after_a_lost_chunk_it_goes_on_where_the_session_is(
    graph: Stub, uploader: Uploader, trouble: Reply, *, arrived: bool
) -> None:
    graph.on("PUT", "/up/1", wants(STEP), trouble, *([] if arrived else [wants(2 * STEP)]), MADE)
    graph.on("GET", "/up/1", wants(2 * STEP if arrived else STEP))
    await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert len(graph.calls("GET", "/up/1")) == 1
    assert ranges(graph)[-1] == LAST_RANGE
    assert received(graph) == DATA


async def test_after_a_cut_connection_too(graph: Stub, uploader: Uploader) -> None:
    cut = Reply(drop=True)
    graph.on("PUT", "/up/1", wants(STEP), cut, cut, wants(2 * STEP), MADE)
    graph.on("GET", "/up/1", cut, wants(STEP))
    await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert received(graph) == DATA


async def test_a_chunk_that_was_in_already_is_skipped(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", wants(STEP), refusal(416, "invalidRange", "fragmentOverlap"), MADE)
    graph.on("GET", "/up/1", wants(2 * STEP))
    await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert ranges(graph)[-1] == LAST_RANGE


@pytest.mark.parametrize("inner", ["fragmentOverlap", "fragmentOutOfOrder", "fragmentLengthMismatch"])
async def test_endless_range_refusals_end(graph: Stub, uploader: Uploader, inner: str) -> None:
    graph.on("PUT", "/up/1", refusal(416, "invalidRange", inner))
    graph.on("GET", "/up/1", wants(0))
    with pytest.raises(TransientError, match="keeps refusing byte 0"):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert len(graph.calls("DELETE", "/up/1")) == 1


async def test_a_session_that_is_gone_is_made_anew_from_the_beginning(
    graph: Stub, uploader: Uploader
) -> None:
    graph.on("PUT", "/up/1", wants(STEP), refusal(404, "itemNotFound"))
    graph.on(
        "POST",
        CREATE,
        Reply(body={"uploadUrl": f"{graph.url}/up/1"}),
        Reply(body={"uploadUrl": f"{graph.url}/up/2"}),
    )
    graph.on("PUT", "/up/2", wants(STEP), wants(2 * STEP), MADE)
    await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert ranges(graph)[2] == f"bytes 0-{STEP - 1}/{len(DATA)}"


async def test_a_session_that_is_gone_again_and_again_is_given_up(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", refusal(404, "itemNotFound"))
    with pytest.raises(TransientError, match="lost the upload session 3 times"):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")


async def test_a_lost_last_answer_makes_the_caller_look(graph: Stub, uploader: Uploader) -> None:
    """The file is there, so its session is gone, and a new one finds the name taken."""
    graph.on("PUT", "/up/1", wants(STEP), wants(2 * STEP), Reply(504))
    graph.on("GET", "/up/1", refusal(404, "itemNotFound"))
    graph.on(
        "POST", CREATE, Reply(body={"uploadUrl": f"{graph.url}/up/1"}), refusal(409, "nameAlreadyExists")
    )
    with pytest.raises(NameTakenError):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")


async def test_a_name_taken_at_the_last_byte_is_told_apart(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", wants(STEP), wants(2 * STEP), refusal(409, "nameAlreadyExists"))
    with pytest.raises(NameTakenError):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert len(graph.calls("DELETE", "/up/1")) == 1  # what was sent is not left lying


async def test_an_outage_is_given_up_after_some_resumptions(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", Reply(503))
    graph.on("GET", "/up/1", wants(0))
    with pytest.raises(GraphError) as caught:
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert caught.value.status == 503
    assert len(graph.calls("PUT")) == 5


async def test_a_dead_connection_passes_through_in_the_end(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", Reply(drop=True))
    graph.on("GET", "/up/1", Reply(drop=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")


async def test_a_long_retry_after_is_not_sat_out(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", refusal(429, "activityLimitReached", Retry_After="60"))
    with pytest.raises(GraphError) as caught:
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert (caught.value.status, caught.value.retry_after) == (429, 60)
    assert len(graph.calls("PUT")) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalidRequest"), (401, "unauthenticated"), (403, "accessDenied"), (413, "x")]
)
async def test_a_refused_chunk_is_final(graph: Stub, uploader: Uploader, status: int, code: str) -> None:
    graph.on("PUT", "/up/1", refusal(status, code))
    with pytest.raises(GraphError) as caught:
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert caught.value.status == status
    assert len(graph.calls("PUT")) == 1


async def test_a_full_quota_and_a_lock_are_what_they_are(graph: Stub, uploader: Uploader) -> None:
    graph.on("POST", CREATE, refusal(507, "quotaLimitReached"), refusal(423, "resourceLocked"))
    with pytest.raises(GraphError, match="storage quota is used up") as caught:
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert caught.value.status == 507
    with pytest.raises(PostponeError):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")


async def test_a_session_that_never_comes_to_an_end_is_given_up(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", wants(len(DATA)))
    with pytest.raises(TransientError, match="SharePoint wants byte"):
        await uploader.create("d", "a.jpg", DATA, "image/jpeg")


async def test_a_session_that_asks_for_less_gets_it_again(graph: Stub, uploader: Uploader) -> None:
    graph.on("PUT", "/up/1", wants(STEP), wants(STEP), wants(2 * STEP), MADE)
    await uploader.create("d", "a.jpg", DATA, "image/jpeg")
    assert ranges(graph)[1] == ranges(graph)[2]
    assert received(graph) == DATA


def test_chunks_are_aligned(client: GraphClient) -> None:
    assert CHUNK % 327_680 == 0
    with pytest.raises(ValueError, match="multiple of 327680"):
        Uploader(client, chunk=1_000_000)
