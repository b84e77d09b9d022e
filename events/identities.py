"""Defines the identities of events, photos, sessions, contents and schemas, and checks their text."""

from __future__ import annotations

import hashlib
import os
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


class _Sequence:
    """Makes event ids: the millisecond, a number within it, and what tells this process from others."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take another random part: a forked child must not go on with its parent's."""
        # RFC 9562 § 6.2: a counter in rand_a (12 bits), and rand_b random, here once for each process
        noise = int.from_bytes(os.urandom(8), "big")
        self._process = f"{0x8000 | noise >> 48 & 0x3FFF:04x}-{noise & (1 << 48) - 1:012x}"
        self._millis = 0
        self._number = 0
        self._moment = ""

    def next(self) -> EventId:
        """Return the next id. A 4,097th one within a millisecond is dated into the next millisecond."""
        millis = time.time_ns() // 1_000_000
        if millis > self._millis:
            self._begin(millis)
        elif self._number >= 0xFFF:
            self._begin(self._millis + 1)
        self._number += 1
        return EventId(f"{self._moment}-7{self._number:03x}-{self._process}")

    def _begin(self, millis: int) -> None:
        text = f"{millis & (1 << 48) - 1:012x}"
        self._millis, self._number, self._moment = millis, -1, f"{text[:8]}-{text[8:]}"


_sequence = _Sequence()
new_event_id = _sequence.next
"""A time-ordered UUID (RFC 9562, version 7), so that ids sort by the time they were made."""
os.register_at_fork(after_in_child=_sequence.renew)
