"""A stubbed Graph for exact answers, the emulator for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.settings import Settings
from shared.sharepoint.client import GraphClient
from tests.shared.sharepoint.desk import Desk
from tests.shared.sharepoint.emulator import Emulator
from tests.shared.sharepoint.stub import Stub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
async def graph() -> AsyncIterator[Stub]:
    """Microsoft Graph and the sign-in endpoint, answering what a test tells them to."""
    stub = Stub()
    await stub.start()
    yield stub
    await stub.stop()


@pytest.fixture
def settings(graph: Stub) -> Settings:
    """Settings that lead to the stub."""
    return Settings(
        graph_url=f"{graph.url}/v1.0",
        azure_authority=graph.url,
        azure_tenant_id="tenant",
        azure_client_id="app",
        azure_client_secret="s3cret&=",
        sharepoint_site="localhost:/sites/Bau",
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[GraphClient]:
    """An open client of the stub."""
    async with GraphClient(settings) as client:
        yield client


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The emulator, one for all tests of this process."""
    running = Emulator(tmp_path_factory.mktemp("graph"))
    yield running
    running.stop()


@pytest.fixture
async def desk(emulator: Emulator, tmp_path: Path) -> AsyncIterator[Desk]:
    """What a worker has: an open client, a photo store of its own, a filing."""
    async with Desk.opened(emulator, tmp_path) as desk:
        yield desk
    await emulator.admin("DELETE", "/fault")
