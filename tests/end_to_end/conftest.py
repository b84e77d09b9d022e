from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that these tests share: each has photos and sessions of its own, and heals what it ordered."""
    with System(
        tmp_path_factory.mktemp("system"), traces=True, settings={"SOURCE_HOSTS": "127.0.0.1"}
    ) as system:
        yield system
