"""An emulator per test, in this process, over real HTTP; or with other options where a test asks for them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from sandbox.sharepoint.app import ADMINISTRATORS_TOKEN, Options, build
from tests.sandbox.sharepoint.client import Graph

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


class Open(Protocol):
    """Opens an emulator with options on the test's folder."""

    def __call__(self, options: Options = ...) -> AbstractAsyncContextManager[Graph]:
        """A signed-in client; its library is looked up unless the mode forbids that."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the emulator keeps everything."""
    made = tmp_path / "sharepoint"
    made.mkdir()
    return made


@pytest.fixture
def open_graph(folder: Path) -> Open:
    """For tests that choose options, or close and open again."""

    @asynccontextmanager
    async def open_(options: Options = Options()) -> AsyncIterator[Graph]:  # noqa: B008  frozen
        app = build(folder, options)
        async with TestServer(app) as server, ClientSession() as session:
            graph = Graph(session, f"http://127.0.0.1:{server.port}", app[ADMINISTRATORS_TOKEN])
            await graph.sign_in()
            if not options.tenant_mode:
                await graph.use_library()
            yield graph

    return open_


@pytest.fixture
async def graph(open_graph: Open) -> AsyncIterator[Graph]:
    """An emulator as it is without options."""
    async with open_graph() as client:
        yield client
