"""Access tokens for Graph: fetched once, shared by all calls, renewed before they run out.

The client secret flow is one small POST of our own, which also works against the local emulator. The other
ways to sign in are in `shared.sharepoint.identity`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from shared.retry.errors import PermanentError, TransientError
from shared.settings import Settings
from shared.sharepoint.answers import error_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

_AHEAD: Final = 300.0
"""Seconds before the end at which a token is renewed in the background; the old one still serves."""
_MARGIN: Final = 30.0
"""Seconds before the end at which a token is not used any more."""


_CHECK: Final = "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A token and how long it is good for."""

    access_token: str
    expires_in: float
    """Seconds."""


class Grants(Protocol):
    """Where tokens come from."""

    async def fetch(self) -> Grant:
        """A new token. Network errors pass through; a refusal is a TransientError (see `ClientSecret`)."""

    async def close(self) -> None:
        """Close what is open."""


class Tokens:
    """The current token. However many calls ask at once, one request is made."""

    def __init__(self, grants: Grants, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._grants = grants
        self._clock = clock
        self._token = ""
        self._renew_at = 0.0
        self._unusable_at = 0.0
        self._fetching: asyncio.Task[str] | None = None

    async def get(self) -> str:
        """A token that is good for at least half a minute."""
        now = self._clock()
        if self._token and now < self._renew_at:
            return self._token
        fetching = self._fetch()
        if self._token and now < self._unusable_at:
            return self._token
        # Shielded: a caller that gives up must not take the token from the others.
        return await asyncio.shield(fetching)

    def refuse(self, token: str) -> None:
        """Graph refused this token before its time: the next `get` fetches another one."""
        if token == self._token:
            self._token = ""

    async def close(self) -> None:
        """Stop a fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._fetching
        await self._grants.close()

    def _fetch(self) -> asyncio.Task[str]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._renew())
            # Nobody waits for a renewal in the background; if it fails, the next `get` tries again.
            self._fetching.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._fetching

    async def _renew(self) -> str:
        asked = self._clock()
        grant = await self._grants.fetch()
        self._token = grant.access_token
        end = asked + grant.expires_in
        self._renew_at = end - min(_AHEAD, grant.expires_in * 0.2)
        self._unusable_at = end - min(_MARGIN, grant.expires_in * 0.05)
        return grant.access_token


class ClientSecret:
    """The OAuth 2.0 client credentials flow with a secret.

    A refusal (unknown client, wrong or expired secret) concerns every photo alike and is put right outside,
    so it is a TransientError: the photos wait behind the breaker instead of filling the dead letters.
    """

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._session = session
        tenant = quote(settings.azure_tenant_id, safe="")
        self._url = f"{authority(settings)}/{tenant}/oauth2/v2.0/token"
        self._form = {
            "client_id": str.__str__(settings.azure_client_id),
            "client_secret": str.__str__(settings.azure_client_secret),
            "scope": scope(settings),
            "grant_type": "client_credentials",
        }

    async def fetch(self) -> Grant:
        """One POST to the token endpoint."""
        doing = "signing in to SharePoint with AZURE_CLIENT_ID and its secret"
        async with self._session.post(self._url, data=self._form, allow_redirects=False) as response:
            body = await response.read()
            if response.status != 200:
                error = error_of(doing, response.status, response.headers, body, advice=_CHECK)
                raise TransientError(str(error)) if response.status in (400, 401) else error
        try:
            return msgspec.json.decode(body, type=Grant)
        except msgspec.DecodeError as error:
            raise TransientError(f"{doing}: the answer holds no token ({error})") from error

    async def close(self) -> None:
        """Nothing: the session belongs to the client."""


def authority(settings: Settings) -> str:
    """Where the app signs in. The platform of a workload identity names it too, for its own cloud."""
    where = settings.azure_authority
    if settings.azure_credential == "workload" and where == Settings().azure_authority:
        where = os.environ.get("AZURE_AUTHORITY_HOST") or where
    return where.rstrip("/")


def scope(settings: Settings) -> str:
    """What the token is for: the Graph of this cloud, or the public one when Graph is on this machine."""
    parts = urlsplit(settings.graph_url)
    host = parts.hostname
    if not host or host in ("localhost", "127.0.0.1"):
        host = "graph.microsoft.com"
    return f"https://{host}/.default"


def grants(settings: Settings, session: aiohttp.ClientSession) -> Grants:
    """What AZURE_CREDENTIAL asks for. Raises PermanentError naming what is not set, or cannot be used."""
    needed = {
        "secret": ("azure_tenant_id", "azure_client_id", "azure_client_secret"),
        "certificate": ("azure_tenant_id", "azure_client_id", "azure_certificate_path"),
        "workload": ("azure_tenant_id", "azure_client_id"),
        "managed": (),
    }[settings.azure_credential]
    missing = [name.upper() for name in needed if not getattr(settings, name)]
    if missing and settings.azure_credential == "workload":
        raise PermanentError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, which the platform does"
            " for a workload identity: check the pod's label azure.workload.identity/use and its service"
            " account"
        )
    if missing:
        raise PermanentError(
            f"SharePoint cannot be reached: set {', '.join(missing)}"
            f" (AZURE_CREDENTIAL is {settings.azure_credential})"
        )
    if settings.azure_credential == "secret":
        return ClientSecret(settings, session)
    from shared.sharepoint.identity import AzureIdentity

    return AzureIdentity(settings)
