"""One event of every type, with everything in it that may be in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import topology

if TYPE_CHECKING:
    from events.types import Event

_PHOTO: Final[dict[str, Any]] = {
    "photo_id": "p-1",
    "session_id": "seewen-2026-05-12",
    "source_url": "https://photos.example.org/a.jpg",
    "file_name": "Bild «1».jpg",
    "hints": {"project": "Seewen", "place": "Seewen SO", "taken_at": "2026-05-12T10:30:00", "text": "Dach"},
    "library": {
        "site_id": "s",
        "list_id": "l",
        "drive_id": "d",
        "site": "/sites/Bau",
        "library": "Referenzfotos",
        "web_url": "https://sharepoint.example.org/sites/Bau/Referenzfotos",
    },
    "schema_digest": "0" * 64,
    "schema_ref": "store:schemas/0.json",
    "dataref": "store:originals/1",
    "sha256": "1" * 64,
    "size": 123_456,
    "media_type": "image/jpeg",
    "width": 4000,
    "height": 3000,
    "orientation": 6,
    "exif": {"taken_at": "2026-05-12T10:30:00+02:00", "has_position": True, "reference": "store:exif/1.json"},
    "fields": {
        "Ort": {"value": "Seewen", "source": "hint", "confidence": 1.0},
        "Bauteil": {"value": ["Dach", "Fassade"], "source": "vision", "confidence": 0.8},
        "Baujahr": {"value": 2026, "source": "default", "confidence": 0.5},
    },
    "needs_person": [{"column": "Holzart", "reason": "nicht erkennbar"}],
    "analysis": {"model": "m", "prompt_version": "1", "prompt_tokens": 900, "completion_tokens": 80},
    "preview_ref": "store:previews/1",
    "item": {
        "item_id": "7",
        "name": "Erni_Referenzfoto_2026-05-12_1.jpg",
        "web_url": "https://sharepoint.example.org/7",
        "etag": '"1"',
        "outcome": "created",
        "quick_xor_hash": "AAAA",
    },
    "verdicts": {"Ort": {"sent": "Seewen", "stored": "Seewen", "same": True}},
    "verdict": "needs_person",
    "report_ref": "store:reports/1.json",
    "steps": [{"agent": "schema_extractor", "started": 1.5, "seconds": 0.1, "attempts": 2}],
    "target": {"site": "/sites/Bau", "library": "Referenzfotos"},
    "expected": 3,
    "agent": "photo_fetcher",
    "reason": "permanent",
    "cause": "source",
    "message": "photos.example.org answered 404: there is no such file",
    "fingerprint": "c0578035f649",
    "replays": 1,
    "failed_at": 3.0,
    "completion": 1,
    "counters": {"received": 3, "validated": 2, "dead": 1},
    "created_at": 1.0,
    "completed_at": 2.0,
    "validated": 2,
    "dead": 1,
    "endpoint": "wh_4f1d2c3b5a69",
    "body": '{"type":"photo.failed","timestamp":"2026-05-12T10:30:00.000Z","data":{"photo_id":"p-1"}}',
    "dead_photos": [{"photo_id": "p-2", "file_name": "b.jpg", "reason": "404"}],
}
_REPORTED: Final = {"needs_person": [{"photo_id": "p-1", "file_name": "a.jpg", "reason": "Holzart"}]}


def sample(name: str) -> Event:
    """A full event of that type."""
    struct = topology.TYPES[name]
    own = _PHOTO | (_REPORTED if name == "session.reported" else {})
    names = {field.name for field in msgspec.structs.fields(struct)}
    return msgspec.convert({key: value for key, value in own.items() if key in names}, struct)
