"""What the tests of fetching share."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shared.fetching.sources import Sources
from shared.photo_store import BlobStore
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Protocol

    from aiohttp.abc import AbstractResolver

    from shared.fetching.sources import Download

    class OpenSources(Protocol):
        """How the fixture is called."""

        def __call__(
            self,
            *,
            hosts: tuple[str, ...] = ("127.0.0.1",),
            roots: tuple[str, ...] = (),
            max_bytes: int = 100_000,
            resolver: AbstractResolver | None = None,
            sharepoint: Download = ...,
            deadline: float = 10.0,
        ) -> AbstractAsyncContextManager[Sources]: ...


async def no_library(_url: str) -> AsyncGenerator[bytes, None]:
    """A SharePoint in which every file is empty."""
    yield b""


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """An empty store."""
    return BlobStore(str(tmp_path / "store"))


@pytest.fixture
def open_sources(blobs: BlobStore) -> OpenSources:
    """Sources with other settings than the default, open as long as the block lasts."""

    @asynccontextmanager
    async def opened(
        *,
        hosts: tuple[str, ...] = ("127.0.0.1",),
        roots: tuple[str, ...] = (),
        max_bytes: int = 100_000,
        resolver: AbstractResolver | None = None,
        sharepoint: Download = no_library,
        deadline: float = 10.0,
    ) -> AsyncIterator[Sources]:
        sources = Sources(
            Settings(source_hosts=hosts, source_roots=roots, max_photo_bytes=max_bytes),
            blobs,
            resolver=resolver,
            sharepoint=sharepoint,
            deadline=deadline,
        )
        await sources.open()
        try:
            yield sources
        finally:
            await sources.close()

    return opened


@pytest.fixture
def public_127_0_0_2(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let 127.0.0.2 pass for an address of the public internet: a test makes no connection to a real one."""
    from shared.fetching import guard

    is_public: Callable[[str], bool] = guard.is_public
    monkeypatch.setattr(guard, "is_public", lambda text: text == "127.0.0.2" or is_public(text))
    return "127.0.0.2"
