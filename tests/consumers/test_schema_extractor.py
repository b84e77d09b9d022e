from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from redis.asyncio import Redis

from consumers.schema_extractor import SchemaExtractor
from events.identities import PhotoId, SessionId, derived_photo_id
from events.types import Hints, PhotoSubmitted, Target
from shared.columns.schema import LibrarySchema
from shared.photo_store import BlobStore
from shared.retry.errors import PermanentError
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
async def agent(emulator: Emulator, tmp_path: Path) -> AsyncIterator[SchemaExtractor]:
    redis = Redis()  # never used
    agent = SchemaExtractor(emulator.settings(tmp_path), redis)
    await agent.open()
    yield agent
    await agent.close()
    await redis.aclose()


async def test_a_photo_gets_its_library_and_its_columns(agent: SchemaExtractor) -> None:
    event = await agent.handle(PhotoSubmitted(source_url="file:///a.jpg"))
    assert event.library.library == "Referenzfotos"
    assert event.library.web_url.endswith("/sites/Bau/Referenzfotos")
    stored = await BlobStore(agent.settings.photo_store_url).get(event.schema_ref)
    schema = msgspec.json.decode(stored, type=LibrarySchema)
    assert schema.digest() == event.schema_digest
    kinds = {column.name: column.kind for column in schema.columns}
    assert kinds["Bauprojekt"] == "text"
    assert kinds["Bauteil"] == "multi_choice"
    assert kinds["Geb_x00e4_udetyp"] == "choice"
    assert kinds["Aufnahmedatum"] == "date"
    assert kinds["Projektseite"] == "unsupported"
    writable = {column.name for column in schema.writable}
    assert not writable & {"Bildlegende", "Projektakte", "Bauleitung", "Projektseite", "Importkennung"}
    assert not kinds.keys() & {"ContentType", "Created", "Author", "FileLeafRef", "UniqueId"}


async def test_what_the_upstream_said_travels_on(agent: SchemaExtractor) -> None:
    hints = Hints(project="Schulhaus Brunnen", text="Nordseite")
    submitted = PhotoSubmitted(
        source_url="file:///a.jpg",
        photo_id=PhotoId("foto-7"),
        session_id=SessionId("s-1"),
        file_name="IMG_7.JPG",
        target=Target(site="/sites/Bau", library="Dokumente"),
        hints=hints,
    )
    event = await agent.handle(submitted)
    assert (event.photo_id, event.session_id, event.source_url) == ("foto-7", "s-1", "file:///a.jpg")
    assert (event.file_name, event.hints, event.library.library) == ("IMG_7.JPG", hints, "Dokumente")


async def test_a_photo_without_id_gets_the_same_one_every_time(agent: SchemaExtractor) -> None:
    submitted = PhotoSubmitted(source_url="file:///a.jpg", session_id=SessionId("s-1"))
    event = await agent.handle(submitted)
    assert event.photo_id == derived_photo_id(SessionId("s-1"), "file:///a.jpg")
    assert event == await agent.handle(submitted)


async def test_an_unknown_library_is_permanent_and_names_those_there_are(agent: SchemaExtractor) -> None:
    submitted = PhotoSubmitted(source_url="file:///a.jpg", target=Target(library="Bilder"))
    with pytest.raises(PermanentError, match=r"no library 'Bilder'; it has: Dokumente.*Referenzfotos"):
        await agent.handle(submitted)


async def test_an_unknown_site_is_permanent(agent: SchemaExtractor) -> None:
    submitted = PhotoSubmitted(source_url="file:///a.jpg", target=Target(site="/sites/Nix"))
    with pytest.raises(PermanentError, match="there is no site '/sites/Nix'"):
        await agent.handle(submitted)
