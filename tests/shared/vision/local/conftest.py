"""One converted classifier for all tests of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import Settings
from shared.vision.local.analyzer import LocalAnalyzer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first of them puts the model."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
async def analyzer(cache_dir: Path) -> AsyncIterator[LocalAnalyzer]:
    """An open analyzer."""
    opened = LocalAnalyzer(Settings(cache_dir=str(cache_dir)))
    await opened.open()
    yield opened
    await opened.close()
