"""A system at work, as it stands in Redis and in the photo store: to look at its pages."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import codec, topology
from events.identities import PhotoId, SessionId, StoreUrl
from events.types import SessionReported, Step
from shared.delivery.photo_record import record_fields
from shared.operations import access_keys, activity
from shared.operations.activity import Person
from shared.operations.bulk import Bulk
from shared.operations.dead_letters import DeadFilter
from shared.photo_store import BlobStore
from shared.reports.photo_report import write_photo_report
from shared.reports.session_report import write_session_report
from shared.sessions.store import SessionStore
from shared.webhooks import endpoints, signature
from shared.webhooks.endpoints import Endpoint
from tests.console.pipeline import KEYS, TRACEPARENT, beats, dies, pairs
from tests.shared.reports import sample
from tests.shared.reports.sample import photo_report, picture

if TYPE_CHECKING:
    from redis import Redis as PlainRedis
    from redis.asyncio import Redis

SESSION: Final = SessionId("seewen-2026-05-12")
OTHER: Final = SessionId("liestal-umbau")
PHOTO: Final = PhotoId("p-3f2a90c1d7e4a1b2c3d4e5f6")
HOOK: Final = "wh_4f1d2c3b5a69"
FAILING_HOOK: Final = "wh_9b0e7d46c218"
OLD_HOOK: Final = "wh_c35a81f2e07d"
REFUSED: Final = "archive.example.org answered 503 (Service Unavailable)"
OUTAGE: Final = (
    "storing IMG_20{n}.jpg in the library Referenzfotos: SharePoint answered 503 (Service Unavailable); it"
    " was tried 5 times over 4 minutes"
)
BROKEN: Final = "IMG_30{n}.jpg is no photo: its first bytes are those of a PDF document"


async def play(client: PlainRedis, redis: Redis, store_url: str) -> None:
    """Make processes, sessions, photos, dead letters and activities."""
    work(client, 0)
    await _sessions(client, redis)
    await _letters(client, redis)
    await _hooks(redis)
    store = BlobStore(store_url)
    preview = await store.replace(f"previews/{'a' * 64}/1024.jpg", picture(4))
    await _photo(client, store, preview)
    for n, (outcome, far) in enumerate((("dead", 4), ("dead", 4), ("done", 3), ("done", 2), ("done", 5))):
        _goes(client, PhotoId(f"p-20{n}"), f"IMG_20{n}.jpg", outcome, far)


def work(client: PlainRedis, seconds: float) -> None:
    """Let every process send a heartbeat, after so many seconds of work."""
    for number, agent in enumerate(topology.CONSUMERS):
        outage: dict[str, Any] = (
            {
                "breakers_open": ["sharepoint"],
                "breaker_reasons": {"sharepoint": "SharePoint answered 503 (Service Unavailable)"},
            }
            if agent == "sharepoint_uploader"
            else {}
        )
        speed = 2.0 + math.sin(seconds / 9 + number)
        for process in range(2 if agent == "vision_analyzer" else 1):
            beats(
                client,
                agent,
                f"vm-{process + 1}-{number}",
                # fresh for two minutes, however slow the machine is that makes a picture
                ago=-120,
                host=f"vm-{process + 1}",
                in_hand=3 if agent == "vision_analyzer" else 0,
                done=1200 + int(speed * seconds),
                started=time.time() - 86_400,
                recent=".....",
                **outage,
            )


async def _hooks(redis: Redis) -> None:
    """Three web hooks: one is well, one fails, one was switched off."""
    for number, (name, url, state) in enumerate(
        (
            (HOOK, "https://camera.example.org/hooks/erni", "on"),
            (FAILING_HOOK, "https://archive.example.org/incoming", "failing"),
            (OLD_HOOK, "https://old.example.org/hook?token=abc", "off"),
        )
    ):
        endpoint = Endpoint(
            id=name,
            url=url,
            source="urn:camera-app",
            events=("photo.validated", "photo.failed"),
            secret=signature.new_secret(),
            created_at=time.time() - 9000 + number,
        )
        await endpoints.keep(redis, endpoint)
        if state == "on":
            await endpoints.delivered(redis, endpoint, time.time())
        else:
            await endpoints.failed(redis, endpoint, REFUSED, gone=state == "off")


async def keys(redis: Redis) -> None:
    """A key of each role; the publisher's was used."""
    await access_keys.add(redis, "camera-app", "publisher", source="urn:camera-app")
    await access_keys.add(redis, "status-board", "viewer")
    await access_keys.add(redis, "petra", "operator")
    await access_keys.note_use(redis, "camera-app")


async def report(store_url: str) -> None:
    """The report of the session that is over."""
    store = BlobStore(store_url)
    facts = await sample.fill(store, 30, OTHER)
    await write_session_report(store, facts, sample.letters())


async def _sessions(client: PlainRedis, redis: Redis) -> None:
    sessions = SessionStore(redis)
    for name, expected, validated, dead in (
        (SESSION, 84, 61, 14),
        (OTHER, 12, 12, 0),
        ("muttenz-b3", 40, 9, 3),
    ):
        await sessions.set(SessionId(name), library="Referenzfotos", site="/sites/Bau", expected=expected)
        client.hset(
            KEYS.session(name),
            mapping={"received": expected, "validated": validated, "dead": dead},
        )
    await sessions.aclose()
    client.hset(KEYS.session(OTHER), mapping={"completion": 1, "status": "completed"})
    event = SessionReported(
        session_id=OTHER,
        completion=1,
        report_ref=StoreUrl("store:reports/x/report.html"),
        validated=12,
        dead=0,
        needs_person=[],
    )
    fields = codec.encode(event, event_id="r1", source="x", session_id=OTHER)
    client.xadd(KEYS.stream("session.reported"), dict(pairs(fields)))


async def _letters(client: PlainRedis, redis: Redis) -> None:
    fields = {
        "id": "e-17",
        "source": "urn:camera-app",
        "type": "photo.analyzed",
        "sessionid": SESSION,
        "traceparent": TRACEPARENT,
        "data": '{"photo_id":"p-20","preview_ref":"store:previews/' + "a" * 64 + '/1024.jpg"}',
    }
    me = Person("petra", "operator")
    bulk = Bulk(redis)
    for n in range(6):
        dies(
            client,
            "schema_extractor",
            "photo.submitted",
            message=f"the library Alt{n} is missing",
            photo=f"p-1{n}",
            session="muttenz-b3",
            file_name=f"DJI_00{n}.jpg",
        )
    discarded = await bulk.start(
        "discard",
        await bulk.select(DeadFilter(agent="schema_extractor"), "discard"),
        Person("admin", "admin"),
    )
    async for _ in bulk.run(discarded):
        pass
    for n in range(14):
        dies(
            client,
            "sharepoint_uploader",
            "photo.analyzed",
            message=OUTAGE.format(n=n),
            photo=f"p-20{n}",
            session=SESSION,
            file_name=f"IMG_20{n}.jpg",
            fields=fields,
            attempts=3,
            deliveries=2,
        )
    for n in range(3):
        dies(
            client,
            "photo_fetcher",
            "schema.extracted",
            message=BROKEN.format(n=n),
            reason="permanent",
            photo=f"p-30{n}",
            session="muttenz-b3",
            file_name=f"IMG_30{n}.jpg",
        )
    await activity.note(redis, me, "sign in")
    await activity.note(redis, me, "pause", "vision_analyzer")
    await activity.note(redis, me, "resume", "vision_analyzer")


def _goes(client: PlainRedis, photo: PhotoId, name: str, outcome: str, far: int) -> None:
    """Another photo of the session, which has come so far."""
    for place, agent in enumerate(topology.AGENTS[:far]):
        last = outcome if place == far - 1 else "done"
        step = Step(agent=agent, started=time.time() - 200 + 10 * place, seconds=4.0)
        message = OUTAGE.format(n=name[6:-4]) if last == "dead" else ""
        record = dict(pairs(record_fields(step, last, message, TRACEPARENT, SESSION, name)))
        client.hset(KEYS.photo(photo), mapping=record)  # type: ignore[arg-type]  # names and values
    client.expire(KEYS.photo(photo), 3600)
    client.zadd(KEYS.session_photos(SESSION), {photo: 2})


async def _photo(client: PlainRedis, store: BlobStore, preview: StoreUrl) -> None:
    now = time.time() - 300
    began = now
    for agent, seconds, wait in (
        ("schema_extractor", 0.3, 0.1),
        ("photo_fetcher", 1.1, 0.4),
        ("vision_analyzer", 6.2, 2.5),
        ("sharepoint_uploader", 3.4, 0.2),
        ("validation_reporter", 1.2, 1.1),
    ):
        began += wait
        step = Step(
            agent=agent, started=began, seconds=seconds, attempts=2 if agent == "sharepoint_uploader" else 1
        )
        began += seconds
        record = dict(pairs(record_fields(step, "done", "", TRACEPARENT, SESSION, "IMG_2041.jpg")))
        client.hset(KEYS.photo(PHOTO), mapping=record)  # type: ignore[arg-type]  # names and values
    client.expire(KEYS.photo(PHOTO), 3600)
    client.zadd(KEYS.session_photos(SESSION), {PHOTO: 1})
    client.expire(KEYS.session_photos(SESSION), 3600)
    report = photo_report(3)
    report = msgspec.structs.replace(report, photo_id=PHOTO, file_name="IMG_2041.jpg", preview_ref=preview)
    await write_photo_report(store, report)
