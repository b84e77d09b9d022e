"""Real files of every kind end as docs/metadata.md says: each row of its tables, and nothing beside them."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import kinds, scenario
from tests.tools import ROOT

if TYPE_CHECKING:
    from tests.end_to_end.system import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def _rows() -> dict[str, str]:
    """The rows of the page's two tables of files: the first cell, and whether such a file is filed."""
    page = (ROOT / "docs" / "metadata.md").read_text("utf-8")
    _, _, rest = page.partition("## What becomes of a file")
    found: dict[str, str] = {}
    ends = ""
    for line in rest.partition("\n## ")[0].splitlines():
        if line.startswith("### "):
            ends = "refused" if "refused" in line else "filed"
        elif (cells := re.match(r"\| (.+?) \|", line)) and not line.startswith(("| file", "| ---")):
            found[cells[1]] = ends
    return found


def test_every_kind_of_file_ends_as_the_page_says(system: System) -> None:
    files = kinds.files()
    rows = _rows()
    assert len(files) >= 60
    assert {file.row: file.ends for file in files} | {"more than `MAX_PHOTO_BYTES`": "refused"} == rows
    folder = system.photos / "kinds"
    folder.mkdir()
    for file in files:
        (folder / file.name).write_bytes(file.data)
    (folder / "large.png").write_bytes(kinds.large())
    system.erni("publish", str(folder), "--session", "kinds")
    outcome = system.wait("kinds")
    reasons = {dead.file_name: dead.message for dead in outcome.dead}
    assert all(dead.reason == "permanent" for dead in outcome.dead)
    assert "more than 15,000,000 bytes" in reasons.pop("large.png")
    refused = {file.name: file.says for file in files if file.ends == "refused"}
    assert reasons.keys() == refused.keys()
    assert [name for name, says in refused.items() if says not in reasons[name]] == []
    filed = [file for file in files if file.ends == "filed"]
    assert Counter(file.data for file in filed).most_common(1)[0][1] == 1
    scenario.all_stored(system, outcome, [file.name for file in filed])
    photos = {photo.file_name: photo for photo in outcome.validated}
    dates = {name: photo.fields.get("Aufnahmedatum") for name, photo in photos.items()}
    places = {name: photo.fields.get("Ort") for name, photo in photos.items()}
    assert {name: field.value for name, field in dates.items() if field} == {
        file.name: file.date for file in filed if file.date
    }
    assert {name: field.value for name, field in places.items() if field} == {
        file.name: file.place for file in filed if file.place
    }
