"""A library as the source: its photos are published once, and again only when their bytes have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import scenario

if TYPE_CHECKING:
    from tests.end_to_end.system import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_only_what_is_new_in_a_library_is_published(system: System) -> None:
    system.ask("POST", f"{system.graph['admin']}/lists", {"displayName": "Eingang"})
    folder = system.photos / "incoming"
    scenario.pictures(folder, 3, seed="incoming")
    system.erni("publish", str(folder), "--session", "incoming", "--library", "Eingang")
    system.wait("incoming")
    names = [item.name for item in system.items("Eingang")]
    assert len(names) == 3

    address = "sharepoint:/sites/Bau/Eingang"
    assert system.erni("publish", address, "--session", "taken-1")["published"] == 3
    scenario.all_stored(system, system.wait("taken-1"), names)
    assert system.erni("publish", address)["published"] == 0

    # a person edits fields, which is no new photo, and one more photo comes
    system.edit(system.items("Eingang")[0], {"Title": "Von Hand"})
    (more,) = scenario.pictures(system.photos / "more", 1, seed="more")
    system.erni("publish", str(system.photos / "more" / more), "--session", "more", "--library", "Eingang")
    system.wait("more")
    (new,) = {item.name for item in system.items("Eingang")} - set(names)
    assert system.erni("publish", address, "--session", "taken-2")["published"] == 1
    scenario.all_stored(system, system.wait("taken-2"), [new])

    # published into the wrong system, say: all of them once more, and then none again
    assert system.erni("publish", address, "--session", "taken-3", "--again")["published"] == 4
    scenario.all_stored(system, system.wait("taken-3"), [*names, new])
    assert system.erni("publish", address)["published"] == 0


def test_a_library_that_is_not_there_is_said_and_nothing_is_published(system: System) -> None:
    said = system.erni("publish", "sharepoint:/sites/Bau/Nirgends", code=1)
    assert "has no library 'Nirgends'" in said["error"]
