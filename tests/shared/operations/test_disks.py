"""A disk that is full, or nearly full, is named with its room and with what to do."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from shared.operations.disks import Disk, read_disks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (0, "the disk of /data is full: 0.0 MB of 40.0 GB are free. Free some space there"),
        (352_000, "the disk of /data is full: 0.4 MB of 40.0 GB are free. Free some space there"),
        (60_000_000, "the disk of /data is nearly full: 60.0 MB of 40.0 GB are free. Free some space there"),
    ],
)
def test_too_little_room_is_said_with_what_to_do(free: int, said: str) -> None:
    disk = Disk(folder="/data", free=free, total=40_000_000_000)
    assert disk.trouble.startswith(said)
    assert disk.sentence == disk.trouble


def test_enough_room_is_no_trouble() -> None:
    disk = Disk(folder="/data", free=2_000_000_000, total=40_000_000_000)
    assert (disk.trouble, disk.sentence) == ("", "/data: 2.0 GB of 40.0 GB are free")


def test_a_disk_without_inodes_is_full_whatever_is_free() -> None:
    disk = Disk(folder="/data", free=2_000_000_000, total=40_000_000_000, files_left=False)
    assert disk.full
    assert "it can hold no more files" in disk.trouble


def test_each_disk_is_read_once_and_a_folder_that_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    disks = read_disks([tmp_path, tmp_path / "store", tmp_path / "missing"])
    assert [disk.folder for disk in disks] == [str(tmp_path)]
    assert disks[0].total == shutil.disk_usage(tmp_path).total
