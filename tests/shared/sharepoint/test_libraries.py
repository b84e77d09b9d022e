from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from events.types import Target
from shared.columns.schema import LibrarySchema
from shared.photo_store import BlobStore
from shared.retry.errors import PermanentError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.cache import TtlCache
from shared.sharepoint.libraries import Libraries
from tests.shared.sharepoint.stub import Reply, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shared.settings import Settings
    from shared.sharepoint.client import GraphClient
    from tests.shared.sharepoint.stub import Stub

SITE = "/v1.0/sites/localhost:/sites/Bau"
COLUMNS = "/v1.0/sites/s,1,2/lists/l/columns"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"))


@pytest.fixture
async def libraries(
    graph: Stub, client: GraphClient, settings: Settings, store: BlobStore, clock: Clock
) -> AsyncIterator[Libraries]:
    """Libraries whose time stands still; one site with one library of one column."""
    graph.on("GET", SITE, Reply(body={"id": "s,1,2"}))
    graph.on(
        "GET", "/v1.0/sites/s,1,2/lists", Reply(body={"value": [{"id": "l", "displayName": "Referenzfotos"}]})
    )
    graph.on("GET", "/v1.0/sites/s,1,2/lists/l/drive", Reply(body={"id": "b!1"}))
    graph.on("GET", COLUMNS, Reply(body={"value": [{"name": "Ort", "text": {}}]}))
    libraries = Libraries(client, store, settings, clock=clock)
    yield libraries
    await libraries.close()


async def test_many_photos_at_once_ask_once(graph: Stub, libraries: Libraries) -> None:
    found = await asyncio.gather(*(libraries.resolve(None) for _ in range(30)))
    schemas = await asyncio.gather(*(libraries.schema(library) for library in found))
    assert len({library.list_id for library in found}) == len({each.digest for each in schemas}) == 1
    assert len(graph.calls("GET", SITE)) == len(graph.calls("GET", COLUMNS)) == 1


async def test_columns_are_read_again_when_they_are_old(
    graph: Stub, libraries: Libraries, clock: Clock
) -> None:
    library = await libraries.resolve(None)
    before = await libraries.schema(library)
    graph.on("GET", COLUMNS, Reply(body={"value": [{"name": "Neu", "text": {}}]}))
    clock.now = 299
    assert await libraries.schema(library) == before
    clock.now = 301
    after = await libraries.schema(library)
    assert [column.name for column in after.schema.columns] == ["Neu"]
    assert after.digest != before.digest


async def test_they_can_be_asked_for_anew(graph: Stub, libraries: Libraries) -> None:
    library = await libraries.resolve(None)
    await libraries.schema(library)
    await libraries.schema(library, refresh=True)
    assert len(graph.calls("GET", COLUMNS)) == 2


async def test_the_schema_lies_in_the_store_under_its_digest(libraries: Libraries, store: BlobStore) -> None:
    live = await libraries.schema(await libraries.resolve(None))
    assert live.reference == f"store:schemas/{live.digest}.json"
    stored = msgspec.json.decode(await store.get(live.reference), type=LibrarySchema)
    assert stored == live.schema
    assert stored.digest() == live.digest
    assert stored.time_zone == "Europe/Zurich"


async def test_a_target_wins_over_the_settings(graph: Stub, libraries: Libraries) -> None:
    graph.on("GET", "/v1.0/sites/localhost:/sites/Andere", Reply(body={"id": "s,1,2"}))
    library = await libraries.resolve(Target(site="/sites/Andere"))
    assert (library.site, library.library) == ("/sites/Andere", "Referenzfotos")
    with pytest.raises(PermanentError, match="has no library 'Fotos'; it has: Referenzfotos"):
        await libraries.resolve(Target(library="Fotos"))


async def test_what_does_not_exist_is_asked_for_once_in_a_while(
    graph: Stub, libraries: Libraries, clock: Clock
) -> None:
    for _ in range(3):
        with pytest.raises(PermanentError, match="has no library 'Fotos'"):
            await libraries.resolve(Target(library="Fotos"))
    assert len(graph.calls("GET", "/v1.0/sites/s,1,2/lists")) == 1
    lists = {"value": [{"id": "l", "displayName": "Fotos"}]}
    graph.on("GET", "/v1.0/sites/s,1,2/lists", Reply(body=lists))
    clock.now = 11
    assert (await libraries.resolve(Target(library="Fotos"))).list_id == "l"


async def test_an_outage_is_not_remembered(graph: Stub, libraries: Libraries) -> None:
    graph.on("GET", SITE, refusal(503, "serviceNotAvailable"), Reply(body={"id": "s,1,2"}))
    with pytest.raises(GraphError):
        await libraries.resolve(None)
    assert (await libraries.resolve(None)).list_id == "l"


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [("sharepoint_site", "set SHAREPOINT_SITE"), ("sharepoint_library", "set SHAREPOINT_LIBRARY")],
)
async def test_no_target_anywhere_says_what_to_set(
    client: GraphClient, settings: Settings, store: BlobStore, missing: str, sentence: str
) -> None:
    libraries = Libraries(client, store, msgspec.structs.replace(settings, **{missing: ""}))
    with pytest.raises(PermanentError, match=sentence):
        await libraries.resolve(None)


async def test_who_gives_up_waiting_leaves_the_answer_to_the_others() -> None:
    gate = asyncio.Event()

    async def ask() -> int:
        await gate.wait()
        return 7

    fresh: TtlCache[int] = TtlCache(60)
    impatient, patient = asyncio.create_task(fresh.get("k", ask)), asyncio.create_task(fresh.get("k", ask))
    await asyncio.sleep(0)
    impatient.cancel()
    gate.set()
    assert await patient == 7


async def test_closing_stops_what_is_being_asked() -> None:
    fresh: TtlCache[None] = TtlCache(60)
    waiting = asyncio.create_task(fresh.get("k", asyncio.Event().wait))  # type: ignore[arg-type]  # never answers
    await asyncio.sleep(0)
    await fresh.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
