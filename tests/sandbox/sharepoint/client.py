"""A bare client for the emulator: sends what it is told, follows and retries nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from yarl import URL

from sandbox.sharepoint.tokens import CLIENT_ID, CLIENT_SECRET, SCOPE, TENANT_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientSession

SITE = "/sites/localhost:/sites/Bau"
LIBRARY = SITE + ":/lists/Referenzfotos"
CREDENTIALS = {
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
    "scope": SCOPE,
    "grant_type": "client_credentials",
}


@dataclass(frozen=True)
class Reply:
    """An answer, read."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body, a JSON object."""
        decoded: dict[str, Any] = msgspec.json.decode(self.data)
        return decoded

    @property
    def code(self) -> str:
        """The error code."""
        return str(self.json["error"]["code"])

    @property
    def inner(self) -> str | None:
        """The error's inner code, in either spelling."""
        error = self.json["error"]
        found: str | None = (error.get("innerError") or error["innererror"]).get("code")
        return found


class Graph:
    """Talks to one emulator."""

    def __init__(self, session: ClientSession, origin: str, administrator: str = "") -> None:
        self.session = session
        self.origin = origin
        self.token = ""
        self.administrator = administrator
        """The token of an administrator."""
        self.drive = ""

    async def sign_in(self) -> None:
        """Get a token and the photo library's drive id."""
        reply = await self.post_form(f"/{TENANT_ID}/oauth2/v2.0/token", CREDENTIALS)
        self.token = reply.json["access_token"]

    async def use_library(self) -> None:
        """Find the photo library's drive id."""
        reply = await self.get(LIBRARY + "/drive")
        self.drive = f"/drives/{reply.json['id']}"

    async def post_form(self, path: str, form: Mapping[str, str]) -> Reply:
        """POST a form to an address outside Graph."""
        async with self.session.post(self.origin + path, data=form) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        token: bool = True,
    ) -> Reply:
        """A Graph request; `path` is below the version, or a whole address."""
        url = path if path.startswith("http") else f"{self.origin}/v1.0{path}"
        sent = dict(headers or {})
        if token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        body: object = io.BytesIO(data) if data is not None else None
        if json is not None:
            body = msgspec.json.encode(json)
            sent["Content-Type"] = "application/json"
        async with self.session.request(
            method, URL(url, encoded=True), data=body, headers=sent, allow_redirects=False
        ) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        """GET."""
        return await self.call("GET", path, headers=headers)

    async def patch(self, path: str, json: object, *, headers: Mapping[str, str] | None = None) -> Reply:
        """PATCH with a JSON body."""
        return await self.call("PATCH", path, json=json, headers=headers)

    async def admin(self, method: str, path: str, json: object = None) -> dict[str, Any]:
        """An administrator's request that must succeed."""
        reply = await self.call(method, f"{self.origin}/_erni{path}", json=json, token=False)
        assert reply.status < 300, reply.data
        return reply.json

    async def upload(
        self,
        name: str,
        data: bytes = b"photo",
        *,
        conflict: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The simple upload by path."""
        query = f"?@microsoft.graph.conflictBehavior={conflict}" if conflict else ""
        path = f"{self.drive}/root:/{quote(name)}:/content{query}"
        return await self.call("PUT", path, data=data, headers=headers)

    async def open_session(self, name: str, *, conflict: str = "replace", **more: object) -> str:
        """Open an upload session; its address."""
        reply = await self.call(
            "POST",
            f"{self.drive}/root:/{quote(name)}:/createUploadSession",
            json={
                "item": {"@microsoft.graph.conflictBehavior": conflict, "name": name.rpartition("/")[2]},
                **more,
            },
        )
        assert reply.status == 200, reply.data
        return str(reply.json["uploadUrl"])

    async def fragment(self, url: str, data: bytes, start: int, total: int) -> Reply:
        """Send a fragment of an upload session."""
        last = start + len(data) - 1
        return await self.call(
            "PUT", url, data=data, headers={"Content-Range": f"bytes {start}-{last}/{total}"}, token=False
        )

    async def effects(self) -> list[dict[str, Any]]:
        """The effect log."""
        found: list[dict[str, Any]] = (await self.admin("GET", "/effects"))["effects"]
        return found
