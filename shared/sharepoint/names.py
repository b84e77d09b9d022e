"""Makes the name under which a photo is stored: from the template, safe for SharePoint, the same every time.

The name ends in the content's hash, so that two pictures never share one, and the same picture always has
its own. Values come from events: they are cleaned by the rules for names in SharePoint and OneDrive
(support.microsoft.com, "Restrictions and limitations in OneDrive and SharePoint").
"""

from __future__ import annotations

import re
import string
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from shared.columns.dates import moment
from shared.retry.errors import PermanentError

if TYPE_CHECKING:
    from events.types import PhotoFetched

PLACEHOLDERS: Final = frozenset(
    {"date", "hash12", "sha256", "ext", "name", "project", "place", "photographer"}
)
_UNDATED: Final = "undatiert"
_LONGEST: Final = 128
"""Characters of a name. SharePoint takes 255, and 400 for the whole path below the host."""
_LONGEST_VALUE: Final = 40
_FORBIDDEN: Final = re.compile(r"[\"*:;<>?/\\|#%\x00-\x1f\x7f]+")
"""``#`` and ``%`` are allowed only where a tenant has allowed them. Graph takes no path with ``;``, encoded
or not (microsoft-graph-docs issue 20952)."""
_RESERVED: Final = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d|\.lock|desktop)(?:\.|$)")
_EXTENSIONS: Final = {
    "image/jpeg": "jpg",
    "image/mpo": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/avif": "avif",
    "image/tiff": "tif",
}
# JPEG's first pictures with EXIF are younger; an older date is a camera whose clock was never set.
_FIRST_YEAR: Final = 1990


def check_template(template: str) -> None:
    """Raise PermanentError if FILE_NAME_TEMPLATE names something that there is not."""
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise PermanentError(f"FILE_NAME_TEMPLATE={template!r} cannot be read: {error}") from error
    if unknown := sorted(used - PLACEHOLDERS):
        raise PermanentError(
            f"FILE_NAME_TEMPLATE uses {', '.join(map(repr, unknown))};"
            f" there are {', '.join(sorted(PLACEHOLDERS))}"
        )


def stored_name(template: str, photo: PhotoFetched, zone: str) -> str:
    """Make the name of a photo in the library. A template without the hash gets it at the end.

    `zone` is the site's (IANA), for a date that was written in another one. Raises PermanentError for a
    template that `check_template` refuses.
    """
    check_template(template)
    extension = _EXTENSIONS.get(photo.media_type, "bin")
    values = {
        "date": _date(photo, zone),
        "hash12": photo.sha256[:12],
        "sha256": photo.sha256,
        "ext": extension,
        "name": PurePosixPath((photo.file_name or "").replace("\\", "/")).stem,
        "project": photo.hints.project or "",
        "place": photo.hints.place or "",
        "photographer": photo.hints.photographer or "",
    }
    values = {
        key: value if key in ("hash12", "sha256", "ext") else clean(value)[:_LONGEST_VALUE].strip(" ._")
        for key, value in values.items()
    }
    name = clean(template.format(**values))
    stem = name.removesuffix(f".{extension}").strip(" ._") or "Foto"
    if not stem.endswith((photo.sha256[:12], photo.sha256)):
        stem = f"{stem}_{photo.sha256[:12]}"
    if len(stem) + len(extension) + 1 > _LONGEST:
        tail = photo.sha256 if stem.endswith(photo.sha256) else photo.sha256[:12]
        stem = stem[: _LONGEST - len(extension) - len(tail) - 2].rstrip(" ._") + "_" + tail
    if _RESERVED.match(stem):
        stem = "_" + stem
    return f"{stem}.{extension}"


def clean(text: str) -> str:
    """Remove from `text` what a SharePoint name may not hold. The result may be empty."""
    # Cf are invisible marks (right-to-left, zero width), Cs and Cn are no characters at all.
    kept = "".join(
        c
        for c in unicodedata.normalize("NFC", text)
        if unicodedata.category(c) not in ("Cf", "Cs", "Cn", "Co")
    )
    kept = _FORBIDDEN.sub("_", kept)
    kept = re.sub(r"(?i)_+vti_+", "_", " ".join(kept.split()))
    while kept != (shorter := kept.strip(" .").removeprefix("~$")):
        kept = shorter
    return kept


def _date(photo: PhotoFetched, zone: str) -> str:
    """Find the day it was taken: the camera's, else the submitter's, if it is a possible day."""
    latest = datetime.now(UTC) + timedelta(days=1)
    for text in (photo.exif.taken_at, photo.hints.taken_at):
        when = moment(text, zone) if text else None
        if when is not None and when.year >= _FIRST_YEAR and when <= latest:
            # the day of the site, as the date column has it: at 23:30 in Tokyo it is another one in Zurich
            return when.astimezone(ZoneInfo(zone)).date().isoformat()
    return _UNDATED
