"""Reads when, where and with which camera a photo was taken.

A value that makes no sense is left out; broken EXIF never fails a photo.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from shared.photos.facts import PhotoFacts, Position
from shared.photos.tiff import Directory, Tiff, Value

if TYPE_CHECKING:
    from shared.photos.open import OpenPhoto

# Tags of Exif 3.0 (CIPA DC-008).
_MAKE, _MODEL, _ORIENTATION, _EXIF_POINTER, _GPS_POINTER = 0x010F, 0x0110, 0x0112, 0x8769, 0x8825
# Each date with the tag of its offset from UTC. The date of the last change (0x0132) is left out: it is the
# time when a program saved the file, not when the photo was taken.
_DATES: Final = ((0x9003, 0x9011), (0x9004, 0x9012))
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = range(1, 7)

# Some cameras write a blank for a leading zero, others write hours of twelve.
_DATE = re.compile(
    r"(\d{4})\D ?(\d{1,2})\D ?(\d{1,2})[ T]+(\d{1,2})\D ?(\d{1,2})(?:\D ?(\d{1,2}))?(?!\d)(.*)"
)
_HALF_DAY = re.compile(r"[\d\s.]*([ap])\.?m\b", re.IGNORECASE)
_OFFSET = re.compile(r"([+-])(\d{1,2}):?(\d{2})")
_EARLIEST_YEAR: Final = 1990
"""An earlier date comes from a clock that was never set: there were hardly any digital cameras then."""
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def facts_of(photo: OpenPhoto, *, now: datetime | None = None) -> PhotoFacts:
    """Return the facts of an open photo; raises nothing for broken EXIF."""
    tiff = Tiff(photo.exif)
    main = tiff.first()
    detail = tiff.below(main, _EXIF_POINTER)
    return PhotoFacts(
        taken_at=_taken_at(detail, now or datetime.now(UTC)),
        camera=_camera(main),
        orientation=1 if photo.turned else _orientation(main),
        position=_position(tiff.below(main, _GPS_POINTER)),
    )


def _orientation(main: Directory) -> int:
    match main.get(_ORIENTATION):
        case (value, *_) if 1 <= value <= 8:
            return int(value)
    return 1


def _camera(main: Directory) -> str | None:
    """Join make and model, without the make twice ("NIKON CORPORATION", "NIKON D750")."""
    make, model = (text if isinstance(text, str) else "" for text in (main.get(_MAKE), main.get(_MODEL)))
    if model.lower().split()[:1] == make.lower().split()[:1]:
        make = ""
    return f"{make} {model}".strip()[:100] or None


def _taken_at(detail: Directory, now: datetime) -> str | None:
    """Return the first date that can be true: first the exposure's, then the digitisation's."""
    for tag, offset_tag in _DATES:
        taken = _moment(detail.get(tag), detail.get(offset_tag))
        if taken is None or taken.year < _EARLIEST_YEAR:
            continue
        # A local time without zone is in the future for sure only if it is so in the easternmost zone.
        earliest = taken if taken.tzinfo else taken.replace(tzinfo=timezone(timedelta(hours=14)))
        if earliest <= now:
            return taken.isoformat(timespec="seconds")
    return None


def _moment(text: Value | None, offset: Value | None) -> datetime | None:
    """Read a date and time as cameras and programs write it: "2025:05:12 14:03:22", "2025-05-12T14:03Z"."""
    found = _DATE.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    *parts, rest = found.groups()
    zone = _zone(rest) or (_zone(offset) if isinstance(offset, str) else None)
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    if half := _HALF_DAY.match(rest):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half[1].lower() == "p" else 0)
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None


def _zone(text: str) -> timezone | None:
    if text.strip().upper() in ("Z", "UTC"):
        return UTC
    found = _OFFSET.search(text)
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    # All zones of the world lie between -12:00 and +14:00.
    return timezone(timedelta(minutes=minutes if found[1] == "+" else -minutes)) if minutes <= 840 else None


def _position(gps: Directory) -> Position | None:
    """Return the position if both coordinates have a possible number and a hemisphere.

    A coordinate without its hemisphere is not used: a guess could be wrong.
    """
    latitude = _coordinate(gps.get(_LATITUDE), gps.get(_LATITUDE_REF), "NS", 90)
    longitude = _coordinate(gps.get(_LONGITUDE), gps.get(_LONGITUDE_REF), "EW", 180)
    # A receiver without a fix writes 0, 0, which lies in the Gulf of Guinea.
    if latitude is None or longitude is None or (abs(latitude) < 1e-6 and abs(longitude) < 1e-6):
        return None
    return Position(latitude=round(latitude, 7), longitude=round(longitude, 7), altitude=_altitude(gps))


def _coordinate(value: Value | None, ref: Value | None, letters: str, limit: int) -> float | None:
    """Return signed degrees from up to three numbers (degrees, minutes, seconds), or from text with them."""
    if isinstance(value, str):
        ref = ref or next((letter for letter in reversed(value.upper()) if letter in letters), None)
        value = tuple(float(number) for number in _NUMBER.findall(value.replace(",", " ")))
    side = ref[:1].upper() if isinstance(ref, str) else ""
    if not value or len(value) > 3 or side not in letters or not side:
        return None
    degrees, *finer = value
    # Where the last numbers are not used, some cameras write 0/0 for them.
    minutes, seconds = [0.0 if math.isnan(number) else number for number in finer] + [0.0] * (2 - len(finer))
    # A sign repeats what the hemisphere means already.
    size = abs(degrees) + minutes / 60 + seconds / 3600
    if not (0 <= minutes <= 60 and 0 <= seconds <= 60 and size <= limit):
        return None
    return -size if side == letters[1] else size


def _altitude(gps: Directory) -> float | None:
    match gps.get(_ALTITUDE):
        case (metres,) if -500 <= metres <= 9_000:
            below = gps.get(_ALTITUDE_REF) == (1.0,)
            return round(-metres if below else metres, 1)
    return None
