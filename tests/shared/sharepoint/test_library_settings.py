"""Libraries that do things by themselves, as a site's owner can set them up, against the emulator."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from shared.columns import needs
from tests.shared.sharepoint.desk import Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.sharepoint.filing import Filed


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
