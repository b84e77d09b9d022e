"""What `erni publish` takes for a library, and what for one photo in it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from console.source_libraries import SourceLibraries
from shared.photo_store import BlobStore
from tests.shared.sharepoint.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    running = Emulator(tmp_path_factory.mktemp("graph"))
    yield running
    running.stop()


@pytest.mark.parametrize("name", ["Fotos 2.0", "v1.5", "Bau.Archiv"])
async def test_a_library_may_have_a_dot_in_its_name(emulator: Emulator, tmp_path: Path, name: str) -> None:
    """In a subsite the name stands where a photo's name stands in other addresses."""
    await emulator.admin("POST", "/lists", {"displayName": name, "site": "sites/Bau/Umbau"})
    settings = emulator.settings(tmp_path)
    address = f"sharepoint:/sites/Bau/Umbau/{quote(name)}"
    async with SourceLibraries(settings, BlobStore(settings.photo_store_url)) as libraries:
        listed = await libraries.look([address])
    assert (listed.libraries, listed.others) == ((address,), ())


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "IMG 1.heic"])
async def test_an_address_that_ends_like_a_photo_is_not_looked_up(
    emulator: Emulator, tmp_path: Path, name: str
) -> None:
    settings = emulator.settings(tmp_path, GRAPH_URL="http://127.0.0.1:1/v1.0")
    address = f"sharepoint:/sites/Bau/Nirgends/{quote(name)}"
    async with SourceLibraries(settings, BlobStore(settings.photo_store_url)) as libraries:
        listed = await libraries.look([address])
    assert (listed.libraries, listed.others) == ((), (address,))
