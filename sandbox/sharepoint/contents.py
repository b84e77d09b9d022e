"""Bytes on their way in: written to a file beside the library, then described."""

from __future__ import annotations

import hashlib
import mimetypes
from typing import TYPE_CHECKING

from sandbox.sharepoint.model import Content, JsonObject
from sandbox.sharepoint.quick_xor import QuickXor

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

_PIECE = 1 << 20
_MEDIA_TYPES = {".heic": "image/heic", ".webp": "image/webp", ".mpo": "image/mpo"}


def describe(path: Path, name: str) -> Content:
    """Read size, hashes and the picture's metadata of the file at `path`, to be stored as `name`."""
    sha256 = hashlib.sha256()
    quick_xor = QuickXor()
    size = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            sha256.update(piece)
            quick_xor.update(piece)
            size += len(piece)
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    media_type = _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Content(
        size=size,
        sha256=sha256.hexdigest(),
        quick_xor_hash=quick_xor.base64(),
        media_type=media_type,
        facets=picture_facets(path) if media_type.startswith("image/") else {},
    )


def picture_facets(path: Path) -> JsonObject:
    """The ``image``, ``photo`` and ``location`` facets; empty for what is not a picture after all."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            facets: JsonObject = {"image": {"width": picture.width, "height": picture.height}}
            facets |= _exif_facets(picture)
    except Exception:  # noqa: BLE001  Pillow raises almost anything on a broken file; the service says nothing then
        return {}
    return facets


def _exif_facets(picture: Image.Image) -> JsonObject:
    from PIL.ExifTags import GPS, IFD, Base

    exif = picture.getexif()
    details = exif.get_ifd(IFD.Exif)
    photo: JsonObject = {}
    for key, value in (
        ("cameraMake", exif.get(Base.Make)),
        ("cameraModel", exif.get(Base.Model)),
        ("takenDateTime", _taken(details.get(Base.DateTimeOriginal))),
    ):
        if isinstance(value, str) and value.strip("\0 "):
            photo[key] = value.strip("\0 ")
    for key, number in (
        ("fNumber", details.get(Base.FNumber)),
        ("focalLength", details.get(Base.FocalLength)),
        ("iso", details.get(Base.ISOSpeedRatings)),
        ("orientation", exif.get(Base.Orientation)),
    ):
        if isinstance(number, int):
            photo[key] = number
        elif number:
            photo[key] = float(number)
    facets: JsonObject = {"photo": photo} if photo else {}
    position = exif.get_ifd(IFD.GPSInfo)
    latitude = _degrees(position.get(GPS.GPSLatitude), position.get(GPS.GPSLatitudeRef) == "S")
    longitude = _degrees(position.get(GPS.GPSLongitude), position.get(GPS.GPSLongitudeRef) == "W")
    if latitude is not None and longitude is not None:
        facets["location"] = {"latitude": latitude, "longitude": longitude}
    return facets


def _taken(text: object) -> str | None:
    """EXIF's ``YYYY:MM:DD hh:mm:ss`` as the service writes it: the camera's local time, called UTC."""
    if not isinstance(text, str) or len(text) < 19:
        return None
    return f"{text[:10].replace(':', '-')}T{text[11:19]}Z"


def _degrees(parts: object, negative: bool) -> float | None:  # noqa: FBT001  two private calls, both readable
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return round(-value if negative else value, 7)
