"""Defines the identities of events, photos, sessions, contents and schemas, and checks their text."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from typing import NewType

EventId = NewType("EventId", str)
PhotoId = NewType("PhotoId", str)
SessionId = NewType("SessionId", str)
EntryId = NewType("EntryId", str)
"""A Redis stream entry id, ``milliseconds-sequence``."""
Sha256 = NewType("Sha256", str)
"""64 lower-case hex digits of the original bytes."""
SchemaDigest = NewType("SchemaDigest", str)
"""64 lower-case hex digits of a library's normalised columns."""
StoreUrl = NewType("StoreUrl", str)
"""``store:<key>``: a blob in the photo store, for example ``store:originals/<sha256>``."""

# Ids become parts of Redis keys and of file names: no braces (a hash tag), no colon (our separator), no
# slash, no control characters; 128 characters keep a key short.
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@+=-]{0,127}"
_ID = re.compile(ID_PATTERN)
_ID_RULE = "1 to 128 characters out of A-Z a-z 0-9 . _ @ + = -, the first one a letter or digit"
# `erni:session:open`, `erni:session:lru` and `erni:session:stats` lie beside the session hashes.
RESERVED_SESSIONS = frozenset({"open", "lru", "stats"})


class InvalidIdError(ValueError):
    """Raised for an id from outside that cannot be used; the message says which, why and what is allowed."""


def photo_id(text: str) -> PhotoId:
    """Check an upstream's photo id. Raises InvalidIdError."""
    if not _ID.fullmatch(text):
        raise InvalidIdError(f"photo_id {text[:80]!r} cannot be used: give {_ID_RULE}")
    return PhotoId(text)


def session_id(text: str) -> SessionId:
    """Check an upstream's session id. Raises InvalidIdError."""
    if text in RESERVED_SESSIONS:
        raise InvalidIdError(f"session_id {text!r} is a reserved word: choose another id")
    if not _ID.fullmatch(text):
        raise InvalidIdError(f"session_id {text[:80]!r} cannot be used: give {_ID_RULE}")
    return SessionId(text)


def derived_photo_id(session: SessionId | None, source_url: str) -> PhotoId:
    """Derive a photo id where the submission names none: one address in one session is one photo."""
    text = f"{session or ''}\n{source_url}".encode("utf-8", "surrogatepass")
    return PhotoId("p-" + hashlib.sha256(text).hexdigest()[:24])


def new_event_id() -> EventId:
    """Make a time-ordered UUID (RFC 9562, version 7), so that ids sort by their time."""
    # not os.urandom: an id must be unique, not secret, and a system call for each is the greatest cost here
    noise = _noise.getrandbits(74)
    millis = time.time_ns() // 1_000_000 & (1 << 48) - 1
    text = f"{millis << 80 | 7 << 76 | noise >> 62 << 64 | 2 << 62 | noise & (1 << 62) - 1:032x}"
    return EventId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


_noise = random.Random(os.urandom(32))  # noqa: S311 - see new_event_id
# a forked child must not go on with its parent's sequence
os.register_at_fork(after_in_child=lambda: _noise.seed(os.urandom(32)))
