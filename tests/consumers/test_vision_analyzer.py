from __future__ import annotations

import hashlib
import io
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from PIL import Image

from consumers.vision_analyzer import VisionAnalyzer
from events.identities import PhotoId, SessionId, Sha256
from events.types import (
    ExifFacts,
    FieldValue,
    Hints,
    LibraryRef,
    NeedsPerson,
    PhotoAnalyzed,
    PhotoFetched,
)
from shared.columns import needs as codes
from shared.photo_store import BlobMissingError, BlobStore
from shared.photos.exif import facts_of
from shared.photos.open import opened
from shared.retry.errors import HttpStatusError, PermanentError
from shared.settings import Settings, SettingsError
from shared.vision.people import CONTRADICTED, HINT
from tests.shared.columns.columns import PHASE, library
from tests.shared.vision import drawings
from tests.shared.vision.recorded import Recorded, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from redis.asyncio import Redis

SCHEMA = library()
LATITUDE, LONGITUDE = (47, 1, 39.36), (8, 37, 57.36)
POSITION = "47.0276, 8.6326"
PEOPLE = "Personen_x0020_erkennbar"
SAID = {
    "bildinhalt": "Eine Uhr.",
    "Bauphase": {"value": None, "confidence": 0},
    "Bauteil": {"value": [], "confidence": 0},
    "Holzart": {"value": None, "confidence": 0},
    "Beschreibung": {"value": "Eine Uhr an der Wand.", "confidence": 0.9},
    "Schlagworte": {"value": ["Uhr"], "confidence": 0.95},
    "Personen_erkennbar": {"value": "Nein", "confidence": 0.9},
    "Qualitaet": {"value": "gut", "confidence": 0.8},
    "Geschoss": {"value": None, "confidence": 0},
}


def photo(picture: Image.Image, *, orientation: int = 1) -> bytes:
    """A JPEG as a phone writes it: date with zone, camera, position, orientation."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Hersteller", "Telefon 3", orientation
    exif.get_ifd(0x8769).update({0x9003: "2024:05:12 14:03:20", 0x9011: "+02:00"})
    exif.get_ifd(0x8825).update({1: "N", 2: LATITUDE, 3: "E", 4: LONGITUDE})
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=90, exif=exif)
    return target.getvalue()


class Desk:
    """A store, and the events that the agents before would have written."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.settings = settings
        self.redis = redis
        self.store = BlobStore(settings.photo_store_url)

    async def fetched(self, original: bytes, **more: Any) -> PhotoFetched:
        """The event for an original, which is put into the store with its facts and the schema."""
        sha256 = Sha256(hashlib.sha256(original).hexdigest())
        with opened(original) as open_photo:
            header, facts = open_photo.header, facts_of(open_photo)
        values: dict[str, Any] = {
            "photo_id": PhotoId("p-1"),
            "session_id": SessionId("s-1"),
            "source_url": "file:///photos/a.jpg",
            "file_name": "a.jpg",
            "hints": Hints(project="Schulhaus Brunnen"),
            "library": LibraryRef(
                site_id="s",
                list_id="l",
                drive_id="d",
                site="/sites/Bau",
                library="Referenzfotos",
                web_url="w",
            ),
            "schema_digest": SCHEMA.digest(),
            "schema_ref": await self.store.put("schemas/1.json", msgspec.json.encode(SCHEMA)),
            "dataref": await self.store.put(f"originals/{sha256}", original),
            "sha256": sha256,
            "size": len(original),
            "media_type": header.media_type,
            "width": header.width,
            "height": header.height,
            "orientation": facts.orientation,
            "exif": ExifFacts(
                taken_at=facts.taken_at,
                camera=facts.camera,
                has_position=facts.position is not None,
                reference=await self.store.put(f"facts/{sha256}.json", msgspec.json.encode(facts)),
            ),
        }
        return PhotoFetched(**(values | more))

    @asynccontextmanager
    async def agent(self, **settings: Any) -> AsyncIterator[VisionAnalyzer]:
        """The agent, opened as the machinery opens it."""
        agent = VisionAnalyzer(msgspec.structs.replace(self.settings, **settings), self.redis)
        await agent.open()
        try:
            yield agent
        finally:
            await agent.close()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path: Path, cache_dir: Path, redis: Redis) -> Desk:
    return Desk(Settings(photo_store_url=str(tmp_path / "store"), cache_dir=str(cache_dir)), redis)


@pytest.fixture
async def service() -> AsyncIterator[Recorded]:
    async with serving() as recorded:
        yield recorded
        assert recorded.unused == 0


def paid(service: Recorded) -> dict[str, Any]:
    """The settings that ask the recorded service."""
    return {"vision_backend": "openai", "vision_url": f"{service.url}/v1", "vision_model": "test-vision"}


async def test_every_source_fills_its_fields(desk: Desk) -> None:
    async with desk.agent() as agent:
        event = await agent.handle(await desk.fetched(photo(drawings.clock())))
    fields = {name: (field.value, field.source) for name, field in event.fields.items()}
    assert fields["Bauprojekt"] == ("Schulhaus Brunnen", "hint")
    assert fields["Aufnahmedatum"] == ("2024-05-12", "exif")
    assert fields["Ort"] == (POSITION, "exif")
    assert fields["Schlagworte"] == (["Uhr"], "vision")
    assert fields["Bauphase"] == ("Prüfen", "vision")
    assert fields["Geprüft"] == (False, "default")
    assert "Geschoss" not in fields
    assert event.needs_person == []
    assert event.analysis.model == "efficientnet-lite0"
    assert not event.analysis.cached


async def test_the_event_survives_the_wire_and_carries_what_came_before(desk: Desk) -> None:
    before = await desk.fetched(photo(drawings.clock()))
    async with desk.agent() as agent:
        event = await agent.handle(before)
    assert msgspec.json.decode(msgspec.json.encode(event), type=PhotoAnalyzed) == event
    assert {name: getattr(event, name) for name in before.__struct_fields__} == msgspec.structs.asdict(before)


async def test_the_preview_is_small_upright_and_says_nothing_of_where_it_was_taken(desk: Desk) -> None:
    original = photo(drawings.picket_fence().resize((3000, 2250)), orientation=6)
    async with desk.agent() as agent:
        event = await agent.handle(await desk.fetched(original))
    assert event.preview_ref == f"store:previews/{event.sha256}.jpg"
    stored = await desk.store.get(event.preview_ref)
    with Image.open(io.BytesIO(stored)) as preview:
        assert preview.size == (768, 1024)
        assert dict(preview.getexif()) == {}
    assert "Hochformat mit 2250 × 3000 Pixeln" in str(event.fields["Beschreibung"].value)  # noqa: RUF001  the sign people write


async def test_the_model_gets_the_preview_the_hints_and_no_position(desk: Desk, service: Recorded) -> None:
    service.completion(SAID)
    original = photo(drawings.clock().resize((2000, 2000)))
    async with desk.agent(**paid(service), vision_preview_side=512) as agent:
        event = await agent.handle(await desk.fetched(original))
    assert event.fields[PEOPLE] == FieldValue(value="Nein", source="vision", confidence=0.9)
    assert event.fields["Ort"].value == POSITION
    assert (event.analysis.prompt_tokens, event.analysis.completion_tokens) == (1400, 120)
    [request] = service.requests
    assert "- Projekt: Schulhaus Brunnen" in request.text
    assert "- Aufgenommen: 2024-05-12T14:03:20+02:00" in request.text
    assert "- Kamera: Hersteller Telefon 3" in request.text
    assert b"47.02" not in request.body
    assert b"a.jpg" not in request.body


async def test_the_same_picture_again_costs_nothing(desk: Desk, service: Recorded) -> None:
    service.completion(SAID)
    original = photo(drawings.clock())
    first = await desk.fetched(original)
    again = msgspec.structs.replace(
        first, photo_id=PhotoId("p-2"), session_id=SessionId("s-2"), file_name="other name.jpg"
    )
    async with desk.agent(**paid(service)) as one, desk.agent(**paid(service)) as other:
        events = [await one.handle(first), await one.handle(first), await other.handle(again)]
    assert [event.analysis.cached for event in events] == [False, True, True]
    assert [event.analysis.prompt_tokens for event in events] == [1400, 0, 0]
    assert events[0].fields == events[1].fields == events[2].fields
    assert len(service.requests) == 1


async def test_another_project_is_another_question(desk: Desk, service: Recorded) -> None:
    service.completion(SAID)
    service.completion(SAID)
    first = await desk.fetched(photo(drawings.clock()))
    async with desk.agent(**paid(service)) as agent:
        await agent.handle(first)
        other = await agent.handle(msgspec.structs.replace(first, hints=Hints(project="Werkhalle Goldau")))
    assert not other.analysis.cached
    assert other.fields["Bauprojekt"].value == "Werkhalle Goldau"


async def test_a_failed_question_is_asked_again_at_the_next_attempt(desk: Desk, service: Recorded) -> None:
    service.answer(503, "", {"Retry-After": "1"})
    service.completion(SAID)
    event = await desk.fetched(photo(drawings.clock()))
    async with desk.agent(**paid(service)) as agent:
        with pytest.raises(HttpStatusError):
            await agent.handle(event)
        assert not (await agent.handle(event)).analysis.cached


@pytest.mark.parametrize(
    ("damage", "error"),
    [(lambda data: data[: len(data) // 2], PermanentError), (lambda _: b"<html>", PermanentError)],
    ids=["truncated", "a web page"],
)
async def test_an_original_that_is_no_picture_is_final(
    desk: Desk, damage: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    original = photo(drawings.clock())
    event = await desk.fetched(original)
    await desk.store.replace(f"originals/{event.sha256}", damage(original))
    async with desk.agent() as agent:
        with pytest.raises(error):
            await agent.handle(event)


async def test_an_original_that_is_gone_is_told(desk: Desk) -> None:
    event = await desk.fetched(photo(drawings.clock()))
    await desk.store.delete(event.dataref)
    async with desk.agent() as agent:
        with pytest.raises(BlobMissingError, match="retention over"):
            await agent.handle(event)


async def test_a_photo_without_facts_in_the_store_has_those_of_its_event(desk: Desk) -> None:
    event = await desk.fetched(
        photo(drawings.clock()), exif=ExifFacts(taken_at="2023-01-02T03:04:05"), hints=Hints(place="Seewen")
    )
    async with desk.agent() as agent:
        analyzed = await agent.handle(event)
    assert analyzed.fields["Aufnahmedatum"].value == "2023-01-02"
    assert analyzed.fields["Ort"].value == "Seewen"
    assert [need.column for need in analyzed.needs_person] == ["Bauprojekt"]


async def test_a_face_is_a_hint_that_a_person_is_asked_to_look_at(desk: Desk) -> None:
    async with desk.agent(vision_faces=True) as agent:
        event = await agent.handle(await desk.fetched(photo(drawings.face())))
    found = event.fields[PEOPLE]
    assert (found.value, found.source) == ("Prüfen", "vision")
    assert 0.9 < found.confidence < 1
    assert event.needs_person == [NeedsPerson(column="Personen erkennbar", reason=HINT, code=codes.PEOPLE)]


async def test_no_face_is_no_answer(desk: Desk) -> None:
    fetched = await desk.fetched(photo(drawings.clock()))
    async with desk.agent() as without, desk.agent(vision_faces=True) as agent:
        expected, event = await without.handle(fetched), await agent.handle(fetched)
    assert event.fields == expected.fields
    assert event.needs_person == expected.needs_person == []


async def test_a_no_of_the_model_where_a_face_was_seen_is_for_a_person_to_look_at(
    desk: Desk, service: Recorded
) -> None:
    service.completion(SAID)
    async with desk.agent(**paid(service), vision_faces=True) as agent:
        event = await agent.handle(await desk.fetched(photo(drawings.face())))
    assert event.fields[PEOPLE].value == "Prüfen"
    [need] = event.needs_person
    assert need.reason == CONTRADICTED.format(said="Nein")


async def test_a_yes_of_the_model_stays(desk: Desk, service: Recorded) -> None:
    service.completion(SAID | {"Personen_erkennbar": {"value": "Ja", "confidence": 0.9}})
    async with desk.agent(**paid(service), vision_faces=True) as agent:
        event = await agent.handle(await desk.fetched(photo(drawings.face())))
    assert event.fields[PEOPLE] == FieldValue(value="Ja", source="vision", confidence=0.9)
    assert event.needs_person == []


async def test_to_switch_the_hint_on_or_off_asks_the_model_nothing_again(
    desk: Desk, service: Recorded
) -> None:
    service.completion(SAID)
    fetched = await desk.fetched(photo(drawings.face()))
    events = []
    for faces in (False, True, False, True):
        async with desk.agent(**paid(service), vision_faces=faces) as agent:
            events.append(await agent.handle(fetched))
    assert len(service.requests) == 1
    assert [event.analysis.cached for event in events] == [False, True, True, True]
    assert [event.fields[PEOPLE].value for event in events] == ["Nein", "Prüfen", "Nein", "Prüfen"]
    assert [len(event.needs_person) for event in events] == [0, 1, 0, 1]
    plain, looked = (event.analysis.prompt_version for event in events[:2])
    assert looked == f"{plain}-faces.1"
    assert [event.analysis.prompt_version for event in events[2:]] == [plain, looked]


async def test_a_library_without_a_column_about_people_is_not_looked_at_for_faces(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = library(PHASE)
    fetched = await desk.fetched(
        photo(drawings.face()),
        schema_digest=schema.digest(),
        schema_ref=await desk.store.put("schemas/2.json", msgspec.json.encode(schema)),
    )
    async with desk.agent(vision_faces=True) as agent:
        assert agent._faces is not None
        monkeypatch.setattr(agent._faces, "look", None)
        event = await agent.handle(fetched)
    assert "faces" not in event.analysis.prompt_version


@pytest.mark.parametrize("backend", ["local", "openai"])
def test_without_the_extra_the_agent_does_not_start_and_says_what_to_install(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    settings = msgspec.structs.replace(
        desk.settings, vision_backend=backend, vision_model="m", vision_faces=True
    )
    monkeypatch.setitem(sys.modules, "shared.vision.local.faces", None)
    with pytest.raises(SettingsError, match=r"pip install 'erni-foto-agency\[vision-faces\]'"):
        VisionAnalyzer(settings, desk.redis)
