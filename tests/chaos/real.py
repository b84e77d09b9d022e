"""The outside world of the real agents: SharePoint's emulator, a vision service, traces, pictures."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
from PIL import Image

from sandbox.children import end_with_parent
from sandbox.sharepoint.process import RunningGraph, start_graph
from sandbox.traces.process import RunningTraces, start_traces
from sandbox.vision import service as vision

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SHARES: Final = {"503": 0.04, "429": 0.02, "reset": 0.02, "garbage": 0.02}
"""Shares of the calls to SharePoint and to the vision service that fail while there is trouble."""


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """A photo's trace as the receiver has it."""

    trace_id: str
    agents: frozenset[str]
    """Whose delivery spans are there."""
    foreign_parents: int
    """Spans named as parents that are not there; one is the upstream's own."""
    secrets: int


class RealOutside:
    """All of it, as processes that nobody kills."""

    def __init__(self, folder: Path, *, secret: str) -> None:
        self.folder = folder
        self._secret = secret
        self._graph: RunningGraph | None = None
        self._traces: RunningTraces | None = None
        self._vision: asyncio.subprocess.Process | None = None
        self._admins: list[str] = []
        self._vision_ready: vision.Ready | None = None

    async def start(self) -> None:
        """Start everything and wait until it is ready."""
        photos = self.folder / "photos"
        photos.mkdir(parents=True)
        self._graph = await start_graph(self.folder / "sharepoint")
        self._traces = await start_traces()
        self._vision = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sandbox.vision",
            "--folder",
            str(self.folder / "vision"),
            env={**os.environ, "CACHE_DIR": str(self._cache)},
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=end_with_parent(),
        )
        assert self._vision.stdout is not None
        async with asyncio.timeout(60):
            self._vision_ready = msgspec.json.decode(await self._vision.stdout.readline(), type=vision.Ready)
        self._admins = [self._graph.admin, self._vision_ready.admin]

    @property
    def _cache(self) -> Path:
        return self.folder / "cache"

    def environment(self) -> dict[str, str]:
        """What points the agents here."""
        assert self._graph is not None
        assert self._traces is not None
        assert self._vision_ready is not None
        return {
            **self._graph.settings(),
            "PHOTO_STORE_URL": str(self.folder / "store"),
            "SOURCE_ROOTS": str(self.folder / "photos"),
            "VISION_BACKEND": "openai",
            "VISION_URL": self._vision_ready.url,
            "VISION_MODEL": self._vision_ready.model,
            "CACHE_DIR": str(self._cache),
            "ENABLE_TRACING": "1",
            "OTLP_ENDPOINT": self._traces.otlp_endpoint,
        }

    def picture(self, number: int) -> str:
        """The address of a picture that no other number has."""
        path = self.folder / "photos" / f"{number}.jpg"
        if not path.exists():
            noise = random.Random(number).randbytes(32 * 24 * 3)
            Image.frombytes("RGB", (32, 24), noise).resize((320, 240)).save(path, quality=80)
        return path.as_uri()

    async def trouble(self, *, on: bool) -> None:
        """Let a share of the calls fail, or none any more."""
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            for admin in self._admins:
                if not on:
                    await session.delete(f"{admin}/fault")
                    continue
                for kind, share in SHARES.items():
                    order = {"kind": kind, "share": share}
                    await session.post(f"{admin}/fault", data=msgspec.json.encode(order))

    def uploads(self) -> Counter[tuple[str, str]]:
        """How often the bytes of that hash became a new item, and how often they replaced one."""
        assert self._graph is not None
        return Counter(
            (effect.sha256, effect.outcome)
            for effect in self._graph.effects()
            if effect.sha256 is not None and effect.outcome is not None
        )

    async def traced(self, trace_ids: Iterable[str]) -> list[Traced]:
        """The traces of photos."""
        assert self._traces is not None
        found = []
        async with aiohttp.ClientSession() as session:
            for trace_id in trace_ids:
                answer = await session.get(f"{self._traces.url.rstrip('/')}/api/traces/{trace_id}")
                found.append(self._trace(trace_id, await answer.read()))
        return found

    def _trace(self, trace_id: str, body: bytes) -> Traced:
        read: dict[str, Any] = msgspec.json.decode(body)
        spans = [span for trace in read.get("data") or () for span in trace["spans"]]
        here = {span["spanID"] for span in spans}
        parents = {reference["spanID"] for span in spans for reference in span.get("references", ())}
        tags = [{tag["key"]: tag["value"] for tag in span["tags"]} for span in spans]
        return Traced(
            trace_id=trace_id,
            agents=frozenset(str(tag["agent"]) for tag in tags if "agent" in tag),
            foreign_parents=len(parents - here),
            secrets=body.count(self._secret.encode()),
        )

    async def stop(self) -> None:
        """End everything."""
        if self._vision is not None and self._vision.returncode is None:
            self._vision.terminate()
            await self._vision.wait()
        if self._traces is not None:
            await self._traces.stop()
        if self._graph is not None:
            await self._graph.stop()
