"""What a person did in SharePoint stays: edited values, renamed, deleted and replaced files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shared.sharepoint.writing import FieldWriter
from tests.shared.sharepoint.desk import FIELDS, FIELDS_READ, Desk

if TYPE_CHECKING:
    import pytest

    from events.types import FieldText


EDITED = "Wurde in SharePoint von Hand geändert; der neue Wert wurde nicht geschrieben."


async def test_what_a_person_edited_is_never_overwritten_and_is_told(desk: Desk) -> None:
    data = os.urandom(2_000)
    photo = await desk.photo(FIELDS, data)
    filed = await desk.filing.file(photo)
    await desk.emulator.edit(filed.item.item_id, Bauphase="Innenausbau", Gepr_x00fc_ft=True, Title=None)
    for again in (photo, await desk.photo(FIELDS | {"Bauphase": "Rohbau"}, data, photo_id="p-2")):
        result = await desk.filing.file(again)
        stored = await desk.stored(filed.item.item_id)
        assert (stored["Bauphase"], stored["Gepr_x00fc_ft"], stored.get("Title")) == (
            "Innenausbau",
            True,
            None,
        )
        assert result.written.kept == {"Bauphase": "Innenausbau", "Gepr_x00fc_ft": True, "Title": None}
        assert {(need.column, need.reason) for need in result.needs_person} == {
            ("Bauphase", EDITED),
            ("Geprüft", EDITED),
            ("Titel", EDITED),
        }


async def test_other_columns_are_still_written_beside_an_edited_one(desk: Desk) -> None:
    data = os.urandom(2_000)
    filed = await desk.filing.file(await desk.photo(FIELDS, data))
    await desk.emulator.edit(filed.item.item_id, Bauphase="Innenausbau")
    again = await desk.filing.file(
        await desk.photo(FIELDS | {"Bauphase": "Rohbau", "Geschoss": 3}, data, photo_id="p-2")
    )
    assert again.written.sent == ("Geschoss",)
    stored = await desk.stored(filed.item.item_id)
    assert (stored["Bauphase"], stored["Geschoss"]) == ("Innenausbau", 3.0)


async def test_a_person_that_goes_back_to_an_older_value_of_ours_is_respected(desk: Desk) -> None:
    data = os.urandom(2_000)
    await desk.filing.file(await desk.photo({"Bauphase": "Rohbau"}, data))
    later = await desk.photo({"Bauphase": "Aufrichte"}, data, photo_id="p-2")
    filed = await desk.filing.file(later)
    await desk.emulator.edit(filed.item.item_id, Bauphase="Rohbau")
    again = await desk.filing.file(later)
    assert again.written.kept == {"Bauphase": "Rohbau"}
    assert (await desk.stored(filed.item.item_id))["Bauphase"] == "Rohbau"


async def test_what_a_person_filled_before_we_had_a_value_is_theirs(desk: Desk) -> None:
    data = os.urandom(2_000)
    filed = await desk.filing.file(await desk.photo({"Bauphase": "Rohbau"}, data))
    await desk.emulator.edit(filed.item.item_id, Ort="Goldau")
    again = await desk.filing.file(
        await desk.photo({"Bauphase": "Rohbau", "Ort": "Brunnen"}, data, photo_id="p-2")
    )
    assert again.written.kept == {"Ort": "Goldau"}


async def test_a_value_that_says_nothing_clears_nothing(desk: Desk) -> None:
    data = os.urandom(2_000)
    filed = await desk.filing.file(await desk.photo(FIELDS, data))
    nothing: dict[str, FieldText] = {"Bauphase": None, "Bauteil": [], "Beschreibung": ""}
    again = await desk.filing.file(await desk.photo(nothing, data, photo_id="p-2"))
    assert again.written.sent == ()
    assert await desk.stored(filed.item.item_id) == FIELDS_READ


async def test_an_edit_between_our_read_and_our_write_wins(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(2_000)
    filed = await desk.filing.file(await desk.photo(FIELDS, data))
    patch = FieldWriter._patch
    edits = [{"Bauphase": "Planung"}, {}]

    async def late(self: FieldWriter, *arguments: object, **named: object) -> tuple[str, str]:
        if edits.pop(0):
            await desk.emulator.edit(filed.item.item_id, Bauphase="Planung")
        return await patch(self, *arguments, **named)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(FieldWriter, "_patch", late)
    again = await desk.filing.file(
        await desk.photo(FIELDS | {"Bauphase": "Rohbau", "Geschoss": 4}, data, photo_id="p-2")
    )
    assert again.written.kept == {"Bauphase": "Planung"}
    stored = await desk.stored(filed.item.item_id)
    assert (stored["Bauphase"], stored["Geschoss"]) == ("Planung", 4.0)


async def test_without_its_notes_it_finds_the_item_by_name_and_leaves_what_a_person_wrote(
    desk: Desk,
) -> None:
    data = os.urandom(2_000)
    filed = await desk.filing.file(await desk.photo(FIELDS, data))
    async for key in desk.store.keys("sharepoint"):
        await desk.store.delete(f"store:{key}")
    await desk.emulator.edit(filed.item.item_id, Bauphase="Innenausbau")
    again = await desk.filing.file(
        await desk.photo(FIELDS | {"Bauphase": "Rohbau", "Ort": "Goldau", "Geschoss": 3}, data, photo_id="2")
    )
    assert (again.item.item_id, again.item.outcome) == (filed.item.item_id, "unchanged")
    assert set(again.written.sent) == {"Ort", "Geschoss"}, "the versions show that this was ours"
    assert again.written.kept == {"Bauphase": "Innenausbau"}


async def test_a_renamed_item_is_still_the_picture_and_keeps_its_new_name(desk: Desk) -> None:
    photo = await desk.photo(FIELDS)
    filed = await desk.filing.file(photo)
    await desk.client.send(
        "PATCH",
        f"/drives/{desk.library.drive_id}/items/{filed.item.item_id}",
        doing="renaming",
        json={"name": f"Titelbild {filed.item.name}"},
    )
    again = await desk.filing.file(photo)
    assert again.item.item_id == filed.item.item_id
    assert again.item.name == f"Titelbild {filed.item.name}"
    assert again.item.outcome == "unchanged"


async def test_a_deleted_item_is_made_again_with_all_its_fields(desk: Desk) -> None:
    photo = await desk.photo(FIELDS)
    filed = await desk.filing.file(photo)
    await desk.client.send(
        "DELETE", f"/drives/{desk.library.drive_id}/items/{filed.item.item_id}", doing="deleting"
    )
    again = await desk.filing.file(photo)
    assert again.item.outcome == "created"
    assert again.item.item_id != filed.item.item_id
    assert await desk.stored(again.item.item_id) == FIELDS_READ


async def test_bytes_that_a_person_replaced_are_left_and_told(desk: Desk) -> None:
    photo = await desk.photo(FIELDS)
    filed = await desk.filing.file(photo)
    await desk.client.send(
        "PUT",
        f"/drives/{desk.library.drive_id}/items/{filed.item.item_id}/content",
        doing="replacing",
        data=b"retouched",
    )
    again = await desk.filing.file(photo)
    assert again.item.outcome == "unchanged"
    assert [need.column for need in again.needs_person] == ["Datei"]
    assert [path.read_bytes() for path in desk.emulator.stored(filed.item.name)] == [b"retouched"]
