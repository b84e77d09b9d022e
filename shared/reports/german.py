"""Writes numbers, times and values as Swiss readers do, and holds the page's words for our terms."""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from events.types import FieldText
    from shared.columns.schema import ColumnKind

AGENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "schema_extractor": "Spalten lesen",
        "photo_fetcher": "Foto holen",
        "vision_analyzer": "Bild beschreiben",
        "sharepoint_uploader": "In SharePoint ablegen",
        "validation_reporter": "Nachprüfen",
    }
)
SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {"exif": "Kamera", "hint": "Angabe", "vision": "Bildanalyse", "default": "Standardwert"}
)
OUTCOMES: Final[Mapping[str, str]] = MappingProxyType(
    {"created": "neu angelegt", "replaced": "ersetzt", "unchanged": "war schon da"}
)
DEATHS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "permanent": "So nicht verwendbar.",
        "exhausted": "Ein Dienst hat auch nach mehreren Versuchen nicht geantwortet.",
        "delivery_limit": "Die Verarbeitung ist mehrmals abgebrochen.",
        "undecodable": "Der Auftrag ist nicht lesbar. Bitte das Foto neu einreichen.",
    }
)
CAUSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "file": "Die Datei ist kein Foto, das sich verwenden lässt. Bitte eine gute Datei einreichen.",
        "source": "Das Foto liess sich nicht von seiner Adresse holen.",
        "library": "Die Bibliothek in SharePoint fehlt, oder sie lässt uns nicht hinein.",
        "vision": "Die Bildanalyse hat dieses Foto nicht beschrieben.",
        "filing": "SharePoint hat das Foto oder einen seiner Werte nicht angenommen.",
        "readback": "Beim Nachprüfen fehlte das Foto, oder ein verlangter Wert stimmt nicht.",
    }
)
"""By the code that a dead letter carries."""
FINAL: Final = frozenset({"file"})
"""Causes that lie in the file itself: the same file never gets through."""


ZONES: Final[Mapping[str, str]] = MappingProxyType({"CET": "MEZ", "CEST": "MESZ"})
"""Short names of zones that differ from the English ones of the IANA data; all others stay as they are."""


def number(value: float, digits: int = 0) -> str:
    """Write a number with the given decimals; from five places on it gets Swiss apostrophes."""
    return _grouped(value, f".{digits}f")


def money(value: float, currency: str) -> str:
    """Write an amount; below ten cents it has two significant digits."""
    amount = number(value, 2) if value >= 0.1 or value == 0 else f"{value:.2g}"
    return f"{currency} {amount}".strip()


def duration(seconds: float) -> str:
    """Write a duration: ``0.04 s``, ``12.3 s``, ``2 min 5 s``, ``1 h 12 min``."""
    if seconds < 59.95:  # a value that would be rounded to 60.0 is a minute
        return f"{number(seconds, 2 if seconds < 1 else 1)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{number(whole // 3600)} h {whole % 3600 // 60} min"


def size(octets: int) -> str:
    """Write bytes in kB or MB (decimal, as file managers show them)."""
    return f"{number(octets / 1e6, 1)} MB" if octets >= 1e6 else f"{number(max(octets / 1e3, 0.1), 1)} kB"


def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name; UTC if the machine has no such zone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def moment(unix: float, where: tzinfo) -> str:
    """Write a point in time with its zone: ``12.05.2026, 14:03 MESZ``."""
    return _with_zone(datetime.fromtimestamp(unix, where), "%d.%m.%Y, %H:%M")


def clock(unix: float, where: tzinfo) -> str:
    """Write a time of day with its zone: ``14:03 MESZ``."""
    return _with_zone(datetime.fromtimestamp(unix, where), "%H:%M")


def _with_zone(when: datetime, form: str) -> str:
    zone = when.strftime("%Z")
    return f"{when.strftime(form)} {ZONES.get(zone, zone)}"


def iso(text: str, where: tzinfo, *, with_time: bool) -> str:
    """Write an ISO 8601 date (and time) for people; other text stays as it is.

    A time that names no zone, such as a camera's, is the one of its place, and is written without a zone.
    """
    try:
        if len(text) == 10:
            return date.fromisoformat(text).strftime("%d.%m.%Y")
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return text
    if not with_time:
        return (parsed.astimezone(where) if parsed.tzinfo else parsed).strftime("%d.%m.%Y")
    if parsed.tzinfo is None:
        return parsed.strftime("%d.%m.%Y, %H:%M")
    return _with_zone(parsed.astimezone(where), "%d.%m.%Y, %H:%M")


def value(what: FieldText, kind: ColumnKind, where: tzinfo) -> list[str]:
    """Return a field's value as words, one per choice; an empty list is an empty field."""
    match what:
        case None | "" | []:
            return []
        case bool():
            return ["Ja" if what else "Nein"]
        case list():
            return what
        case int() | float():
            return [_grouped(what, ".12g")]
        case str() if kind in ("date", "date_time"):
            return [iso(what, where, with_time=kind == "date_time")]
    return [str(what)]


def _grouped(value: float, form: str) -> str:
    comma = "," if abs(value) >= 10_000 else ""
    return format(value, comma + form).replace(",", "\N{RIGHT SINGLE QUOTATION MARK}")
