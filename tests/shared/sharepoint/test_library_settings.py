"""Libraries that do things by themselves, as a site's owner can set them up, against the emulator."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from events.types import Target
from shared.columns import needs
from shared.retry.errors import PermanentError, PostponeError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.items import find_item
from shared.sharepoint.publication import publish
from shared.sharepoint.writing import FieldWriter
from tests.shared.sharepoint.desk import Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from events.types import FieldText, PhotoAnalyzed
    from shared.sharepoint.findings import Filed
    from shared.sharepoint.items import Item


@asynccontextmanager
async def library(desk: Desk, name: str, *columns: dict[str, Any], **settings: object) -> AsyncIterator[Desk]:
    """A desk at a library of its own that is set up like that."""
    await desk.emulator.admin("POST", "/lists", {"displayName": name, "columns": columns})
    await desk.emulator.admin("PUT", f"/lists/{name}/settings", settings)
    where = desk.emulator.folder / f"store-{name}"
    async with Desk.opened(desk.emulator, where, SHAREPOINT_LIBRARY=name) as there:
        yield there


def effects(desk: Desk, filed: Filed) -> list[str]:
    return [effect.effect for effect in desk.emulator.effects(filed.item.name)]


PLACE = {"name": "Ort", "text": {}}


async def test_bytes_that_sharepoint_alters_are_stored_once_with_fields_and_a_person_is_asked(
    desk: Desk,
) -> None:
    async with library(desk, "Veraendert", PLACE, alters_bytes=12) as altering:
        photo = await altering.photo({"Ort": "Seewen"})
        filed = await altering.filing.file(photo)
        assert effects(desk, filed) == ["upload", "fields"]
        assert [need.code for need in filed.needs_person] == [needs.FILE_ALTERED]
        again = await altering.filing.file(photo)
        assert (again.item.outcome, effects(desk, again)) == ("unchanged", ["upload", "fields"])
        assert [need.code for need in again.needs_person] == [needs.FILE_ALTERED]


async def test_altered_bytes_whose_answer_was_lost_are_not_uploaded_again(desk: Desk) -> None:
    async with library(desk, "Verloren", PLACE, alters_bytes=12) as altering:
        photo = await altering.photo({"Ort": "Seewen"})
        await desk.emulator.fault(kind="reset", method="PUT", when="after", match="/content", times=1)
        try:
            filed = await altering.filing.file(photo)
        except aiohttp.ClientError:
            filed = await altering.filing.file(photo)
        assert effects(desk, filed) == ["upload", "fields"]
        assert [need.code for need in filed.needs_person] == [needs.FILE_ALTERED]


async def test_a_person_who_replaces_an_altered_file_is_still_noticed(desk: Desk) -> None:
    async with library(desk, "Retusche", PLACE, alters_bytes=12) as altering:
        photo = await altering.photo({"Ort": "Seewen"}, os.urandom(1_000))
        filed = await altering.filing.file(photo)
        path = f"/drives/{altering.library.drive_id}/items/{filed.item.item_id}/content"
        await altering.client.send("PUT", path, doing="replacing", data=b"retouched" * 200)
        again = await altering.filing.file(photo)
        assert [need.code for need in again.needs_person] == [needs.FILE_REPLACED]


async def lose_the_upload(there: Desk, photo: PhotoAnalyzed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker die after its upload and before its fields."""

    async def die(*_: object, **__: object) -> None:
        raise ConnectionResetError("the worker died here")

    with monkeypatch.context() as patched:
        patched.setattr(FieldWriter, "write", die)
        with pytest.raises(ConnectionResetError):
            await there.filing.file(photo)


DEFAULTS: list[dict[str, Any]] = [
    {"name": "Tag", "dateTime": {"format": "dateOnly"}, "defaultValue": {"formula": "=[today]"}},
    {
        "name": "Phase",
        "choice": {"displayAs": "dropDownMenu", "choices": ["Rohbau", "Aushub"]},
        "defaultValue": {"value": "Aushub"},
    },
]
OURS: dict[str, FieldText] = {"Tag": "2024-05-12", "Phase": "Rohbau", "Title": "Aufstockung"}


@pytest.mark.parametrize("versions", [True, False])
async def test_a_value_that_sharepoint_computed_is_replaced_after_a_lost_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, versions: bool
) -> None:
    name = f"Vorgaben{versions}"
    async with library(desk, name, *DEFAULTS, title_from_file=True, versions=versions) as there:
        photo = await there.photo(OURS)
        await lose_the_upload(there, photo, monkeypatch)
        filed = await there.filing.file(photo)
        assert await there.stored(filed.item.item_id) == OURS
        assert filed.needs_person == []


@pytest.mark.parametrize("versions", [True, False])
async def test_a_persons_value_is_theirs_even_if_it_is_the_columns_default(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, versions: bool
) -> None:
    """Comparing with the default would take it for SharePoint's."""
    name = f"Person{versions}"
    async with library(desk, name, *DEFAULTS, versions=versions) as there:
        photo = await there.photo(OURS)
        await lose_the_upload(there, photo, monkeypatch)
        item = await find_item(there.client, there.library.drive_id, _name(desk, name))
        assert item is not None
        item_id = item.item_id
        await desk.emulator.edit(item_id, Phase="Rohbau")
        await desk.emulator.edit(item_id, Phase="Aushub", Tag="2024-05-13")
        filed = await there.filing.file(photo)
        assert filed.written.kept == (
            {"Phase": "Aushub", "Tag": "2024-05-13"} if versions else filed.written.kept
        )
        assert {need.code for need in filed.needs_person} == {needs.EDITED}
        assert (await there.stored(item_id))["Phase"] == "Aushub"


async def test_without_versions_and_with_writes_of_ours_a_person_is_asked(desk: Desk) -> None:
    async with library(desk, "Ohne", *DEFAULTS, PLACE, versions=False) as there:
        data = os.urandom(500)
        first = await there.filing.file(await there.photo({"Ort": "Seewen"}, data))
        again = await there.filing.file(await there.photo(OURS, data, photo_id="p-2"))
        assert again.written.unclear == {"Tag", "Phase"}
        assert {(need.column, need.code) for need in again.needs_person} == {
            ("Tag", needs.UNCLEAR),
            ("Phase", needs.UNCLEAR),
        }
        assert (await there.stored(first.item.item_id))["Phase"] == "Aushub"


@pytest.mark.parametrize("setting", ["requires_checkout", "minor_versions"])
async def test_a_photo_is_checked_in_and_published_where_the_library_asks_for_it(
    desk: Desk, setting: str
) -> None:
    async with library(desk, f"Sichtbar-{setting}", PLACE, **{setting: True}) as there:
        data = os.urandom(500)
        for number, place in enumerate(("Seewen", "Goldau")):
            filed = await there.filing.file(await there.photo({"Ort": place}, data, photo_id=f"p-{number}"))
            item = await there.item(filed.item.item_id)
            assert (item.checked_out, item.draft) == ("", False)
            assert item.fields["_UIVersionString"] == f"{number + 1}.0"
            assert (item.fields["Ort"], filed.needs_person) == (place, [])
            assert filed.item.etag == item.fields_etag, "the read-back must see it as untouched"
        before = effects(desk, filed)
        await there.filing.file(await there.photo({"Ort": "Goldau"}, data, photo_id="p-9"))
        assert effects(desk, filed) == before


async def test_a_draft_that_a_dead_worker_left_is_published(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with library(desk, "Entwurf", PLACE, minor_versions=True) as there:
        photo = await there.photo({"Ort": "Seewen"})

        async def die(*_: object) -> None:
            raise ConnectionResetError("the worker died here")

        with monkeypatch.context() as patched:
            patched.setattr("shared.sharepoint.filing.publish", die)
            with pytest.raises(ConnectionResetError):
                await there.filing.file(photo)
        filed = await there.filing.file(photo)
        assert not (await there.item(filed.item.item_id)).draft


async def test_what_waits_for_approval_needs_a_person(desk: Desk) -> None:
    async with library(desk, "Genehmigung", PLACE, approval=True) as there:
        filed = await there.filing.file(await there.photo({"Ort": "Seewen"}))
        assert [need.code for need in filed.needs_person] == [needs.APPROVAL]


async def test_a_photo_that_waits_for_approval_unseen_by_the_app_waits_too(desk: Desk) -> None:
    async with library(desk, "Verborgen", PLACE, approval=True, hides_unapproved=True) as there:
        photo = await there.photo({"Ort": "Seewen"})
        for _ in range(2):
            with pytest.raises(PostponeError, match="requires approval, approve the file or grant"):
                await there.filing.file(photo)


@pytest.mark.parametrize("odata_names", [True, False])
async def test_a_required_column_with_an_underscore_stops_no_photo(desk: Desk, *, odata_names: bool) -> None:
    column = {"name": "_x00c4_hnliche", "displayName": "Ähnliche", "text": {}, "required": True}
    async with library(desk, f"Strich{odata_names}", column, PLACE, odata_names=odata_names) as there:
        filed = await there.filing.file(await there.photo({"_x00c4_hnliche": "x", "Ort": "Seewen"}))
        stored = await there.stored(filed.item.item_id)
        assert (stored["Ort"], stored.get("_x00c4_hnliche")) == ("Seewen", "x" if odata_names else None)
        assert [need.code for need in filed.needs_person] == ([] if odata_names else [needs.NOT_WRITABLE])


async def test_a_value_that_must_be_unique_or_valid_is_a_persons_to_find(desk: Desk) -> None:
    number = {"name": "Nummer", "text": {}, "enforceUniqueValues": True}
    short = {"name": "Kuerzel", "text": {}, "validation": "-"}
    async with library(desk, "Regeln", number, short, PLACE) as there:
        await there.filing.file(await there.photo({"Nummer": "7"}))
        filed = await there.filing.file(await there.photo({"Nummer": "7", "Kuerzel": "x", "Ort": "Seewen"}))
        assert {(need.column, need.code) for need in filed.needs_person} == {
            ("Nummer", needs.REJECTED),
            ("Kuerzel", needs.REJECTED),
        }
        assert (await there.stored(filed.item.item_id)) == {"Ort": "Seewen"}


async def test_a_rich_note_comes_back_as_the_text_that_was_written(desk: Desk) -> None:
    column = {"name": "Text", "text": {"allowMultipleLines": True, "textType": "richText"}}
    async with library(desk, "Rich", column) as there:
        photo = await there.photo({"Text": "Holz & Beton <neu>.\nZweite Zeile"})
        filed = await there.filing.file(photo)
        before = effects(desk, filed)
        again = await there.filing.file(photo)
        assert (effects(desk, again), again.needs_person) == (before, [])
        raw = (await there.item(filed.item.item_id)).fields["Text"]
        assert "Holz &amp; Beton &lt;neu&gt;.<br>Zweite Zeile" in raw


async def test_a_percentage_says_that_it_is_a_share(desk: Desk) -> None:
    column = {"name": "Anteil", "number": {"displayAs": "percentage", "maximum": 1.0}}
    async with library(desk, "Prozent", column) as there:
        found = there.live.schema.column("Anteil")
        assert found is not None
        assert found.percent
        assert "0.6 bedeutet 60 %" in found.description


@pytest.mark.parametrize("template", ["pictureLibrary", "mediaLibrary", "anything"])
async def test_whatever_has_a_drive_is_a_library(desk: Desk, template: str) -> None:
    name = f"Art-{template}"
    await desk.emulator.admin("POST", "/lists", {"displayName": name, "template": template})
    target = Target(library=name)
    assert (await desk.libraries.resolve(target)).library == name
    with pytest.raises(PermanentError, match="has no library 'Bauprojekte'"):
        await desk.libraries.resolve(Target(library="Bauprojekte"))


async def test_a_full_library_postpones_its_photos_and_is_named(desk: Desk) -> None:
    async with library(desk, "Voll", PLACE) as full:
        await desk.emulator.fault(kind="507", method="PUT", match="/content")
        with pytest.raises(PostponeError, match=r"the library 'Voll': .*storage quota is used up"):
            await full.filing.file(await full.photo({}))
        await desk.emulator.admin("DELETE", "/fault")
        await desk.emulator.fault(kind="500", method="PUT", match="/content")
        with pytest.raises(GraphError, match="the library 'Voll': "):
            await full.filing.file(await full.photo({}))
        await desk.emulator.admin("DELETE", "/fault")


def _name(desk: Desk, library_name: str) -> str:
    [path] = (desk.emulator.folder / "library" / library_name).iterdir()
    return path.name


@pytest.mark.parametrize("status", [400, 403, 409])
async def test_a_photo_that_may_not_be_checked_in_is_stored_and_a_person_is_asked(
    desk: Desk, status: int
) -> None:
    async with library(desk, f"Ohne-Einchecken-{status}", PLACE, requires_checkout=True) as there:
        await desk.emulator.fault(kind=str(status), method="POST", match="checkin")
        filed = await there.filing.file(await there.photo({"Ort": "Seewen"}))
        await desk.emulator.admin("DELETE", "/fault")
        assert [need.code for need in filed.needs_person] == [needs.CHECKED_OUT]
        assert await there.stored(filed.item.item_id) == {"Ort": "Seewen"}


@pytest.mark.parametrize("status", [400, 403, 409])
async def test_a_draft_that_may_not_be_published_is_not_left_checked_out(desk: Desk, status: int) -> None:
    """A person could not publish it either while the app has it."""
    async with library(desk, f"Ohne-Hauptversion-{status}", PLACE, minor_versions=True) as there:
        await desk.emulator.fault(kind=str(status), method="POST", match="checkin")
        filed = await there.filing.file(await there.photo({"Ort": "Seewen"}))
        await desk.emulator.admin("DELETE", "/fault")
        assert [need.code for need in filed.needs_person] == [needs.DRAFT]
        item = await there.item(filed.item.item_id)
        assert (item.checked_out, item.draft, item.fields["Ort"]) == ("", True, "Seewen")
        assert filed.item.etag == item.fields_etag, "the read-back must see it as untouched"


@pytest.mark.parametrize("status", [400, 403, 405, 409, 422, 501])
async def test_a_draft_that_may_not_be_checked_out_is_stored_and_a_person_is_asked(
    desk: Desk, status: int
) -> None:
    async with library(desk, f"Ohne-Auschecken-{status}", PLACE, minor_versions=True) as there:
        await desk.emulator.fault(kind=str(status), method="POST", match="checkout")
        filed = await there.filing.file(await there.photo({"Ort": "Seewen"}))
        await desk.emulator.admin("DELETE", "/fault")
        assert [need.code for need in filed.needs_person] == [needs.DRAFT]
        item = await there.item(filed.item.item_id)
        assert (item.checked_out, item.draft, item.fields["Ort"]) == ("", True, "Seewen")


@pytest.mark.parametrize("status", [400, 403, 409])
async def test_fields_that_are_locked_and_may_not_be_checked_out_wait_with_both_reasons(
    desk: Desk, status: int
) -> None:
    async with library(desk, f"Verriegelt-{status}", PLACE) as there:
        await desk.emulator.fault(kind="423", method="PATCH", match="/fields")
        await desk.emulator.fault(kind=str(status), method="POST", match="checkout")
        photo = await there.photo({"Ort": "Seewen"})
        with pytest.raises(
            PostponeError, match=rf"answered 423 .*\(checkout\): SharePoint answered {status}"
        ):
            await there.filing.file(photo)
        await desk.emulator.admin("DELETE", "/fault")
        filed = await there.filing.file(photo)
        assert await there.stored(filed.item.item_id) == {"Ort": "Seewen"}
        assert effects(desk, filed).count("upload") == 1


async def test_a_draft_that_is_removed_before_it_is_published_is_stored_again(desk: Desk) -> None:
    async with library(desk, "Entfernt", PLACE, minor_versions=True) as there:
        await desk.emulator.fault(kind="404", method="POST", match="checkout", times=1)
        filed = await there.filing.file(await there.photo({"Ort": "Seewen"}))
        assert not (await there.item(filed.item.item_id)).draft
        assert filed.needs_person == []


async def test_a_check_out_of_a_person_is_never_discarded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app may discard it, and what the person wrote would be lost."""
    async with library(desk, "Fremd", PLACE, minor_versions=True) as there:
        filed = await there.filing.file(await there.photo({"Ort": "Seewen"}))
        item = await there.item(filed.item.item_id)

        async def taken(*_: object) -> Item:
            return msgspec.structs.replace(item, checked_out="somebody")

        monkeypatch.setattr("shared.sharepoint.publication.read_item", taken)
        await desk.emulator.fault(kind="409", method="POST", match="checkin")
        draft = msgspec.structs.replace(item, draft=True)
        shown = await publish(there.client, there.library.drive_id, draft)
        assert shown.checked_out == "somebody"
        assert effects(desk, filed)[-1] == "checked_out"
