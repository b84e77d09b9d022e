"""What all runs share: one Redis with a database each, one SharePoint, one photo store, small photos."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import multiprocessing
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlencode

import msgspec
from PIL import Image

from sandbox.redis_server import Valkey
from sandbox.sharepoint.model import Effect
from sandbox.sharepoint.process import Ready
from shared.settings import Settings, load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crashpoints.trap import Late

SOURCE_LIBRARY: Final = "Dokumente"
_IMPORTED: Final = ["tests.crashpoints.child"]


class Photo(msgspec.Struct, frozen=True):
    """A picture that no other run has."""

    photo_id: str
    session_id: str
    trace: str
    data: bytes
    sha256: str


class World:
    """Servers and folders of one series of runs; a context manager."""

    def __init__(self, folder: Path, *, slots: int, lease: float) -> None:
        self.folder = folder
        self.slots = slots
        self.lease = lease
        self.forks = multiprocessing.get_context("forkserver")
        self.forks.set_forkserver_preload(_IMPORTED)
        self.forking = threading.Lock()
        """Held by who starts a process or asks for its exit code: multiprocessing looks at all of them."""
        self.asked = folder / "asked"
        self.store = folder / "store"
        self.redis = Valkey(
            folder / "redis",
            options={"appendfsync": "everysec", "databases": str(slots + 1)},
        )
        self._numbers = itertools.count(1)
        self._picture = _picture()
        self._effects: dict[str, list[Effect]] = {}
        self._effects_read = 0
        self._effects_lock = threading.Lock()
        self._token = ""
        self._source_drive = ""

    def __enter__(self) -> Self:
        self.store.mkdir(parents=True)
        self.asked.touch()
        self.redis.start()
        with (self.folder / "graph.log").open("ab") as log:
            # it says so when a client is gone, which here is the rule
            self._graph = subprocess.Popen(
                [sys.executable, "-m", "sandbox.sharepoint", "--folder", str(self.folder / "graph")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._graph.stdout is not None
        self.graph = msgspec.json.decode(self._graph.stdout.readline(), type=Ready)
        return self

    def __exit__(self, *_: object) -> None:
        self._graph.terminate()
        self._graph.communicate(timeout=10)
        self.redis.stop()

    def redis_url(self, slot: int) -> str:
        """The database of a slot."""
        return f"redis://127.0.0.1:{self.redis.port}/{slot}"

    def settings(self, slot: int, *, lease: float | None = None) -> Settings:
        """What the agents of a slot are started with."""
        graph = self.graph
        return load(
            {
                "REDIS_URL": self.redis_url(slot),
                "GRAPH_URL": graph.url,
                "AZURE_AUTHORITY": graph.authority,
                "AZURE_TENANT_ID": graph.tenant_id,
                "AZURE_CLIENT_ID": graph.client_id,
                "AZURE_CLIENT_SECRET": graph.client_secret,
                "SHAREPOINT_SITE": graph.site,
                "SHAREPOINT_LIBRARY": graph.library,
                "PHOTO_STORE_URL": str(self.store),
                "ENABLE_TRACING": "0",
                "LEASE_SECONDS": str(lease or self.lease),
                "GRACE_SECONDS": "5",
                "LOG_FORMAT": "json",
            },
            folder=self.folder,
        )

    def new_photo(self) -> Photo:
        """A photo in a session of its own; its bytes are in the store."""
        number = next(self._numbers)
        remark = f"photo {number}".encode()
        # a JPEG comment right after the start marker (ITU T.81, B.2.4.5): other bytes, same picture
        data = (
            self._picture[:2]
            + b"\xff\xfe"
            + (len(remark) + 2).to_bytes(2, "big")
            + remark
            + self._picture[2:]
        )
        sha256 = hashlib.sha256(data).hexdigest()
        original = self.store / "originals" / sha256
        original.parent.mkdir(exist_ok=True)
        original.write_bytes(data)
        return Photo(f"p{number}", f"s{number}", f"{number:032x}", data, sha256)

    def put_in_sharepoint(self, photo: Photo) -> str:
        """Put a photo where it can be fetched from by HTTP; its address."""
        if not self._token:
            form = {
                "client_id": self.graph.client_id,
                "client_secret": self.graph.client_secret,
                "scope": "https://graph.microsoft.com/.default",
                "grant_type": "client_credentials",
            }
            address = f"{self.graph.authority}/{self.graph.tenant_id}/oauth2/v2.0/token"
            answer = self._ask("POST", address, urlencode(form).encode())
            self._token = json.loads(answer)["access_token"]
            drives = json.loads(self._ask("GET", f"{self.graph.url}/sites/{self.graph.site}:/drives"))
            self._source_drive = next(d["id"] for d in drives["value"] if d["name"] == SOURCE_LIBRARY)
        path = f"/drives/{self._source_drive}/root:/{photo.photo_id}.jpg:/content"
        item = json.loads(self._ask("PUT", self.graph.url + path, photo.data))
        return f"sharepoint:{self._source_drive}/{item['id']}"

    def _ask(self, method: str, url: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - our own emulator
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
            request.add_header("Content-Type", "image/jpeg")
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - as above
            return bytes(response.read())

    def deliver(self, late: Late) -> None:
        """Let a late request arrive at SharePoint; its answer interests nobody."""
        request = urllib.request.Request(  # noqa: S310 - our own emulator
            late.url, data=late.body or None, headers=late.headers, method=late.method
        )
        try:
            urllib.request.urlopen(request, timeout=20).close()  # noqa: S310 - as above
        except urllib.error.HTTPError as refused:
            refused.close()

    def effects(self, photo: Photo) -> list[Effect]:
        """What took place in SharePoint with the files of this picture."""
        with self._effects_lock:
            with (self.folder / "graph" / "effects.jsonl").open("rb") as lines:
                lines.seek(self._effects_read)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._effects_read += len(line)
                    effect = msgspec.json.decode(line, type=Effect)
                    if effect.library == self.graph.library and effect.name:
                        self._effects.setdefault(effect.name, []).append(effect)
            return [
                effect
                for name, effects in self._effects.items()
                if photo.sha256[:12] in name
                for effect in effects
            ]


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((48, 32), 60).convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
