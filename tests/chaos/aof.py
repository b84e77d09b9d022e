"""Reads hand-offs out of append-only files: the server's own record of every entry that was ever added.

Streams forget (settling deletes), counters could be wrong in the same way as what they count; this file is
written by the server alone, and cut by a power cut exactly where its memory is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import hiredis

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CHUNK: Final = 1 << 20
_BACK: Final = (b"ernidelayed", b"ernireplay")


@dataclass
class HandOffs:
    """How often what was added to which stream (name without the prefix ``erni:``)."""

    handed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stream, photo id, or event id where there is no photo): by a publish or a hand-off."""
    came_back: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The same, by a postponement's end or a replay."""


def read(files: Iterable[Path]) -> HandOffs:
    """Read append-only files, oldest first. A cut last command counts as not written, as for the server."""
    found = HandOffs()
    for path in files:
        reader = hiredis.Reader()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                reader.feed(chunk)
                while (command := reader.gets()) is not False:
                    _note(found, command)
    return found


def _note(found: HandOffs, command: list[bytes]) -> None:
    if command[0].upper() != b"XADD":
        return
    stream = command[1].decode().removeprefix("erni:")
    at = 2
    while command[at] in (b"MAXLEN", b"MINID", b"NOMKSTREAM", b"~", b"=") or (
        b"-" not in command[at] and command[at] != b"*"
    ):
        at += 1
    flat = command[at + 1 :]
    pairs = dict(zip(flat[::2], flat[1::2], strict=True))
    whom = pairs.get(b"subject") or pairs.get(b"photo") or pairs.get(b"id") or b"?"
    back = len(flat) >= 2 and flat[-2] in _BACK
    (found.came_back if back else found.handed)[stream, whom.decode(errors="replace")] += 1
