"""Made-up photos of building sites and their reports: the same seed gives the same session."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
from io import BytesIO
from typing import TYPE_CHECKING

import msgspec
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from events.identities import PhotoId, SessionId, Sha256, StoreUrl
from events.types import Analysis, FieldText, NeedsPerson, Source, Step, StoredItem
from shared.columns.schema import Column, LibrarySchema
from shared.reports.facts import SessionFacts
from shared.reports.photo_report import FieldReport, PhotoReport, write_photo_report

if TYPE_CHECKING:
    from shared.photo_store import BlobStore

SESSION = SessionId("seewen-2026-05-12")
SCHEMA = LibrarySchema(
    library="Referenzfotos",
    columns=(
        Column(name="Bauprojekt", display_name="Bauprojekt", kind="text", required=True, max_length=255),
        Column(
            name="Bauphase",
            display_name="Bauphase",
            kind="choice",
            choices=("Aushub", "Rohbau", "Aufrichte", "Ausbau", "Fertig"),
            required=True,
        ),
        Column(
            name="Bauteil",
            display_name="Bauteil",
            kind="multi_choice",
            choices=("Dach", "Fassade", "Fenster", "Treppe", "Tragwerk", "Terrasse"),
        ),
        Column(
            name="Holzart",
            display_name="Holzart",
            kind="choice",
            choices=("Fichte", "Lärche", "Eiche", "Douglasie"),
        ),
        Column(
            name="Geb_x00e4_udetyp",
            display_name="Gebäudetyp",
            kind="choice",
            choices=("Einfamilienhaus", "Mehrfamilienhaus", "Gewerbe", "Schulhaus"),
        ),
        Column(name="Aufnahmedatum", display_name="Aufnahmedatum", kind="date", required=True),
        Column(name="Ort", display_name="Ort", kind="text", max_length=255),
        Column(name="Beschreibung", display_name="Beschreibung", kind="note"),
        Column(
            name="Schlagworte",
            display_name="Schlagworte",
            kind="multi_choice",
            choices=("Kran", "Gerüst", "Schnee", "Holzbau", "Umgebung", "Detail"),
        ),
        Column(name="Personen", display_name="Personen erkennbar", kind="boolean"),
        Column(name="Qualit_x00e4_t", display_name="Qualität", kind="number", minimum=0, maximum=100),
    ),
)
_PLACES = ("Seewen", "Stein am Rhein", "Küssnacht", "Appenzell", "Sempach", "Bözberg", "Wädenswil")
_SENTENCES = (
    "Holzhaus mit Steildach vor bewaldetem Hügel, Fassade vertikal verschalt.",
    "Gerüst an der Traufseite, Fenster eingebaut, Umgebung noch nicht fertig.",
    "Kran hebt ein Dachelement, im Vordergrund gelagertes Bauholz.",
)
_AGENTS = (
    ("schema_extractor", 0.02),
    ("photo_fetcher", 0.31),
    ("vision_analyzer", 2.4),
    ("sharepoint_uploader", 0.9),
    ("validation_reporter", 0.28),
)


@functools.cache
def picture(seed: int, size: tuple[int, int] = (1024, 768)) -> bytes:
    """A timber house in a landscape, with the grain of a real photo, as JPEG. Another one for each seed."""
    rnd = random.Random(seed)
    width, height = 1024, 768
    horizon = rnd.randint(int(height * 0.55), int(height * 0.7))
    sky, light = rnd.choice(
        (
            ((92, 142, 190), (215, 228, 236)),
            ((120, 128, 140), (206, 205, 200)),
            ((206, 150, 110), (246, 222, 180)),
        )
    )
    image = Image.new("RGB", (width, height), light)
    draw = ImageDraw.Draw(image)
    for row in range(horizon):
        share = row / horizon
        draw.line(
            (0, row, width, row), tuple(int(a + (b - a) * share) for a, b in zip(sky, light, strict=True))
        )
    for ridge in range(3):
        top = horizon - (3 - ridge) * height // 14
        points = [(x, top - rnd.randint(0, height // 9)) for x in range(0, width + 80, 80)]
        shade = 118 - 22 * ridge
        draw.polygon([(0, height), *points, (width, height)], (shade - 22, shade, shade + 4))
    ground = rnd.choice(((104, 116, 72), (146, 128, 100), (226, 229, 232)))
    draw.rectangle((0, horizon, width, height), ground)
    left, right = rnd.randint(120, 260), width - rnd.randint(120, 330)
    eaves, foot = horizon - rnd.randint(150, 250), horizon + rnd.randint(30, 90)
    wood = rnd.choice(((176, 124, 74), (142, 92, 52), (200, 158, 104)))
    draw.rectangle((left, eaves, right, foot), wood)
    for x in range(left, right, 11):
        tone = rnd.randint(-16, 12)
        draw.line((x, eaves, x, foot), tuple(min(max(c + tone, 0), 255) for c in wood), 3)
    ridge_x, ridge_y = (left + right) // 2, eaves - rnd.randint(90, 170)
    roof = rnd.choice(((88, 56, 44), (70, 74, 78), (128, 66, 46)))
    draw.polygon([(left - 40, eaves), (ridge_x, ridge_y), (right + 40, eaves)], roof)
    for x in range(left + 40, right - 60, 105):
        draw.rectangle((x, eaves + 40, x + 62, eaves + 118), (60, 78, 92), (238, 232, 220), 5)
        draw.polygon([(x + 8, eaves + 48), (x + 40, eaves + 48), (x + 8, eaves + 96)], (152, 178, 194))
    if rnd.random() < 0.5:
        for x in range(left - 26, right + 40, 78):
            draw.line((x, ridge_y + 40, x, foot + 20), (196, 200, 204), 4)
        for y in range(ridge_y + 60, foot, 62):
            draw.line((left - 30, y, right + 34, y), (210, 180, 120), 5)
    if rnd.random() < 0.5:
        mast = rnd.choice((80, width - 80))
        draw.line((mast, foot, mast, 70), (218, 172, 40), 12)
        draw.line((mast - 190, 92, mast + 190, 92), (218, 172, 40), 8)
    image = image.filter(ImageFilter.GaussianBlur(1.1))
    grain = Image.effect_noise((width, height), 26).filter(ImageFilter.GaussianBlur(0.6))
    image = ImageChops.overlay(image, Image.merge("RGB", (grain, grain, grain)))
    out = BytesIO()
    image.resize(size).save(out, "JPEG", quality=85)
    return out.getvalue()


def photo_report(seed: int, session_id: SessionId | None = SESSION, *, content: int = 0) -> PhotoReport:
    """One photo's report: most are fine, some need a person, some differ from what was sent.

    `content` numbers the picture it is of.
    """
    rnd = random.Random(f"report {seed}")
    sha256 = Sha256(hashlib.sha256(f"content {content}".encode()).hexdigest())
    digits = hashlib.sha256(f"photo {seed}".encode()).hexdigest()
    place = rnd.choice(_PLACES)
    needs: list[NeedsPerson] = []
    fields = [_field(rnd, column, place, seed, needs) for column in SCHEMA.columns]
    file_same = rnd.random() > 0.01
    if not file_same:
        needs.append(NeedsPerson(column="Datei", reason="Die Datei in SharePoint ist nicht das Original."))
    cached = rnd.random() < 0.1
    start = 1_778_590_000 + seed * 0.8
    return PhotoReport(
        photo_id=PhotoId(f"p-{digits[:24]}"),
        session_id=session_id,
        file_name=f"IMG_{4000 + seed}.jpg",
        source=f"store:originals/{sha256}",
        sha256=sha256,
        size=rnd.randint(900_000, 9_000_000),
        media_type="image/jpeg",
        width=4032,
        height=3024,
        taken_at=f"2026-05-{rnd.randint(1, 12):02}T{rnd.randint(7, 17):02}:{rnd.randint(0, 59):02}:00+02:00",
        camera=rnd.choice(("Apple iPhone 15", "Canon EOS R6", "Fujifilm X-T5")),
        library="Referenzfotos",
        library_url="https://sharepoint.example/sites/Bau/Referenzfotos",
        item=StoredItem(
            item_id=f"01{digits[:16].upper()}",
            name=f"Erni_Referenzfoto_2026-05-12_{sha256[:12]}.jpg",
            web_url=f"https://sharepoint.example/sites/Bau/Referenzfotos/{sha256[:12]}.jpg",
            etag='"1"',
            outcome=rnd.choice(("created", "created", "created", "unchanged", "replaced")),
        ),
        file_same=file_same,
        fields=fields,
        needs_person=needs,
        verdict="needs_person" if needs else "ok",
        analysis=Analysis(
            model="gpt-4o",
            prompt_version="3",
            cached=cached,
            prompt_tokens=rnd.randint(1400, 1700),
            completion_tokens=rnd.randint(140, 260),
        ),
        cost=0.0 if cached else round(rnd.uniform(0.004, 0.008), 5),
        currency="USD",
        steps=[
            Step(
                agent=agent,
                started=start + place_in_line,
                seconds=round(usual * rnd.lognormvariate(0, 0.5), 3),
                attempts=2 if rnd.random() < 0.02 else 1,
            )
            for place_in_line, (agent, usual) in enumerate(_AGENTS)
        ],
        trace_id=digits[:32],
        preview_ref=StoreUrl(f"store:previews/{sha256}.jpg"),
        checked_at=start + 6,
    )


def _field(
    rnd: random.Random, column: Column, place: str, seed: int, needs: list[NeedsPerson]
) -> FieldReport:
    """One column's line."""
    found: dict[str, tuple[Source, FieldText]] = {
        "Bauprojekt": ("hint", f"Wohnüberbauung {place}"),
        "Aufnahmedatum": ("exif", f"2026-05-{rnd.randint(1, 12):02}"),
        "Ort": ("hint", place),
        "Beschreibung": ("vision", rnd.choice(_SENTENCES)),
        "Personen": ("vision", rnd.random() < 0.2),
        "Qualit_x00e4_t": ("vision", rnd.randint(40, 99)),
    }
    source, value = found.get(column.name) or ("vision", _choices(rnd, column))
    confidence = 1.0 if source != "vision" else round(rnd.uniform(0.35, 0.99), 2)
    report = FieldReport(
        column=column.name,
        display_name=column.display_name,
        kind=column.kind,
        required=column.required,
        value=value,
        source=source,
        confidence=confidence,
        sent=value,
        stored=value,
    )
    luck = rnd.random()
    if column.name in ("Bauphase", "Holzart", "Bauprojekt") and luck < 0.05:
        reason = {
            "Bauprojekt": "Zu keinem Projekt eingereicht.",
            "Bauphase": "Auf dem Bild ist keine Bauphase sicher zu erkennen.",
            "Holzart": "Die Holzart ist auf dem Bild nicht sicher zu erkennen.",
        }[column.name]
        needs.append(NeedsPerson(column=column.display_name, reason=reason))
        return msgspec.structs.replace(
            report, value=None, source=None, confidence=None, sent=None, stored=None
        )
    if column.kind == "choice" and luck > 0.985:
        other = next(choice for choice in column.choices if choice != value)
        return msgspec.structs.replace(report, stored=other, same=False, cause="edited")
    return report


def _choices(rnd: random.Random, column: Column) -> FieldText:
    """A value the column allows."""
    if column.kind == "multi_choice":
        return rnd.sample(column.choices, rnd.randint(1, 3))
    return rnd.choice(column.choices) if column.choices else None


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as the session's page reads it."""

    agent: str
    reason: str
    message: str
    photo_id: str | None
    file_name: str | None
    entry_id: str
    failed_at: float
    cause: str = ""


def letters() -> list[Letter]:
    """Three photos that did not get through."""
    told = (
        (
            "photo_fetcher",
            "permanent",
            "plan.jpg",
            "the source is an HTML page, not a photo: check its address",
        ),
        (
            "photo_fetcher",
            "permanent",
            "IMG_4711.jpg",
            "the JPEG ends in the middle of the picture (truncated upload): send the photo again",
        ),
        ("sharepoint_uploader", "exhausted", "IMG_4712.jpg", "SharePoint answered 503 to every attempt"),
    )
    return [
        Letter(
            agent=agent,
            reason=reason,
            message=message,
            photo_id=f"p-{name}",
            file_name=name,
            entry_id=f"177859000000{place}-0",
            failed_at=1_778_590_120.0,
            cause="file" if agent == "photo_fetcher" else "",
        )
        for place, (agent, reason, name, message) in enumerate(told)
    ]


async def fill(
    store: BlobStore, count: int, session_id: SessionId = SESSION, pictures: int = 6
) -> SessionFacts:
    """Put `count` photo reports and their previews into the store, drawn from so many pictures."""
    distinct = min(pictures, count)
    for seed in range(count):
        report = photo_report(seed, session_id, content=seed % distinct)
        if seed < distinct:
            await store.put(f"previews/{report.sha256}.jpg", await asyncio.to_thread(picture, seed))
        await write_photo_report(store, report)
    dead = len(letters())
    return SessionFacts(
        session_id=session_id,
        completion=1,
        expected=count + dead,
        counters={"received": count + dead, "validated": count, "dead": dead},
        created_at=1_778_590_000.0,
        completed_at=1_778_590_000.0 + 6 + count * 0.8,
    )
