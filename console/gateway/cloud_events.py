"""Reads CloudEvents 1.0 from HTTP requests in the three modes of the HTTP binding 1.0.2, by its letter.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec

from events import attributes
from events.codec import reason

if TYPE_CHECKING:
    from collections.abc import Iterable

Mode: TypeAlias = Literal["binary", "structured", "batch"]
STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_REQUIRED: Final = ("specversion", "id", "source", "type")
_CORE: Final = frozenset({*_REQUIRED, "datacontenttype", "dataschema", "subject", "time"})
_NAME: Final = re.compile(r"[a-z0-9]+", re.ASCII)
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}\s*(?:;.*)?", re.ASCII | re.DOTALL)
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([\w-]+)", re.IGNORECASE | re.ASCII)
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S*", re.ASCII)
_FORBIDDEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
"""What an attribute's text must not have (CloudEvents § Type System)."""
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class NotACloudEventError(ValueError):
    """Raised for what is no CloudEvent; the message says why."""

    def __init__(self, message: str, pointer: str = "") -> None:
        """`pointer`: JSON pointer inside the event, or the name of the header."""
        super().__init__(message)
        self.pointer = pointer


class MediaTypeError(ValueError):
    """Raised for a body of a kind that is not taken here; the message says what is."""


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvent as it was received: valid, whatever it is about."""

    attributes: dict[str, str]
    """All context attributes in their canonical text, `datacontenttype` among them."""
    data: bytes | None = None

    @property
    def has_json(self) -> bool:
        """Return whether the data is JSON: `datacontenttype` says so (UTF-8, RFC 8259 § 8.1)."""
        declared = self.attributes.get("datacontenttype", "")
        if declared == "application/json":
            return True
        kind, _, parameters = declared.partition(";")
        subtype = kind.strip().lower().rpartition("/")[2]
        charset = _CHARSET.search(parameters)
        is_utf8 = charset is None or charset[1].lower() in ("utf-8", "utf8", "us-ascii")
        return is_utf8 and (subtype == "json" or subtype.endswith("+json"))


def mode_of(content_type: str) -> Mode:
    """Return the mode that a request's Content-Type means. Raises MediaTypeError for formats not taken."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == BATCH:
        return "batch"
    if kind == STRUCTURED:
        return "structured"
    if kind.startswith("application/cloudevents"):
        raise MediaTypeError(f"{kind[:80]!r} is not taken: send {STRUCTURED} or {BATCH}")
    return "binary"


def read_binary(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> CloudEvent:
    """Read an event whose attributes are headers. Raises NotACloudEventError."""
    found: dict[str, str] = {}
    for raw_name, raw in headers:
        header = raw_name.decode("ascii", "replace").lower()
        if header == "content-type":
            _set_once(found, "datacontenttype", header, raw.decode("latin-1").strip())
        elif header == "ce-datacontenttype":
            raise NotACloudEventError(
                "the header ce-datacontenttype is not allowed: Content-Type says what the data is", header
            )
        elif header.startswith("ce-"):
            name = header[3:]
            if not _NAME.fullmatch(name):
                raise NotACloudEventError(
                    f"the header {header[:40]} names no attribute: a name has only a-z and 0-9", header[:40]
                )
            try:
                value = decoded_header(raw)
            except ValueError as error:
                raise NotACloudEventError(f"the header {header[:40]} {error}", header[:40]) from None
            _set_once(found, name, header, value)
    if not any(name in found for name in _REQUIRED):
        raise NotACloudEventError(
            "the request has no headers ce-specversion, ce-id, ce-source and ce-type, and its Content-Type is"
            f" neither {STRUCTURED} nor {BATCH}"
        )
    for name, value in found.items():
        _check(name, value, f"ce-{name}" if name != "datacontenttype" else "content-type", "the header ")
    _check_required(found, "the header ce-", "ce-")
    return CloudEvent(attributes=found, data=body or None)


def _set_once(found: dict[str, str], name: str, header: str, value: str) -> None:
    if name in found:
        raise NotACloudEventError(f"the header {header} is there twice: which one counts?", header)
    found[name] = value


def decoded_header(raw: bytes) -> str:
    """Return the text of a header's value: quoted strings first, then one round of percent-decoding.

    Raises ValueError; its text continues a sentence about the header.
    """
    try:
        text = raw.decode("ascii").strip(" \t")
    except UnicodeDecodeError:
        raise ValueError("has characters outside ASCII: write them percent-encoded, %C3%BC for ü") from None
    if '"' in text:
        text = _QUOTED.sub(lambda quoted: re.sub(r"\\(.)", r"\1", quoted[1]).replace('"', "%22"), text)
        if '"' in text:
            raise ValueError("has a double quote without its end")
    if _PERCENT.search(text):
        raise ValueError("has a % that begins no percent-encoding: write %25")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is percent-encoded, but not as UTF-8") from None


def read_structured(body: bytes) -> CloudEvent:
    """Read an event that is one JSON object. Raises NotACloudEventError."""
    try:
        members = _MEMBERS.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotACloudEventError(f"this is no JSON object: {reason(error)}") from None
    found: dict[str, str] = {}
    for name, raw in members.items():
        if name in ("data", "data_base64"):
            continue
        if not _NAME.fullmatch(name):
            raise NotACloudEventError(
                f"{name[:40]!r} names no attribute: a name has only a-z and 0-9", f"/{_pointer(name)}"
            )
        value = _text(name, bytes(raw))
        if value is not None:
            _check(name, value, f"/{name}", "")
            found[name] = value
    _check_required(found, "", "/")
    data = _data(members)
    if "data" in members:
        found.setdefault("datacontenttype", "application/json")
    return CloudEvent(attributes=found, data=data)


def read_batch(body: bytes) -> list[CloudEvent | NotACloudEventError]:
    """Read events that are one JSON array; an element that is no event is its error.

    Raises NotACloudEventError if it is no array.
    """
    try:
        elements = _ELEMENTS.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotACloudEventError(f"this is no JSON array of events: {reason(error)}") from None
    found: list[CloudEvent | NotACloudEventError] = []
    for element in elements:
        try:
            found.append(read_structured(bytes(element)))
        except NotACloudEventError as error:
            found.append(error)
    return found


def _text(name: str, raw: bytes) -> str | None:
    """Return the canonical text of a JSON member; None for null, which counts as missing."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotACloudEventError(f"{name} is no JSON value: {reason(error)}", f"/{name}") from None
    if value is None or isinstance(value, str):
        return value
    if name in _CORE:
        raise NotACloudEventError(f"{name} is no text: write it as a JSON string", f"/{name}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return str(value)
    raise NotACloudEventError(
        f"{name} is neither a text nor a boolean nor a whole number of 32 bits", f"/{name}"
    )


def _data(members: dict[str, msgspec.Raw]) -> bytes | None:
    if "data" in members and "data_base64" in members:
        raise NotACloudEventError("the event has both data and data_base64: which one counts?", "/data")
    if "data_base64" in members:
        try:
            return base64.b64decode(msgspec.json.decode(members["data_base64"], type=str), validate=True)
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            raise NotACloudEventError("data_base64 is no base64 text", "/data_base64") from None
    if "data" not in members:
        return None
    return bytes(members["data"])


def _check(name: str, value: str, pointer: str, what: str) -> None:
    """Check an attribute that is there. Raises NotACloudEventError."""
    where = f"{what}{pointer.removeprefix('/')}"
    if forbidden := _FORBIDDEN.search(value):
        raise NotACloudEventError(
            f"{where} has the character U+{ord(forbidden[0]):04X}, which no attribute may have", pointer
        )
    if not value and name in _CORE:
        remedy = "write a text" if name in _REQUIRED else "write a text, or leave it out"
        raise NotACloudEventError(f"{where} is empty: {remedy}", pointer)
    if name == "specversion" and value != attributes.SPEC_VERSION:
        raise NotACloudEventError(
            f"specversion {value[:40]!r} is not supported: send CloudEvents {attributes.SPEC_VERSION}",
            pointer,
        )
    if name == "time" and not attributes.is_timestamp(value):
        raise NotACloudEventError(
            f"time {value[:40]!r} is no RFC 3339 timestamp: write 2026-05-12T10:30:00Z, or leave it out",
            pointer,
        )
    if name == "source":
        try:
            attributes.source(value)
        except ValueError as error:
            raise NotACloudEventError(str(error), pointer) from None
    if name == "datacontenttype" and not _MEDIA_TYPE.fullmatch(value):
        raise NotACloudEventError(f"{where} {value[:40]!r} is no media type: write application/json", pointer)
    if name == "dataschema" and not _ABSOLUTE_URI.fullmatch(value):
        raise NotACloudEventError(f"dataschema {value[:40]!r} is no absolute URI", pointer)


def _check_required(found: dict[str, str], what: str, pointer: str) -> None:
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        names = " and ".join(f"{what}{name}" for name in missing)
        raise NotACloudEventError(
            f"{names} {'is' if len(missing) == 1 else 'are'} missing, which every CloudEvent has",
            f"{pointer}{missing[0]}",
        )


def _pointer(name: str) -> str:
    """Return a name as a part of a JSON pointer (RFC 6901)."""
    return name[:40].replace("~", "~0").replace("/", "~1")
