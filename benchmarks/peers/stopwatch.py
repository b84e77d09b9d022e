"""Measures one subject from inside its process: seconds, its own CPU, and the CPU of the Redis server.

It imports only the standard library, because the environments of other libraries run it too.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POLL_SECONDS: Final = 0.002
PATIENCE_SECONDS: Final = 45.0


def _request(words: Sequence[str]) -> bytes:
    """Encode one command as the server reads it; words are ASCII."""
    return "".join((f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words))).encode()


def _connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379), 30)


def ask(url: str, *words: str) -> bytes:
    """Return the server's answer to one command: the text of a bulk reply, or the first number of another."""
    with _connect(url) as link:
        link.sendall(_request(words))
        with link.makefile("rb") as lines:
            line = lines.readline()
            if line[:1] == b"$":
                return lines.read(int(line[1:]))
            if line[:1] == b"*":
                line = lines.readline()
            if line[:1] == b"-":
                raise SystemExit(f"Redis refuses {' '.join(words)}: {line[1:].decode().strip()}")
            return line[1:].strip()


def send_all(url: str, commands: Sequence[Sequence[str]]) -> None:
    """Send commands whose replies are bulk texts, all at once. Raises SystemExit if one is refused."""
    with _connect(url) as link:
        link.sendall(b"".join(map(_request, commands)))
        with link.makefile("rb") as lines:
            for words in commands:
                line = lines.readline()
                if line[:1] != b"$":
                    raise SystemExit(f"Redis refuses {words[0]}: {line[1:].decode().strip()}")
                lines.readline()


def server_cpu(url: str) -> float:
    """Return the seconds of CPU that the server has used since its start (``INFO CPU``, user and system)."""
    lines = ask(url, "INFO", "CPU").decode().splitlines()
    used = dict(line.split(":", 1) for line in lines if ":" in line)
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


class Stopwatch:
    """Run from the first entry that reaches the handler until the last entry is handed off."""

    def __init__(self, url: str, entries: int, on_last: Callable[[], None]) -> None:
        """Call `on_last` when the handler has the last entry; its hand-off is still to come."""
        self._url = url
        self._entries = entries
        self._on_last = on_last
        # next() is atomic: handlers may run in several threads
        self._numbers = itertools.count(1)
        self._began = self._ended = (0.0, 0.0, 0.0)

    def entry(self) -> None:
        """Count one entry in the handler."""
        number = next(self._numbers)
        if number == 1:
            self._began = self._now()
        if number == self._entries:
            self._on_last()

    def stop(self) -> None:
        """Stop the clock. Call it when the server has the last hand-off."""
        self._ended = self._now()

    def flushed(self) -> None:
        """Count the process's CPU up to now. Call it when queued data, such as spans, has been sent."""
        seconds, _, server = self._ended
        self._ended = (seconds, time.process_time(), server)

    def report(self) -> None:
        """Print the figures as one line of JSON."""
        seconds, client, server = (
            ended - began for ended, began in zip(self._ended, self._began, strict=True)
        )
        print(json.dumps({"seconds": seconds, "client_seconds": client, "server_seconds": server}))

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), server_cpu(self._url)


def settled(url: str, entries: int, output: Sequence[str], rest: Sequence[str]) -> bool:
    """Return whether `output` counts `entries` outputs and `rest` counts no unsettled entry."""
    return int(ask(url, *output)) >= entries and int(ask(url, *rest)) == 0


def wait_settled(url: str, entries: int, output: Sequence[str], rest: Sequence[str]) -> None:
    """Wait for `settled`. Raises SystemExit when it takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not settled(url, entries, output, rest):
        if time.monotonic() > deadline:
            raise SystemExit(_shortfall(url, entries, output, rest))
        time.sleep(POLL_SECONDS)


async def when_settled(
    url: str, entries: int, output: Sequence[str], rest: Sequence[str], last: asyncio.Event
) -> None:
    """Wait in an event loop until `last` is set, and then for `settled`. Raises SystemExit likewise."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await last.wait()
            while not settled(url, entries, output, rest):  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise SystemExit(_shortfall(url, entries, output, rest)) from None


def _shortfall(url: str, entries: int, output: Sequence[str], rest: Sequence[str]) -> str:
    return (
        f"only {int(ask(url, *output))} of {entries} entries were handed off within {PATIENCE_SECONDS:g} s,"
        f" {int(ask(url, *rest))} are unsettled"
    )


class Order(argparse.Namespace):
    """Hold what a subject is asked to do."""

    action: str
    url: str
    entries: int
    mode: str
    endpoint: str


def order() -> Order:
    """Read the order from the command line: ``fill|run URL ENTRIES [--mode MODE] [--endpoint ADDRESS]``."""
    parser = argparse.ArgumentParser(description="One subject of benchmarks.handoff.")
    parser.add_argument("action", choices=("fill", "run"))
    parser.add_argument("url")
    parser.add_argument("entries", type=int)
    parser.add_argument("--mode", default="")
    parser.add_argument("--endpoint", default="")
    return parser.parse_args(namespace=Order())
