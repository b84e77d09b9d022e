"""Removes from text what must not be printed: secrets, URL queries, positions.

Log lines, span attributes and messages, and dead letters all pass through `scrub`. It removes some harmless
words rather than let a secret through.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus, unquote, urlsplit, urlunsplit

import msgspec

from shared.settings import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.settings import Settings

HIDDEN: Final = "***"
POSITION: Final = "[position]"
LONGEST: Final = 16_384
"""Characters of one text that are read; the rest is cut off, so that the cost of a text is bounded."""

_SECRET_NAME: Final = (
    r"(?:[\w-]{0,40}[_-])?(?:api[_-]?key|apikey|access[_-]?key|account[_-]?key|subscription[_-]?key|key(?==)"
    r"|token|secret|password|passwd|pwd|credentials?|authorization|cookie|signature|sig|assertion)"
)
_SECRET_KEY = re.compile(
    r"(?:^|[_.\-])(?:(?:api|account|access|vision|storage)_?key|token|secret|password|passwd|pwd|credentials?"
    r"|authorization|cookie|signature)$|^x-[\w-]*key$",
    re.IGNORECASE,
)
_POSITION_KEY = re.compile(
    r"(?:^|[_.\-])(?:gps\w*|lat|lon|lng|latitude|longitude|position|coordinates?)$", re.IGNORECASE
)
_RULES: Final = (
    # An address loses userinfo, query and fragment: signatures and tokens live there.
    (
        re.compile(
            r"\b(?P<scheme>[a-z][a-z0-9+.\-]{0,30}://)(?:[^\s/?#@\"'<>]*@)*"
            r"(?P<rest>[^\s?#\"'<>]*)(?P<cut>[?#][^\s\"'<>]*)?",
            re.IGNORECASE,
        ),
        lambda found: found["scheme"] + found["rest"] + ("?" + HIDDEN if found["cut"] else ""),
    ),
    # `Authorization: Bearer …` as a header, in a dict's repr, or the credentials alone.
    (
        re.compile(
            r"\b(?P<name>authorization|cookie|set-cookie)(?P<sep>[\"']?\s*[:=]\s*)[^\r\n]+", re.IGNORECASE
        ),
        lambda found: found["name"] + found["sep"] + HIDDEN,
    ),
    (
        re.compile(r"\b(?P<name>bearer|basic|digest)\s+[A-Za-z0-9+/=._~\-]{6,}", re.IGNORECASE),
        lambda found: found["name"] + " " + HIDDEN,
    ),
    # `api_key=…`, `"client_secret": "…"`, `AccountKey=…;`, `/path?sig=…` without its host.
    (
        re.compile(
            rf"(?<![A-Za-z0-9])(?P<name>{_SECRET_NAME})(?P<sep>[\"']?\s*(?:=|:)\s*[\"']?)"
            r"(?!\*\*\*)[^\s\"'&,;<>{}\[\]()]+",
            re.IGNORECASE,
        ),
        lambda found: found["name"] + found["sep"] + HIDDEN,
    ),
    # A JSON Web Token and the usual forms of provider keys, wherever they stand.
    (re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*){0,2}"), lambda _: HIDDEN),
    (re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{16,}"), lambda _: HIDDEN),
    # WGS 84 in decimal degrees (three decimals are about 100 m), with or without names and signs.
    (
        re.compile(
            r"(?<![\d.])[-+]?\d{1,2}\.\d{3,}\s*°?\s*[NS]?"
            r"(?:\s*[,;/|]\s*|\s+|[\"']?\s*[,;&]?\s*[\"']?(?:lon|lng|longitude)[\"']?\s*[:=]\s*[\"']?)"
            r"[-+]?\d{1,3}\.\d{3,}\s*°?\s*[EWO]?(?![\w.])",
            re.IGNORECASE,
        ),
        lambda _: POSITION,
    ),
    (
        re.compile(
            r"\b(?P<name>(?:gps[ _]?)?(?:lat|lon|lng)(?:itude)?)(?P<sep>[\"']?\s*[:=]\s*[\"'(\[]?)"
            r"[-+]?\d{1,3}(?:\.\d+)?(?:[\s,/]+\d+(?:\.\d+)?){0,5}",
            re.IGNORECASE,
        ),
        lambda found: found["name"] + found["sep"] + POSITION,
    ),
    # Degrees, minutes, seconds.
    (
        re.compile(
            r"\d{1,3}\s*°\s*\d{1,2}\s*['\u2032\u2019]\s*(?:\d{1,2}(?:\.\d+)?\s*(?:\"|\u2033|''|\u201d)\s*)?[NSEWO]?",
            re.IGNORECASE,
        ),
        lambda _: POSITION,
    ),
    # The Swiss grid LV95: east 2'480'000 to 2'840'000, north 1'070'000 to 1'300'000.
    (
        re.compile(
            r"(?<![\d.])2['\u2019 ]?[4-8]\d{2}['\u2019 ]?\d{3}(?:\.\d+)?\s*[,;/ ]\s*"
            r"1['\u2019 ]?[0-3]\d{2}['\u2019 ]?\d{3}(?:\.\d+)?(?!\d)"
        ),
        lambda _: POSITION,
    ),
)
# Most texts hold nothing secret; this finds the few that may, in one pass.
_SUSPECT = re.compile(
    r"://|[=:°]|bearer|basic|digest|eyJ|[spr]k-|\d\.\d{3}|2['\u2019 ]?[4-8]\d{2}['\u2019 ]?\d{3}",
    re.IGNORECASE,
)

_known: tuple[str, ...] = ()


def remember_secrets(values: Iterable[str]) -> None:
    """Add values that must never be printed, in plain and URL-quoted form.

    Values under 4 characters are ignored: they would blank half of every sentence; real secrets are longer.
    """
    global _known  # noqa: PLW0603  # the one list of this one place; a process has one set of secrets
    forms = {
        form
        for value in values
        if len(value) >= 4
        for form in (str.__str__(value), quote(value, safe=""), quote_plus(value), unquote(value))
        if len(form) >= 4
    }
    # The longest comes first, because one secret may be the beginning of another.
    _known = tuple(sorted(forms.union(_known), key=len, reverse=True))


def secrets_of(settings: Settings) -> list[str]:
    """Return every secret value in the settings, those inside addresses included."""
    found: list[str] = []
    for name, value in msgspec.structs.asdict(settings).items():
        if not isinstance(value, str) or not value:
            continue
        # its value is one of our own words, and "secret" is one of them
        if name == "azure_credential":
            continue
        if isinstance(value, Secret) or hidden_name(name):
            found.append(str.__str__(value))
        elif name.endswith(("_url", "_endpoint")):
            parts = urlsplit(value)
            found += [part for part in (parts.password, parts.query) if part]
    return found


def scrub(text: str) -> str:
    """Return the text without secrets, URL queries, userinfo and positions; at most `LONGEST` characters."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    for secret in _known:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def public_source(url: str) -> str:
    """Return a source address that may be shown: without userinfo, query and fragment.

    Of an address that cannot be parsed, only the scheme is returned.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    except ValueError:
        return url.partition(":")[0] + ":"


@lru_cache(maxsize=1024)
def hidden_name(name: str) -> str | None:
    """Return what replaces every value under this name; None if the name is harmless."""
    if _SECRET_KEY.search(name):
        return HIDDEN
    if _POSITION_KEY.search(name):
        return POSITION
    return None


def scrub_value(value: object, *, depth: int = 4) -> object:
    """Scrub a value of a log line or span: numbers stay, containers are walked, the rest becomes text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, bytes | bytearray):
        return scrub(bytes(value[:LONGEST]).decode("utf-8", "replace"))
    if depth and isinstance(value, dict):
        return {
            str(key): hidden_name(str(key)) or scrub_value(item, depth=depth - 1)
            for key, item in value.items()
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [scrub_value(item, depth=depth - 1) for item in value]
    return scrub(str(value))
