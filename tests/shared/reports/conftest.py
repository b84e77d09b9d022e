"""A photo store of one's own for the tests of reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.photo_store import BlobStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """An empty photo store in a folder."""
    return BlobStore(str(tmp_path / "store"))
