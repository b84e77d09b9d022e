"""Cuts an append-only file that a power cut left torn back to its last whole transaction.

The server truncates a torn file itself when it starts, but only to the last whole command. If that command
stands inside a MULTI (Redis writes each script as one), the MULTI stays open in the file. What is written
after the start then follows inside of it: the next start takes all of that for a part of the transaction, and
commands that were acknowledged are lost or mixed up. `redis-check-aof --fix` cuts in front of the MULTI, as
this does; the bundled server comes without that program.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST: Final = "appendonlydir/appendonly.aof.manifest"
_BEGIN: Final = re.compile(rb"^\*\d+\r\n", re.MULTILINE)
_END: Final = re.compile(rb"^EXEC\r\n", re.MULTILINE | re.IGNORECASE)
_INCREMENT: Final = re.compile(r"file (\S+) seq \d+ type i\b.*$", re.MULTILINE)


class _TornError(Exception):
    """The file ends in the middle of a command."""


def repair(folder: Path) -> int:
    """Cut the last file of the log in a server's data folder after its last whole transaction.

    Call it while no server uses the folder. Returns the bytes that were cut, 0 where nothing was torn. A file
    that is damaged in the middle, so that whole commands follow, is left as it is: a cut would lose them, and
    the server says what is wrong with it. Raises OSError if the file cannot be read or cut.
    """
    try:
        manifest = (folder / MANIFEST).read_text()
    except FileNotFoundError:
        return 0
    names = _INCREMENT.findall(manifest)
    file = folder / MANIFEST
    if not names or not (file := file.with_name(names[-1])).exists():
        return 0
    size = file.stat().st_size
    whole = _whole(file) if size else 0
    if whole < size:
        with file.open("r+b") as log:
            log.truncate(whole)
            os.fsync(log.fileno())
    return size - whole


def _whole(file: Path) -> int:
    """Return the length of the file up to its last whole transaction."""
    with file.open("rb") as log, mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place, whole, transaction = 0, 0, False
        try:
            while place < len(data):
                place, word = _command(data, place)
                if word == b"multi":
                    transaction = True
                elif word == b"exec":
                    transaction = False
                if not transaction:
                    whole = place
        except _TornError:
            pass
        except ValueError:
            return len(data)
        return len(data) if _goes_on(data, whole, transaction=transaction) else whole


def _goes_on(data: mmap.mmap, whole: int, *, transaction: bool) -> bool:
    """Return whether whole commands follow what looks torn: a damaged length swallows them up to the end.

    A torn transaction has no end, and a torn command begins once. A value that contains such lines is taken
    for damage too: a person decides then.
    """
    if transaction:
        return _END.search(data, whole) is not None
    return sum(1 for _ in itertools.islice(_BEGIN.finditer(data, whole), 2)) > 1


def _command(data: mmap.mmap, place: int) -> tuple[int, bytes]:
    """Return where the next command begins, and the name of this one in small letters, if it is short.

    Raises ValueError for something that is no command.
    """
    if data[place : place + 1] == b"#":  # a time stamp (aof-timestamp-enabled)
        return _line(data, place)[0], b""
    place, count = _number(data, place, b"*")
    name = b""
    for number in range(count):
        place, length = _number(data, place, b"$")
        if place + length + 2 > len(data):
            raise _TornError
        if number == 0 and length <= len("multi"):
            name = data[place : place + length].lower()
        place += length + 2
        if data[place - 2 : place] != b"\r\n":
            raise ValueError(f"no end of a word at byte {place}")
    return place, name


def _number(data: mmap.mmap, place: int, mark: bytes) -> tuple[int, int]:
    if place >= len(data):
        raise _TornError
    end, line = _line(data, place)
    if line[:1] != mark:
        raise ValueError(f"no command at byte {place}")
    return end, int(line[1:])


def _line(data: mmap.mmap, place: int) -> tuple[int, bytes]:
    end = data.find(b"\r\n", place, place + 64)
    if end < 0:
        if len(data) - place < 64:
            raise _TornError
        raise ValueError(f"no line at byte {place}")
    return end + 2, data[place:end]
