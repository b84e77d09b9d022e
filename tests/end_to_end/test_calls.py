"""How many calls of Graph the pipeline makes: the numbers of docs/sharepoint.md."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import scenario
from tests.end_to_end.system import System

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PHOTOS = 3


def _calls(system: System) -> Counter[str]:
    return Counter(system.ask("GET", system.graph["admin"])["calls"])


def test_a_new_photo_costs_four_calls_a_repeated_one_two_and_a_start_a_few(tmp_path: Path) -> None:
    with System(tmp_path, vision=False) as system:
        names = scenario.pictures(system.photos, PHOTOS, seed="calls")
        publish = ("publish", str(system.photos), "--project", "Wohnhaus Seewen", "--session")
        system.erni(*publish, "new")
        scenario.all_stored(system, system.wait("new"), names)
        first = _calls(system)
        per_photo = {"PUT content": PHOTOS, "PATCH fields": PHOTOS, "GET item": 2 * PHOTOS}
        per_start = {"GET site": 1, "GET lists": 1, "GET drive": 1, "GET columns": 3, "POST token": 3}
        assert first == per_photo | per_start

        system.erni(*publish, "again")
        scenario.all_stored(system, system.wait("again"), names)
        assert _calls(system) - first == {"GET item": 2 * PHOTOS}
