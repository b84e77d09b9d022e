"""What was begun and not ended is completed once: dead workers, lost answers, outages, refusals."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shared.retry.errors import TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.items import read_item
from shared.sharepoint.wire import Hashes
from shared.sharepoint.writing import FieldWriter
from tests.shared.sharepoint.desk import FIELDS, FIELDS_READ, Desk

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.findings import Filed
    from shared.sharepoint.items import Item


def _uploads(desk: Desk, filed: Filed) -> list[str]:
    """What was done to the file, by whom."""
    return [f"{e.effect} {e.by}" for e in desk.emulator.effects(filed.item.name)]


async def test_an_item_whose_fields_were_not_written_is_completed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = await desk.photo(FIELDS)

    async def die(*_: object, **__: object) -> None:
        raise ConnectionResetError("the worker died here")

    with monkeypatch.context() as patched:
        patched.setattr(FieldWriter, "write", die)
        with pytest.raises(ConnectionResetError):
            await desk.filing.file(photo)
    filed = await desk.filing.file(photo)
    assert filed.item.outcome == "created"  # it is still this photo's first time
    assert await desk.stored(filed.item.item_id) == FIELDS_READ
    assert (await desk.filing.file(photo)).item.outcome == "unchanged"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_around_its_write_leaves_values_that_still_count_as_ours(
    desk: Desk, when: str
) -> None:
    data = os.urandom(2_000)
    first = await desk.filing.file(await desk.photo(FIELDS, data))
    await desk.emulator.fault(kind="reset", method="PATCH", when=when, times=1)
    second = await desk.photo(FIELDS | {"Bauphase": "Rohbau"}, data, photo_id="p-2")
    with pytest.raises(aiohttp.ClientError):
        await desk.filing.file(second)
    third = await desk.filing.file(await desk.photo(FIELDS | {"Bauphase": "Fundament"}, data, photo_id="p-3"))
    assert third.written.kept == {}
    assert (await desk.stored(first.item.item_id))["Bauphase"] == "Fundament"
    # and from then on the lost write's value is history: a person may choose it
    await desk.emulator.edit(first.item.item_id, Bauphase="Rohbau")
    fourth = await desk.filing.file(await desk.photo(FIELDS, data, photo_id="p-4"))
    assert fourth.written.kept == {"Bauphase": "Rohbau"}


async def test_an_upload_whose_answer_was_lost_is_found_not_repeated(desk: Desk) -> None:
    photo = await desk.photo(FIELDS)
    await desk.emulator.fault(kind="reset", method="PUT", when="after", times=1)
    try:
        filed = await desk.filing.file(photo)
    except aiohttp.ClientError:
        filed = await desk.filing.file(photo)
    assert [e for e in _uploads(desk, filed) if e.startswith("upload")] == ["upload app"]
    assert await desk.stored(filed.item.item_id) == FIELDS_READ


async def test_half_a_file_of_our_own_is_replaced(desk: Desk) -> None:
    data = os.urandom(3_000)
    photo = await desk.photo(FIELDS, data)
    name = (await desk.filing.file(await desk.photo({}, b"to learn the name of", photo_id="x"))).item.name
    stem, _, _ = name.rpartition("_")
    await desk.client.send(
        "PUT",
        f"/drives/{desk.library.drive_id}/root:/{stem}_{photo.sha256[:12]}.jpg:/content",
        doing="leaving half a file",
        data=data[:1_000],
    )
    filed = await desk.filing.file(photo)
    assert filed.item.outcome == "replaced"
    assert [path.read_bytes() for path in desk.emulator.stored(filed.item.name)] == [data]
    assert await desk.stored(filed.item.item_id) == FIELDS_READ


async def test_while_sharepoint_has_no_hash_the_bytes_themselves_tell(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = os.urandom(2_000), os.urandom(2_000)
    first = await desk.filing.file(await desk.photo({}, one))
    async for key in desk.store.keys("sharepoint"):
        await desk.store.delete(f"store:{key}")
    monkeypatch.setattr(Hashes, "quick_xor_hash", None)
    again = await desk.filing.file(await desk.photo({}, one, photo_id="p-2"))
    assert (again.item.item_id, again.item.outcome) == (first.item.item_id, "unchanged")
    assert again.item.quick_xor_hash is None
    other = await desk.photo({}, two)
    name = first.item.name.replace(first.item.name[-16:-4], other.sha256[:12])
    path = f"/drives/{desk.library.drive_id}/root:/{name}:/content"
    await desk.client.send("PUT", path, doing="leaving other bytes", data=one)
    assert (await desk.filing.file(other)).item.outcome == "replaced"


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_an_outage_passes_through_and_the_next_time_completes(desk: Desk, status: int) -> None:
    photo = await desk.photo(FIELDS)
    await desk.emulator.fault(kind=str(status), method="PATCH", times=1, retry_after=0)
    with pytest.raises(GraphError) as caught:
        await desk.filing.file(photo)
    assert caught.value.status == status
    filed = await desk.filing.file(photo)
    assert await desk.stored(filed.item.item_id) == FIELDS_READ


async def test_sharepoint_still_working_on_the_file_is_waited_for(desk: Desk) -> None:
    await desk.emulator.fault(kind="409", method="PATCH", times=2, code="resourceModified")
    filed = await desk.filing.file(await desk.photo(FIELDS))
    assert await desk.stored(filed.item.item_id) == FIELDS_READ


async def test_an_item_that_changes_all_the_time_is_tried_again_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.emulator.fault(kind="412", method="PATCH", times=9)
    numbers = itertools.count()

    async def edited_first(client: GraphClient, drive_id: str, item_id: str) -> Item | None:
        await desk.emulator.edit(item_id, Ort=f"Fassung {next(numbers)}")
        return await read_item(client, drive_id, item_id)

    monkeypatch.setattr("shared.sharepoint.writing.read_item", edited_first)
    with pytest.raises(TransientError, match=r"the item changes while it is written; .*answered 412"):
        await desk.filing.file(await desk.photo(FIELDS))
    await desk.emulator.admin("DELETE", "/fault")


@pytest.mark.parametrize("status", [409, 412])
async def test_nobody_says_that_an_item_changed_which_did_not(desk: Desk, status: int) -> None:
    await desk.emulator.fault(kind=str(status), method="PATCH", times=9)
    with pytest.raises(TransientError, match="refused 5 times, although the item does not change"):
        await desk.filing.file(await desk.photo(FIELDS))
    await desk.emulator.admin("DELETE", "/fault")


async def test_a_file_whose_replacement_is_refused_has_not_changed_either(desk: Desk) -> None:
    one, two = os.urandom(1_500), os.urandom(1_500)
    first = await desk.filing.file(await desk.photo({}, one))
    other = await desk.photo({}, two)
    name = first.item.name.replace(first.item.name[-16:-4], other.sha256[:12])
    path = f"/drives/{desk.library.drive_id}/root:/{name}:/content"
    await desk.client.send("PUT", path, doing="leaving other bytes", data=one)
    await desk.emulator.fault(kind="409", method="PUT", match="/items/.*content", times=9)
    with pytest.raises(TransientError, match="refused 4 times, although it does not change"):
        await desk.filing.file(other)
    await desk.emulator.admin("DELETE", "/fault")
