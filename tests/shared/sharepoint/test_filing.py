"""What people and other systems may count on when a photo goes into a library, against the emulator."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from events.types import Hints
from shared.sharepoint.filing import Filing
from shared.sharepoint.notes import Memory
from shared.sharepoint.quickxor import quick_xor_hash
from shared.sharepoint.uploads import Uploader
from tests.shared.sharepoint.desk import FIELDS, FIELDS_READ, Desk

if TYPE_CHECKING:
    from pathlib import Path

    from events.types import PhotoAnalyzed
    from shared.sharepoint.findings import Filed


def _uploads(desk: Desk, filed: Filed) -> list[str]:
    """What was done to the file, by whom."""
    return [f"{e.effect} {e.by}" for e in desk.emulator.effects(filed.item.name)]


async def test_a_new_photo_is_stored_with_all_its_fields(desk: Desk) -> None:
    data = os.urandom(50_000)
    filed = await desk.filing.file(await desk.photo(FIELDS, data))
    assert filed.item.outcome == "created"
    assert filed.item.name.startswith("Erni_Referenzfoto_2024-05-12_")
    assert filed.item.quick_xor_hash == quick_xor_hash(data)
    assert await desk.stored(filed.item.item_id) == FIELDS_READ
    assert [path.read_bytes() for path in desk.emulator.stored(filed.item.name)] == [data]
    assert filed.needs_person == []


async def test_a_large_photo_goes_through_an_upload_session(desk: Desk) -> None:
    data = os.urandom(1_000_000)
    small = Uploader(desk.client, simple_limit=100_000, chunk=327_680, backoff=0)
    filing = Filing(desk.client, desk.store, desk.libraries, desk.settings, uploader=small)
    filed = await filing.file(await desk.photo(FIELDS, data))
    assert filed.item.outcome == "created"
    assert [path.read_bytes() for path in desk.emulator.stored(filed.item.name)] == [data]
    assert await desk.stored(filed.item.item_id) == FIELDS_READ


async def test_the_same_photo_again_sends_nothing(desk: Desk) -> None:
    photo = await desk.photo(FIELDS)
    first = await desk.filing.file(photo)
    before = _uploads(desk, first)
    again = await desk.filing.file(photo)
    assert again.item == msgspec.structs.replace(first.item, outcome="unchanged")
    assert again.written.sent == ()
    assert _uploads(desk, first) == before


async def test_another_submission_of_the_picture_is_the_same_item_and_brings_its_new_values(
    desk: Desk,
) -> None:
    data = os.urandom(2_000)
    first = await desk.filing.file(await desk.photo(FIELDS, data, photo_id="p-1"))
    second = await desk.filing.file(
        await desk.photo(
            FIELDS | {"Bauphase": "Rohbau", "Ort": "Brunnen"},
            data,
            photo_id="p-2",
            hints=Hints(taken_at="2020-01-01"),
        )
    )
    assert (second.item.item_id, second.item.outcome) == (first.item.item_id, "unchanged")
    assert set(second.written.sent) == {"Bauphase", "Ort"}
    assert await desk.stored(first.item.item_id) == FIELDS_READ | {"Bauphase": "Rohbau", "Ort": "Brunnen"}


async def test_two_workers_with_the_same_picture_end_with_one_item(desk: Desk, tmp_path: Path) -> None:
    data = os.urandom(5_000)
    async with Desk.opened(desk.emulator, tmp_path) as other:
        desks = [desk, other] * 3
        photos = [
            await each.photo(FIELDS | {"Ort": f"Ort {n % 2}"}, data, photo_id=f"p-{n}")
            for n, each in enumerate(desks)
        ]
        filed = await asyncio.gather(
            *(each.filing.file(photo) for each, photo in zip(desks, photos, strict=True))
        )
    assert len({each.item.item_id for each in filed}) == 1
    assert sorted(each.item.outcome for each in filed) == ["created", *["unchanged"] * 5]
    assert [e for e in _uploads(desk, filed[0]) if e.startswith("upload")] == ["upload app"]
    assert all(each.needs_person == [] for each in filed)  # nobody took a colleague for a person


async def test_pictures_that_only_share_a_file_name_are_two_items(desk: Desk) -> None:
    one, two = [await desk.filing.file(await desk.photo(FIELDS)) for _ in range(2)]
    assert one.item.item_id != two.item.item_id
    assert one.item.name != two.item.name


async def test_one_note_remains_however_often_a_photo_comes(desk: Desk) -> None:
    data = os.urandom(2_000)
    for number in range(4):
        await desk.filing.file(await desk.photo({"Ort": f"Ort {number}"}, data, photo_id=f"p-{number}"))
    keys = [key async for key in desk.store.keys("sharepoint")]
    assert len(keys) == 2
    assert sum(key.endswith("/name.json") for key in keys) == 1


async def test_a_note_that_cannot_be_read_is_none(desk: Desk) -> None:
    photo = await desk.photo(FIELDS)
    filed = await desk.filing.file(photo)
    async for key in desk.store.keys("sharepoint"):
        await desk.store.replace(key, b'{"half')
    again = await desk.filing.file(photo)
    assert (again.item.item_id, again.item.outcome) == (filed.item.item_id, "unchanged")


async def test_of_two_names_for_one_picture_the_first_claim_wins(desk: Desk) -> None:
    photo: PhotoAnalyzed = await desk.photo({})
    memory = Memory(desk.store)
    one, first = await memory.recall(desk.library, photo.sha256, name="a.jpg", photo_id=photo.photo_id)
    two, second = await memory.recall(desk.library, photo.sha256, name="b.jpg", photo_id=photo.photo_id)
    assert (one.name, two.name, first, second) == ("a.jpg", "a.jpg", True, False)
