"""A stored photo is read back over real HTTP, compared, and repaired once at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events.types import FieldValue, NeedsPerson
from shared.reports.readback import ReadBack
from shared.retry.errors import PermanentError, PostponeError
from shared.sharepoint.uploads import Uploader
from tests.shared.reports.sample import picture
from tests.shared.reports.uploads import FIELDS, desk, wilful
from tests.shared.sharepoint.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from shared.reports.readback import Checked
    from shared.settings import Settings
    from tests.shared.reports.uploads import Desk


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One Graph for the tests of this file; each has a picture of its own."""
    running = Emulator(tmp_path_factory.mktemp("graph"), "--budget", "0")
    yield running
    running.stop()


@pytest.fixture
def settings(emulator: Emulator, tmp_path: Path) -> Settings:
    return emulator.settings(tmp_path)


@pytest.fixture
async def at(settings: Settings) -> AsyncIterator[Desk]:
    """A worker's desk."""
    async with desk(settings) as opened:
        yield opened


def _read_back(at: Desk) -> ReadBack:
    return ReadBack(at.client, at.store, at.libraries)


def _line(checked: Checked, column: str) -> tuple[object, object, bool, str | None]:
    line = next(line for line in checked.fields if line.column == column)
    return line.sent, line.stored, line.same, line.cause


def _writes(emulator: Emulator, name: str) -> int:
    """How often an app has written fields of that item."""
    return sum(effect.fields is not None and effect.by == "app" for effect in emulator.effects(name))


async def test_a_photo_that_is_stored_as_sent_is_fine(at: Desk, emulator: Emulator) -> None:
    photo = await at.upload(1)
    before = _writes(emulator, photo.item.name)
    checked = await _read_back(at).check(photo)
    assert all(line.same for line in checked.fields)
    assert {line.column for line in checked.fields if line.sent is not None} == FIELDS.keys()
    assert (checked.file_same, checked.verdict, checked.needs_person) == (True, "ok", [])
    assert checked.item.item_id == photo.item.item_id
    assert _writes(emulator, photo.item.name) == before


async def test_what_the_uploader_left_to_a_person_is_still_asked_for(at: Desk) -> None:
    without = {name: value for name, value in FIELDS.items() if name != "Bauprojekt"}
    need = NeedsPerson(column="Bauprojekt", reason="Zu keinem Projekt eingereicht.")
    checked = await _read_back(at).check(await at.upload(2, fields=without, needs=(need,)))
    assert checked.needs_person == [need]
    assert checked.verdict == "needs_person"


async def test_a_persons_edit_is_reported_and_never_overwritten(at: Desk, emulator: Emulator) -> None:
    photo = await at.upload(3)
    await emulator.edit(photo.item.item_id, Bauphase="Aufrichte")
    before = _writes(emulator, photo.item.name)
    checked = await _read_back(at).check(photo)
    assert _line(checked, "Bauphase") == ("Rohbau", "Aufrichte", False, "edited")
    assert (await at.item(photo)).fields["Bauphase"] == "Aufrichte"
    assert _writes(emulator, photo.item.name) == before
    assert checked.verdict == "ok", "a difference, not a task"


async def test_a_gap_that_a_person_filled_is_no_longer_asked_for(at: Desk, emulator: Emulator) -> None:
    without = {name: value for name, value in FIELDS.items() if name != "Bauprojekt"}
    need = NeedsPerson(column="Bauprojekt", reason="Zu keinem Projekt eingereicht.")
    photo = await at.upload(4, fields=without, needs=(need,))
    await emulator.edit(photo.item.item_id, Bauprojekt="Werkhof Sempach")
    checked = await _read_back(at).check(photo)
    assert _line(checked, "Bauprojekt") == (None, "Werkhof Sempach", True, None)
    assert checked.verdict == "ok"


async def test_values_that_got_lost_are_written_once_more(at: Desk, emulator: Emulator) -> None:
    photo = await at.alter(await at.upload(5), Bauphase="Aushub", Ort=None)
    before = _writes(emulator, photo.item.name)
    checked = await _read_back(at).check(photo)
    assert _line(checked, "Bauphase") == ("Rohbau", "Rohbau", True, "repaired")
    assert _line(checked, "Ort") == ("Seewen", "Seewen", True, "repaired")
    assert checked.verdict == "ok"
    assert _writes(emulator, photo.item.name) == before + 1


async def test_an_edit_that_comes_between_reading_and_repairing_wins(
    settings: Settings, emulator: Emulator, at: Desk
) -> None:
    photo = await at.alter(await at.upload(6), Ort=None)
    edits = [photo.item.item_id]

    async def between(_body: dict[str, Any]) -> None:
        if edits:
            await emulator.edit(edits.pop(), Ort="Küssnacht")

    async with wilful(settings, written=between) as through, desk(through) as other:
        checked = await _read_back(other).check(photo)
    assert _line(checked, "Ort") == ("Seewen", "Küssnacht", False, "edited")
    assert (await at.item(photo)).fields["Ort"] == "Küssnacht"


async def test_a_required_column_that_sharepoint_keeps_altering_is_the_end(
    settings: Settings, emulator: Emulator
) -> None:
    def altered(body: dict[str, Any]) -> None:
        if "Bauprojekt" in body:
            body["Bauprojekt"] = "SCHULHAUS SEEWEN (AUTO)"

    async with wilful(settings, written=altered) as through, desk(through) as at:
        photo = await at.upload(7)
        before = _writes(emulator, photo.item.name)
        with pytest.raises(
            PermanentError, match=r"'Bauprojekt' \(sent 'Schulhaus Seewen', stored 'SCHULHAUS"
        ):
            await _read_back(at).check(photo)
        assert _writes(emulator, photo.item.name) == before + 1, "one repair, no more"


async def test_another_column_that_sharepoint_keeps_altering_needs_a_person(settings: Settings) -> None:
    def altered(body: dict[str, Any]) -> None:
        if "Ort" in body:
            body["Ort"] = str(body["Ort"]).upper()

    async with wilful(settings, written=altered) as through, desk(through) as at:
        checked = await _read_back(at).check(await at.upload(8))
    assert _line(checked, "Ort") == ("Seewen", "SEEWEN", False, "altered")
    assert [need.column for need in checked.needs_person] == ["Ort"]


async def test_an_item_that_somebody_removed_is_a_sentence(at: Desk) -> None:
    photo = await at.upload(9)
    await at.client.send(
        "DELETE", f"/drives/{photo.library.drive_id}/items/{photo.item.item_id}", doing="removing"
    )
    with pytest.raises(PermanentError, match=r"is not there any more.*Submit the photo again"):
        await _read_back(at).check(photo)


async def test_other_bytes_are_noticed(at: Desk) -> None:
    photo = await at.upload(10)
    await Uploader(at.client).replace(
        photo.library.drive_id, await at.item(photo), picture(99, (64, 48)), "image/jpeg"
    )
    checked = await _read_back(at).check(photo)
    assert checked.file_same is False
    assert [need.column for need in checked.needs_person] == ["Datei"]


@pytest.mark.parametrize(("seed", "same"), [(11, True), (12, False)])
async def test_while_sharepoint_has_no_hash_the_bytes_themselves_are_compared(
    settings: Settings, at: Desk, seed: int, *, same: bool
) -> None:
    photo = await at.upload(seed)
    if not same:
        item = await at.item(photo)
        other = bytearray(await at.store.get(photo.dataref))
        other[-20] ^= 1
        await Uploader(at.client).replace(photo.library.drive_id, item, bytes(other), "image/jpeg")

    def without_hash(item: dict[str, Any]) -> None:
        item["file"].pop("hashes")

    async with wilful(settings, told=without_hash) as through, desk(through) as other_desk:
        checked = await _read_back(other_desk).check(photo)
    assert checked.file_same is same


async def test_an_original_whose_retention_is_over_cannot_be_compared(at: Desk) -> None:
    photo = await at.upload(13)
    await at.store.delete(photo.dataref)
    checked = await _read_back(at).check(photo)
    assert (checked.file_same, checked.verdict) == (None, "ok")


async def test_a_choice_that_the_library_no_longer_has_is_pointed_at(
    settings: Settings, emulator: Emulator, at: Desk
) -> None:
    column = {
        "name": "Etappe",
        "displayName": "Etappe",
        "choice": {"allowTextEntry": False, "choices": ["Eins", "Zwei"], "displayAs": "dropDownMenu"},
    }
    await emulator.admin("PUT", "/lists/Referenzfotos/columns", column)
    fields = FIELDS | {"Etappe": FieldValue(value="Zwei", source="vision", confidence=0.9)}
    photo = await at.upload(14, fields=fields)
    await emulator.admin(
        "PUT",
        "/lists/Referenzfotos/columns",
        msgspec.json.decode(msgspec.json.encode(column).replace(b',"Zwei"', b"")),
    )
    async with desk(settings) as later:
        checked = await _read_back(later).check(photo)
    assert [need.column for need in checked.needs_person] == ["Etappe"]
    await emulator.admin("DELETE", "/lists/Referenzfotos/columns/Etappe")


async def test_a_photo_that_waits_for_approval_unseen_by_the_app_waits_and_is_not_called_removed(
    at: Desk, emulator: Emulator
) -> None:
    """A person's edit asks for approval again, and the library hides what waits for it."""
    photo = await at.upload(60)
    name = photo.library.library
    await emulator.admin("PUT", f"/lists/{name}/settings", {"approval": True, "hides_unapproved": True})
    try:
        await emulator.edit(photo.item.item_id, Ort="Goldau")
        with pytest.raises(PostponeError, match="approve the file or grant the app the role 'fullcontrol'"):
            await _read_back(at).check(photo)
    finally:
        await emulator.admin("PUT", f"/lists/{name}/settings", {})
    assert (await _read_back(at).check(photo)).item.item_id == photo.item.item_id
    await at.client.send(
        "DELETE", f"/drives/{photo.library.drive_id}/items/{photo.item.item_id}", doing="removing"
    )
    with pytest.raises(PermanentError, match="somebody removed it"):
        await _read_back(at).check(photo)


async def test_a_photo_that_was_removed_and_stored_again_is_not_called_hidden(at: Desk) -> None:
    photo = await at.upload(61)
    await at.client.send(
        "DELETE", f"/drives/{photo.library.drive_id}/items/{photo.item.item_id}", doing="removing"
    )
    again = await Uploader(at.client).create(photo.library.drive_id, photo.item.name, b"again", "image/jpeg")
    assert again.item_id != photo.item.item_id
    with pytest.raises(PermanentError, match="is not there any more"):
        await _read_back(at).check(photo)
