"""Measures one subject from inside its process: seconds, its own CPU, and the CPU of the Redis server.

Only the standard library: the environments of other libraries run it too.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


def server_cpu(url: str) -> float:
    """Seconds of CPU that the server has used since it started (``INFO CPU``, user and system)."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379), 10) as link:
        link.sendall(b"INFO CPU\r\n")
        with link.makefile("rb") as lines:
            size = int(lines.readline()[1:])
            text = lines.read(size).decode()
    used = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


class Stopwatch:
    """Runs from the first entry that reaches the handler until the last entry is handed off."""

    def __init__(self, url: str, entries: int, on_last: Callable[[], None]) -> None:
        """`on_last` is called when the handler has the last entry; its hand-off is still to come."""
        self._url = url
        self._entries = entries
        self._on_last = on_last
        # next() is atomic: handlers may run in several threads
        self._numbers = itertools.count(1)
        self._began = (0.0, 0.0, 0.0)

    def entry(self) -> None:
        """Count one entry in the handler."""
        number = next(self._numbers)
        if number == 1:
            self._began = self._now()
        if number == self._entries:
            self._on_last()

    def stop(self) -> str:
        """Return the figures as one line of JSON. Call it when the server has the last hand-off."""
        seconds, client, server = (now - began for now, began in zip(self._now(), self._began, strict=True))
        return json.dumps(
            {
                "entries": self._entries,
                "seconds": seconds,
                "client_seconds": client,
                "server_seconds": server,
            }
        )

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), server_cpu(self._url)
