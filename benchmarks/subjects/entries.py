"""Makes the entries that every subject hands on: CloudEvents of 480 bytes, with trace and fingerprint."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.peers.stopwatch import ask, send_all

SIZE: Final = 480
"""Bytes of an entry: the names and values of its fields."""
STREAM: Final = "erni:photo.submitted"
OUTPUT: Final = "erni:schema.extracted"
SESSIONS: Final = 20
_AT_ONCE: Final = 1000


def fields(number: int, *, session: bool = False, sampled: bool = False) -> dict[str, str]:
    """Make one entry. `session`: it belongs to one of SESSIONS sessions; `sampled`: its trace is recorded."""
    entry = {
        "id": f"{number:032x}",
        "source": "benchmark",
        "type": "photo.submitted",
        "specversion": "1.0",
        "time": "2026-01-01T00:00:00.000+00:00",
        "subject": f"photo-{number:08}",
        "datacontenttype": "application/json",
        "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-0{int(sampled)}",
        # as `Publisher` writes it: the entry was marked when it was published
        "ernionce": f"sha256:{number:064x}",
    }
    if session:
        entry["sessionid"] = f"session-{number % SESSIONS:02}"
    data = {"source_url": f"https://example.org/{number:08}.jpg", "file_name": ""}
    room = SIZE - sum(len(name) + len(value) for name, value in entry.items()) - len("data")
    data["file_name"] = "x" * (room - len(json.dumps(data)))
    entry["data"] = json.dumps(data)
    return entry


def fill(url: str, entries: int, *, session: bool = False, sampled: bool = False) -> None:
    """Empty the server and put `entries` events into the first stream."""
    ask(url, "FLUSHALL", "SYNC")
    for start in range(0, entries, _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, entries))
        events = (fields(number, session=session, sampled=sampled) for number in rows)
        send_all(url, [("XADD", STREAM, "*", *(part for pair in e.items() for part in pair)) for e in events])
