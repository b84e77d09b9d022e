"""What people and other systems may count on when a photo goes into a library, against the emulator."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import pytest

from events.types import Hints
from shared.retry.errors import PermanentError, TransientError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.filing import Filing
from shared.sharepoint.items import read_item
from shared.sharepoint.notes import Memory
from shared.sharepoint.quickxor import quick_xor_hash
from shared.sharepoint.uploads import Uploader
from shared.sharepoint.wire import Hashes
from shared.sharepoint.writing import FieldWriter
from tests.shared.sharepoint.desk import Desk

if TYPE_CHECKING:
    from pathlib import Path

    from events.types import FieldText, PhotoAnalyzed
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.findings import Filed
    from shared.sharepoint.items import Item

FIELDS: dict[str, FieldText] = {
    "Title": "Aufstockung",
    "Bauprojekt": "Schulhaus Brunnen",
    "Bauphase": "Aufrichte",
    "Bauteil": ["Dach", "Tragwerk"],
    "Geb_x00e4_udetyp": "Schulhaus",
    "Aufnahmedatum": "2024-05-12",
    "Beschreibung": "Ein Dach.\nUnd ein Kran.",
    "Gepr_x00fc_ft": False,
    "Geschoss": 2,
}
FIELDS_READ = FIELDS | {"Geschoss": 2.0}
EDITED = "Wurde in SharePoint von Hand geändert; der neue Wert wurde nicht geschrieben."


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


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"Bauphase": "Mondlandung"}, "Bauphase"),
        ({"Geschoss": 99}, "Geschoss"),
        ({"Bauleitung": "Wer"}, "Bauleitung"),
        ({"Bildlegende": "x"}, "Bildlegende"),
        ({"Importkennung": "x"}, "Importkennung"),
        ({"Nirgends": "x"}, "Nirgends"),
    ],
)
async def test_a_value_that_does_not_fit_is_permanent_and_nothing_is_stored(
    desk: Desk, fields: dict[str, FieldText], names: str
) -> None:
    photo = await desk.photo(FIELDS | fields)
    with pytest.raises(PermanentError, match=f"does not take the column '{names}'"):
        await desk.filing.file(photo)
    assert desk.emulator.stored("Erni_Referenzfoto_2024-05-12_" + photo.sha256[:12]) == []


async def test_a_refusal_names_the_column_and_the_rest_is_written(desk: Desk) -> None:
    column = {"name": "Kennwort", "displayName": "Kennwort", "text": {}}
    await desk.emulator.admin("POST", "/lists", {"displayName": "Streng", "columns": [column]})
    async with Desk.opened(
        desk.emulator, desk.emulator.folder / "streng", SHAREPOINT_LIBRARY="Streng"
    ) as strict:
        # v1.0 shows it as text as long as we look; what it is by the time we write is another matter
        await desk.emulator.admin("PUT", "/lists/Streng/columns", column | {"readOnly": True})
        photo = await strict.photo({"Title": "ja", "Kennwort": "x"})
        with pytest.raises(PermanentError, match="'Kennwort': it cannot be written") as caught:
            await strict.filing.file(photo)
        assert "Its columns were changed since the photo was described" in str(caught.value)


async def test_a_column_that_graph_cannot_write_needs_a_person_and_stops_nothing(desk: Desk) -> None:
    column = {"name": "_x00c4_hnliche", "displayName": "Ähnliche", "text": {}}
    await desk.emulator.admin("POST", "/lists", {"displayName": "Umlaute", "columns": [column]})
    where = desk.emulator.folder / "umlaute"
    async with Desk.opened(desk.emulator, where, SHAREPOINT_LIBRARY="Umlaute") as umlauts:
        for number in range(2):
            filed = await umlauts.filing.file(
                await umlauts.photo({"Title": f"Nr. {number}", "_x00c4_hnliche": "x"})
            )
            assert (await umlauts.stored(filed.item.item_id))["Title"] == f"Nr. {number}"
            assert filed.written.refused == ("_x00c4_hnliche",)
            assert [need.column for need in filed.needs_person] == ["Ähnliche"]


async def test_columns_that_changed_harmlessly_do_not_matter(desk: Desk) -> None:
    column = {"name": "Farbe", "choice": {"choices": ["rot", "blau"], "displayAs": "dropDownMenu"}}
    await desk.emulator.admin("POST", "/lists", {"displayName": "Farben", "columns": [column]})
    where = desk.emulator.folder / "farben"
    async with Desk.opened(desk.emulator, where, SHAREPOINT_LIBRARY="Farben") as colours:
        column["choice"] = {"choices": ["blau", "grün"], "displayAs": "dropDownMenu"}
        await desk.emulator.admin("PUT", "/lists/Farben/columns", column)
        await colours.libraries.schema(colours.library, refresh=True)
        filed = await colours.filing.file(await colours.photo({"Farbe": "blau"}))
        assert (await colours.stored(filed.item.item_id))["Farbe"] == "blau"
        with pytest.raises(PermanentError, match="submit the photo again"):
            await colours.filing.file(await colours.photo({"Farbe": "rot"}))


async def test_a_choice_added_since_we_looked_is_found_by_looking_again(desk: Desk) -> None:
    column = {"name": "Farbe", "choice": {"choices": ["rot"], "displayAs": "dropDownMenu"}}
    await desk.emulator.admin("POST", "/lists", {"displayName": "Neue Farben", "columns": [column]})
    where = desk.emulator.folder / "neu"
    async with Desk.opened(desk.emulator, where, SHAREPOINT_LIBRARY="Neue Farben") as worker:
        column["choice"] = {"choices": ["rot", "grün"], "displayAs": "dropDownMenu"}
        await desk.emulator.admin("PUT", "/lists/Neue Farben/columns", column)
        async with Desk.opened(desk.emulator, where, SHAREPOINT_LIBRARY="Neue Farben") as newer:
            photo = await newer.photo({"Farbe": "grün"})
        filed = await worker.filing.file(photo)
        assert (await worker.stored(filed.item.item_id))["Farbe"] == "grün"


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
