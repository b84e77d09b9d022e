"""Columns that refuse, changed, or cannot be written: the rest of the photo is filed all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.retry.errors import PermanentError
from tests.shared.sharepoint.desk import FIELDS, Desk

if TYPE_CHECKING:
    from events.types import FieldText


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
