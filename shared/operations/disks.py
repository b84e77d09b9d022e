"""Reads how much room the disks have on which a system keeps its data on this machine."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TOO_LITTLE_BYTES: Final = 100_000_000
"""Below this a person has to look: some agents write photos of up to 15 MB (MAX_PHOTO_BYTES) at a time."""
FULL_BYTES: Final = 1_000_000
"""Below this nothing works: Redis and the photo store are refused what they write."""
_MARGIN: Final = 20
"""A disk is no longer full at this many times the limit: one photo, which waits, has 15 MB at most."""
_ROOM: Final = 1.2
"""A disk has room again at this many times the limit."""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the room of one disk, in bytes, and a folder on it that the system uses."""

    folder: str
    free: int
    """What a user without special rights may still write."""
    total: int
    files_left: bool = True
    """Whether the file system can still make files: it may run out of inodes before it is full."""

    @property
    def full(self) -> bool:
        """Whether nothing can be written now."""
        return self.free < FULL_BYTES or not self.files_left

    @property
    def writable_again(self) -> bool:
        """Whether a disk that was full is so no longer: well above the limit, around which room may swing."""
        return self.free >= _MARGIN * FULL_BYTES and self.files_left

    @property
    def has_room_again(self) -> bool:
        """Whether a disk that had little room has enough, with the same care."""
        return self.free >= _ROOM * TOO_LITTLE_BYTES and self.files_left

    @property
    def trouble(self) -> str:
        """Say what is wrong and what to do; '' while there is room."""
        room = f"{_size(self.free)} of {_size(self.total)} are free"
        if not self.files_left:
            room += ", but it can hold no more files (no inodes are left)"
        if self.full:
            return (
                f"the disk of {self.folder} is full: {room}. Free some space there, or move the folder to a"
                " larger disk. Photos wait meanwhile, none is lost, and all goes on by itself"
            )
        if self.free < TOO_LITTLE_BYTES:
            return (
                f"the disk of {self.folder} is nearly full: {room}. Free some space there (at least"
                f" {_size(TOO_LITTLE_BYTES)}): when it is full, photos have to wait"
            )
        return ""

    @property
    def sentence(self) -> str:
        """Say how much room there is."""
        return self.trouble or f"{self.folder}: {_size(self.free)} of {_size(self.total)} are free"


def read_disks(folders: Iterable[Path]) -> list[Disk]:
    """Read the disk of each folder that exists, each disk once, under the first of its folders."""
    found: dict[int, Disk] = {}
    for folder in folders:
        try:
            device = folder.stat().st_dev
            usage, system = shutil.disk_usage(folder), os.statvfs(folder)
        except OSError:
            continue
        # a file system that does not count its inodes says that it has none at all
        files_left = not system.f_files or system.f_favail > 0
        found.setdefault(
            device, Disk(folder=str(folder), free=usage.free, total=usage.total, files_left=files_left)
        )
    return list(found.values())


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
