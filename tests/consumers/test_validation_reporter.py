"""The last agent: a stored photo becomes a verdict and a report, a complete session becomes a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from consumers.validation_reporter import ValidationReporter
from events import topology
from events.codec import Envelope
from events.connection import connect
from events.identities import SessionId
from events.types import FieldValue, NeedsPerson, SessionCompleted, SessionReported, Step
from events.types import PhotoValidated as Validated
from shared.delivery.agent import current_delivery
from shared.delivery.dead_letter import letter_fields
from shared.delivery.delivery import Delivery
from shared.reports.photo_report import PhotoReport, read_photo_report, write_photo_report
from shared.reports.thumbnail import thumbnail_key
from shared.retry.errors import PermanentError
from shared.telemetry.tracing import DeliverySpan
from tests.shared.reports.markup import Markup
from tests.shared.reports.sample import Letter, fill, letters
from tests.shared.reports.uploads import FIELDS, desk
from tests.shared.sharepoint.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from redis.asyncio import Redis

    from shared.photo_store import BlobStore
    from shared.settings import Settings
    from tests.shared.reports.uploads import Desk

SESSION = SessionId("seewen")
TRACE = "0af7651916cd43dd8448eb211c80319c"
STEPS = (
    Step(agent="photo_fetcher", started=1_778_590_000.0, seconds=0.4, attempts=2),
    Step(agent="vision_analyzer", started=1_778_590_001.0, seconds=2.5),
)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One Graph for the tests of this file; each has a picture of its own."""
    running = Emulator(tmp_path_factory.mktemp("graph"), "--budget", "0")
    yield running
    running.stop()


@pytest.fixture
def settings(emulator: Emulator, tmp_path: Path) -> Settings:
    return emulator.settings(
        tmp_path, VISION_PRICE_INPUT="2.5", VISION_PRICE_OUTPUT="10", VISION_CURRENCY="CHF"
    )


@pytest.fixture
async def at(settings: Settings) -> AsyncIterator[Desk]:
    """The uploader's side."""
    async with desk(settings) as opened:
        yield opened


@pytest.fixture
def dead() -> list[Letter]:
    """The session's dead letters; a test adds some."""
    return []


@pytest.fixture
async def agent(settings: Settings, redis: Redis, dead: list[Letter]) -> AsyncIterator[ValidationReporter]:
    """The agent, open, with a delivery in hand."""

    async def dead_of_session(_redis: Redis, session_id: str, lanes: int) -> Sequence[Letter]:
        assert (session_id, lanes) == (SESSION, settings.lanes)
        return dead

    agent = ValidationReporter(settings, redis, dead_letters=dead_of_session)
    await agent.open()
    delivery = Delivery(stream=0, entry_id="1-0", deliveries=2, fields=[])
    delivery.span = DeliverySpan(f"00-{TRACE}-b7ad6b7169203331-03", "", ("1-0", None, None), None)
    delivery.envelope = Envelope(
        event=SessionCompleted(
            session_id=SESSION, completion=1, expected=1, counters={}, created_at=0, completed_at=0
        ),
        type="photo.uploaded",
        event_id="e",
        photo_id=None,
        session_id=None,
        steps=msgspec.json.encode(STEPS),
    )
    token = current_delivery.set(delivery)
    yield agent
    current_delivery.reset(token)
    await agent.close()


def _completed(completion: int = 1, **counters: int) -> SessionCompleted:
    return SessionCompleted(
        session_id=SESSION,
        completion=completion,
        expected=sum(counters.values()),
        counters=counters,
        created_at=1_778_590_000.0,
        completed_at=1_778_590_060.0,
    )


async def _validated(agent: ValidationReporter, at: Desk, seed: int) -> tuple[Validated, PhotoReport]:
    event = await agent.handle(await at.upload(seed, session_id=SESSION))
    assert isinstance(event, Validated)
    return event, await read_photo_report(at.store, event.report_ref)


def test_it_waits_when_sharepoint_is_away_and_has_its_place_in_the_pipeline() -> None:
    assert ValidationReporter.dependencies == {"sharepoint"}
    assert topology.stage_of(ValidationReporter.name).reads == ("photo.uploaded", "session.completed")


async def test_a_photo_that_is_stored_as_sent_is_validated(agent: ValidationReporter, at: Desk) -> None:
    event, report = await _validated(agent, at, 1)
    assert event.verdict == report.verdict == "ok"
    assert {name: verdict.same for name, verdict in event.verdicts.items()} == dict.fromkeys(FIELDS, True)
    assert event.verdicts["Aufnahmedatum"].stored == "2026-05-12"
    assert event.fields == FIELDS
    assert event.report_ref == f"store:reports/{SESSION}/photos/photo-1.json"
    assert report.file_same is True
    assert await at.store.exists("store:" + thumbnail_key(event.sha256))


async def test_the_report_tells_the_whole_way_of_the_photo(agent: ValidationReporter, at: Desk) -> None:
    event, report = await _validated(agent, at, 2)
    assert report.trace_id == TRACE
    assert report.steps[:2] == list(STEPS)
    own = report.steps[2]
    assert (own.agent, own.deliveries, own.seconds > 0) == ("validation_reporter", 2, True)
    assert event.steps == report.steps
    assert report.cost == pytest.approx((1500 * 2.5 + 100 * 10) / 1e6)
    assert report.currency == "CHF"
    assert (report.width, report.height) == (240, 320), "orientation 6 stands it upright"
    assert report.library == "Referenzfotos"
    assert report.item == event.item


async def test_no_secret_of_the_source_is_in_the_report(agent: ValidationReporter, at: Desk) -> None:
    event, report = await _validated(agent, at, 3)
    assert report.source == "https://photos.example/3.jpg"
    assert b"s3cret" not in await at.store.get(event.report_ref)


async def test_an_answer_that_was_there_already_cost_nothing(agent: ValidationReporter, at: Desk) -> None:
    photo = await at.upload(4, session_id=SESSION)
    cached = msgspec.structs.replace(photo, analysis=msgspec.structs.replace(photo.analysis, cached=True))
    event = await agent.handle(cached)
    assert isinstance(event, Validated)
    assert (await read_photo_report(at.store, event.report_ref)).cost == 0.0


async def test_a_photo_that_needs_a_person_is_validated_and_says_so(
    agent: ValidationReporter, at: Desk
) -> None:
    need = NeedsPerson(column="Holzart", reason="Nicht sicher erkannt.")
    event = await agent.handle(await at.upload(5, session_id=SESSION, needs=(need,)))
    assert isinstance(event, Validated)
    assert (event.verdict, event.needs_person) == ("needs_person", [need])


async def test_a_second_delivery_ends_as_the_first(agent: ValidationReporter, at: Desk) -> None:
    photo = await at.upload(6, session_id=SESSION)
    first, second = await agent.handle(photo), await agent.handle(photo)
    assert isinstance(first, Validated)
    assert isinstance(second, Validated)
    assert msgspec.structs.replace(second, steps=first.steps) == first


async def test_a_persons_edit_is_in_the_event_as_a_difference(
    agent: ValidationReporter, at: Desk, emulator: Emulator
) -> None:
    photo = await at.upload(7, session_id=SESSION)
    await emulator.edit(photo.item.item_id, Ort="Küssnacht")
    event = await agent.handle(photo)
    assert isinstance(event, Validated)
    verdict = event.verdicts["Ort"]
    assert (verdict.sent, verdict.stored, verdict.same) == ("Seewen", "Küssnacht", False)


async def test_a_removed_item_is_a_dead_letters_sentence(agent: ValidationReporter, at: Desk) -> None:
    photo = await at.upload(8, session_id=SESSION)
    await at.client.send(
        "DELETE", f"/drives/{photo.library.drive_id}/items/{photo.item.item_id}", doing="removing"
    )
    with pytest.raises(PermanentError, match="not there any more"):
        await agent.handle(photo)


async def test_a_complete_session_becomes_a_page_with_its_dead(
    agent: ValidationReporter, at: Desk, dead: list[Letter]
) -> None:
    without = {name: value for name, value in FIELDS.items() if name != "Bauprojekt"}
    need = NeedsPerson(column="Bauprojekt", reason="Zu keinem Projekt eingereicht.")
    await agent.handle(await at.upload(9, session_id=SESSION))
    await agent.handle(await at.upload(10, session_id=SESSION, fields=without, needs=(need,)))
    dead += letters()[:1]
    event = await agent.handle(_completed(validated=2, dead=1))
    assert isinstance(event, SessionReported)
    assert (event.session_id, event.completion, event.validated, event.dead) == (SESSION, 1, 2, 1)
    assert [(photo.photo_id, photo.reason) for photo in event.needs_person] == [
        ("photo-10", "Bauprojekt: Zu keinem Projekt eingereicht.")
    ]
    assert [photo.file_name for photo in event.dead_photos] == ["plan.jpg"]
    page = Markup(await at.store.get(event.report_ref))
    assert len(page.all("article")) == 2
    assert sum("src" in image for image in page.all("img")) == 2
    assert "Vollständig" in page.text()
    assert dead[0].message in page.text("gescheitert")


async def test_the_dead_are_found_in_redis(settings: Settings, redis_url: str, at: Desk) -> None:
    fields = letter_fields(
        agent="photo_fetcher",
        stream="schema.extracted",
        entry_id="1-0",
        consumer="c1",
        reason="permanent",
        error_type="PermanentError",
        message="the source is an HTML page, not a photo",
        deliveries=1,
        photo_id="photo-x",
        session_id=SESSION,
        file_name="plan.jpg",
        traceparent="",
        replays=0,
    )
    names = iter(fields)
    async with connect(redis_url) as redis:
        await redis.xadd("erni:dead:photo_fetcher", dict(zip(names, names, strict=True)))
        event = await ValidationReporter(settings, redis).handle(_completed(dead=1))
    assert isinstance(event, SessionReported)
    (photo,) = event.dead_photos
    assert (photo.photo_id, photo.file_name) == ("photo-x", "plan.jpg")
    assert "the source is an HTML page" in Markup(await at.store.get(event.report_ref)).text("gescheitert")


async def test_a_session_completed_again_by_a_replay_is_reported_anew(
    agent: ValidationReporter, at: Desk, dead: list[Letter]
) -> None:
    dead += letters()
    await fill(at.store, 2, SESSION)
    first = await agent.handle(_completed(validated=2, dead=3))
    dead.clear()
    second = await agent.handle(_completed(2, validated=5))
    assert isinstance(first, SessionReported)
    assert isinstance(second, SessionReported)
    assert (first.dead, second.dead, second.completion) == (3, 0, 2)
    assert "2. Abschluss" in Markup(await at.store.get(second.report_ref)).text()


async def test_the_event_of_a_huge_session_stays_small(
    agent: ValidationReporter, at: Desk, dead: list[Letter], settings: Settings
) -> None:
    reason = "Ein sehr langer Grund, ä" * 40
    dead += [
        msgspec.structs.replace(letters()[0], file_name=f"{number}{'ä' * 200}.jpg", message=reason)
        for number in range(500)
    ]
    await fill(at.store, 1, SESSION)
    (report,) = await _photos(at.store)
    needs = [NeedsPerson(column="Bauphase", reason=reason)]
    for number in range(300):
        await write_photo_report(
            at.store,
            msgspec.structs.replace(
                report,
                photo_id=f"p-{number}",
                file_name=f"{number}{'ä' * 200}.jpg",
                needs_person=needs,
                verdict="needs_person",
            ),
        )
    event = await agent.handle(_completed(validated=301, dead=500))
    assert isinstance(event, SessionReported)
    assert (event.validated, event.dead) == (301, 500)
    assert len(event.needs_person) == len(event.dead_photos) == 100
    assert len(msgspec.json.encode(event)) < settings.max_event_bytes
    assert event.dead_photos[0].reason.endswith("…")


async def _photos(store: BlobStore) -> list[PhotoReport]:
    keys = [key async for key in store.keys(f"reports/{SESSION}/photos/")]
    return [await read_photo_report(store, f"store:{key}") for key in keys]


async def test_a_photo_of_no_session_is_reported_too(agent: ValidationReporter, at: Desk) -> None:
    fields = {"Bauprojekt": FieldValue(value="Schulhaus", source="hint")}
    event = await agent.handle(await at.upload(11, fields=fields))
    assert isinstance(event, Validated)
    assert event.report_ref == "store:reports/-/photos/photo-11.json"
    assert event.verdict == "ok"
