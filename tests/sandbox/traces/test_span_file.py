"""Traces survive a restart of the receiver, also of one that was killed, and the file stays small."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from sandbox.traces.service import TraceService
from sandbox.traces.span_file import SpanFile
from tests.sandbox.traces.conftest import Batch

if TYPE_CHECKING:
    from pathlib import Path


def batch(number: int, filler: int = 0) -> Batch:
    made = Batch(number.to_bytes(16, "big"))
    made.span(attributes={"photo.id": f"p-{number}", "filler": "x" * filler})
    return made


def kept(path: Path) -> list[str]:
    """The photos that a receiver which starts with this file knows, the newest first."""
    store = TraceService(file=path).store
    return [
        str(store.get(f"{number:032x}").spans[0].attributes["photo.id"])  # type: ignore[union-attr]  # is there
        for number in range(100, 0, -1)
        if store.get(f"{number:032x}")
    ]


def append(path: Path, *batches: Batch, max_bytes: int = 10_000) -> None:
    file = SpanFile(path, max_bytes=max_bytes)
    for one in batches:
        file.append(one.request)
    file.close()


def test_a_restarted_receiver_has_the_traces_of_before(tmp_path: Path) -> None:
    path = tmp_path / "traces" / "spans"
    append(path, batch(1), batch(2))
    append(path, batch(3))
    assert kept(path) == ["p-3", "p-2", "p-1"]


@pytest.mark.parametrize("lost", [1, 50])
def test_half_a_record_of_a_killed_receiver_costs_only_itself(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "spans"
    append(path, batch(1), batch(2))
    path.write_bytes(path.read_bytes()[:-lost])
    assert kept(path) == ["p-1"]
    append(path, batch(3))
    assert kept(path) == ["p-3", "p-1"]


def test_the_file_has_a_limit_and_the_newest_stay(tmp_path: Path) -> None:
    path = tmp_path / "spans"
    append(path, *(batch(number, filler=1000) for number in range(1, 101)))
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 12_000
    found = kept(path)
    assert found == [f"p-{number}" for number in range(100, 100 - len(found), -1)]
    assert len(found) >= 10


def test_a_disk_without_room_costs_what_found_none(tmp_path: Path) -> None:
    path = tmp_path / "spans"
    append(path, batch(1))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the kernel writes what fits and refuses the rest, as on a disk that is nearly full
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        append(path, batch(2, filler=1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    append(path, batch(3))
    assert kept(path) == ["p-3", "p-1"]


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    append(tmp_path / "file" / "spans", batch(1))
