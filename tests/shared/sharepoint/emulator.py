"""The local Graph emulator as a real process, and what happens to a library beside our agents."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec

from sandbox.sharepoint.model import Effect
from sandbox.sharepoint.process import Ready
from shared.settings import Settings, load

if TYPE_CHECKING:
    from pathlib import Path

_STOP_SECONDS: Final = 5.0


class Emulator:
    """An emulator that is up, shared by the tests of a process: each brings pictures of its own."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.sharepoint", "--folder", str(folder), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.ready = msgspec.json.decode(self._process.stdout.readline(), type=Ready)

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=_STOP_SECONDS)

    def settings(self, store: Path, **more: str) -> Settings:
        """Settings that lead here, with a photo store of one's own."""
        environment = self.ready.settings() | {"PHOTO_STORE_URL": str(store)}
        return load(environment | more, folder=store)

    def effects(self, name: str) -> list[Effect]:
        """What took place with the file of that name, by whomever."""
        lines = (self.folder / "effects.jsonl").read_bytes().splitlines()
        return [effect for line in lines if (effect := msgspec.json.decode(line, type=Effect)).name == name]

    def stored(self, name: str) -> list[Path]:
        """The files in the photo library whose name begins like that."""
        return sorted((self.folder / "library" / self.ready.library).glob(f"{name}*"))

    async def edit(self, item_id: str, **fields: object) -> None:
        """A person changes fields in the browser."""
        await self.admin("POST", "/edit", {"item_id": item_id, "fields": fields})

    async def fault(self, **order: object) -> None:
        """Let something go wrong; see sandbox/sharepoint/faults.py."""
        await self.admin("POST", "/fault", order)

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        """Ask the emulator's administrator for something."""
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.request(method, self.ready.admin + path, data=msgspec.json.encode(body or {})) as answer,
        ):
            return msgspec.json.decode(await answer.read())
