"""Compares what is wrong on this machine with what was: each is said when it begins and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from console.disk_state import disks_of
from console.up_state import process_troubles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from shared.operations.disks import Disk
    from shared.settings import Settings

_ROOM_LOOKS: Final = 10
"""Looks in a row that find room on a disk before that is said.

A Redis that cannot save removes its temporary file, and tries again after 5 s.
"""


class Wrong(NamedTuple):
    """What is wrong on this machine, and how its end is said."""

    sentence: str
    end: str
    looks: int = 1
    """Looks in a row that do not find it any more before its end is said."""


class Conditions:
    """Knows what was said and is not over."""

    def __init__(self) -> None:
        self._known: dict[str, Wrong] = {}
        """By what it is about."""
        self._absent: dict[str, int] = {}
        """Looks in a row that did not find it."""

    def news(self, wrong: Mapping[str, Wrong], unsure: Collection[str] = ()) -> list[str]:
        """Return a sentence for each change.

        `unsure`: what is neither wrong enough to be said nor well enough to be over.
        """
        said = [one.sentence for about, one in wrong.items() if about not in self._known]
        self._known |= wrong
        for about, one in list(self._known.items()):
            well = about not in wrong and about not in unsure
            self._absent[about] = self._absent.get(about, 0) + 1 if well else 0
            if well and self._absent[about] >= one.looks:
                said.append(one.end)
                del self._known[about], self._absent[about]
        return said


def disk_conditions(disks: Iterable[Disk]) -> tuple[dict[str, Wrong], set[str]]:
    """Return what is wrong with each disk, and what is not over though it is not found now."""
    wrong: dict[str, Wrong] = {}
    unsure: set[str] = set()
    for disk in disks:
        little, full = f"disk {disk.folder}", f"disk {disk.folder} full"
        if disk.full:
            wrong[full] = Wrong(disk.trouble, f"the disk of {disk.folder} is no longer full", _ROOM_LOOKS)
        elif not disk.writable_again:
            unsure.add(full)
        if disk.trouble and not disk.full:
            wrong[little] = Wrong(disk.trouble, f"the disk of {disk.folder} has room again", _ROOM_LOOKS)
        elif not disk.has_room_again:
            unsure.add(little)
    return wrong, unsure


def conditions_here(settings: Settings) -> tuple[dict[str, Wrong], set[str], bool]:
    """Look at this machine: its disks, the processes of which Redis knows nothing; and is a disk full."""
    disks = disks_of(settings)
    wrong, unsure = disk_conditions(disks)
    frozen = process_troubles(settings)
    ends = {name: Wrong(sentence, f"{name}: its process goes on") for name, sentence in frozen.items()}
    return wrong | ends, unsure, any(disk.full for disk in disks)
