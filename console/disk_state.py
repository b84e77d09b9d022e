"""Finds the folders of this machine on which the system keeps its data, and says which disk is full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dotenv import dotenv_values

from console.up_state import erni_of, process_troubles
from shared.operations.disks import Disk, read_disks

if TYPE_CHECKING:
    from shared.settings import Settings


def store_folder(settings: Settings) -> Path | None:
    """Return the folder of the photo store; None where the store is a service."""
    url = settings.photo_store_url
    is_folder = urlsplit(url).scheme in ("", "file")
    return Path(url.removeprefix("file://")).absolute() if is_folder else None


def disks_of(settings: Settings) -> list[Disk]:
    """Read the disks of this system: of its `.erni`, if an `erni up` runs it, and of its photo store."""
    erni, store = erni_of(settings), store_folder(settings)
    folders = [erni, erni / "redis"] if erni else []
    return read_disks([*folders, *([store] if store else [])])


def disk_troubles(settings: Settings) -> list[str]:
    """Return a sentence for each disk that is full or nearly full."""
    return [disk.trouble for disk in disks_of(settings) if disk.trouble]


def problems_here(settings: Settings) -> list[str]:
    """Return what is wrong on this machine: its disks, and processes of `erni up` that Redis does not know.

    It blocks for as long as a disk does, such as a network drive.
    """
    return [*disk_troubles(settings), *process_troubles(settings).values()]


def full_disk(erni: Path, settings: Settings | None = None) -> str:
    """Say which disk is so full that nothing can run in this `.erni`; '' if none is."""
    store = store_folder(settings) if settings else None
    there = erni if erni.is_dir() else erni.absolute().parent
    disks = read_disks([there.absolute(), (erni / "redis").absolute(), *([store] if store else [])])
    return next((disk.trouble for disk in disks if disk.full), "")


def is_full(folder: Path) -> bool:
    """Return whether the disk of a folder is full."""
    return any(disk.full for disk in read_disks([folder]))


def stand_in_folder(settings: Settings) -> Path | None:
    """Return the `.erni` in which the local stand-in for SharePoint keeps its files; None: there is no such.

    `erni up` writes its address there only where it starts one.
    """
    erni = erni_of(settings)
    if erni is None:
        return None
    given = dotenv_values(erni / "env", interpolate=False)
    return erni if given.get("GRAPH_URL") == settings.graph_url else None
