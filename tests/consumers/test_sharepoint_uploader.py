from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from redis.asyncio import Redis

from consumers.sharepoint_uploader import SharepointUploader
from events.types import NeedsPerson, PhotoUploaded
from shared.retry.errors import PermanentError
from tests.shared.sharepoint.desk import Desk
from tests.shared.sharepoint.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    running = Emulator(tmp_path_factory.mktemp("graph"))
    yield running
    running.stop()


@pytest.fixture
async def desk(emulator: Emulator, tmp_path: Path) -> AsyncIterator[Desk]:
    """Another look at the library, and a store with pictures."""
    async with Desk.opened(emulator, tmp_path) as desk:
        yield desk


@pytest.fixture
async def agent(desk: Desk) -> AsyncIterator[SharepointUploader]:
    redis = Redis()  # never used
    agent = SharepointUploader(desk.settings, redis)
    await agent.open()
    yield agent
    await agent.close()
    await redis.aclose()


async def test_a_described_photo_becomes_an_item_and_the_event_goes_on(
    agent: SharepointUploader, desk: Desk
) -> None:
    photo = await desk.photo({"Bauphase": "Rohbau", "Bauteil": ["Dach"]})
    event = await agent.handle(photo)
    assert isinstance(event, PhotoUploaded)
    for name in photo.__struct_fields__:
        assert getattr(event, name) == getattr(photo, name)
    assert event.item.outcome == "created"
    assert event.item.web_url.endswith(event.item.name)
    stored = await desk.stored(event.item.item_id)
    assert (stored["Bauphase"], stored["Bauteil"]) == ("Rohbau", ["Dach"])


async def test_a_second_submission_is_unchanged(agent: SharepointUploader, desk: Desk) -> None:
    data = b"the same picture" * 100
    first = await agent.handle(await desk.photo({"Ort": "Seewen"}, data))
    second = await agent.handle(await desk.photo({"Ort": "Seewen"}, data, photo_id="p-2"))
    assert (first.item.outcome, second.item.outcome) == ("created", "unchanged")
    assert first.item.item_id == second.item.item_id


async def test_what_a_person_must_see_is_added_to_the_list(agent: SharepointUploader, desk: Desk) -> None:
    known = NeedsPerson(column="Bauprojekt", reason="Kein Hinweis.")
    photo = msgspec.structs.replace(await desk.photo({"Ort": "Seewen"}), needs_person=[known])
    event = await agent.handle(photo)
    await desk.emulator.edit(event.item.item_id, Ort="Goldau")
    again = await agent.handle(photo)
    assert [need.column for need in again.needs_person] == ["Bauprojekt", "Ort"]


async def test_a_value_that_does_not_fit_is_permanent_and_names_its_column(
    agent: SharepointUploader, desk: Desk
) -> None:
    with pytest.raises(PermanentError, match="'Bauphase': «Mondlandung» ist keine Auswahl"):
        await agent.handle(await desk.photo({"Bauphase": "Mondlandung"}))


async def test_a_file_name_template_that_cannot_be_used_stops_the_start(desk: Desk) -> None:
    redis = Redis()  # never used
    settings = msgspec.structs.replace(desk.settings, file_name_template="{wetter}.{ext}")
    with pytest.raises(PermanentError, match="FILE_NAME_TEMPLATE uses 'wetter'"):
        await SharepointUploader(settings, redis).open()
    await redis.aclose()
