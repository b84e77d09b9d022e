"""Access tokens for Graph: fetched once, shared by all calls, renewed before they run out.

The client secret flow is one small POST of our own, which also works against the local emulator.
Certificate, workload identity and managed identity are azure-identity's (the extra ``[azure]``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from shared.retry.errors import PermanentError, TransientError
from shared.sharepoint.answers import error_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp
    from azure.core.credentials_async import AsyncTokenCredential

    from shared.settings import Settings

_AHEAD: Final = 300.0
"""Seconds before the end at which a token is renewed in the background; the old one still serves."""
_MARGIN: Final = 30.0
"""Seconds before the end at which a token is not used any more."""


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
        self._url = f"{settings.azure_authority.rstrip('/')}/{tenant}/oauth2/v2.0/token"
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
            if response.status in (400, 401):
                raise TransientError(str(error_of(doing, 401, response.headers, body)))
            if response.status != 200:
                raise error_of(doing, response.status, response.headers, body)
        try:
            return msgspec.json.decode(body, type=Grant)
        except msgspec.DecodeError as error:
            raise TransientError(f"{doing}: the answer holds no token ({error})") from error

    async def close(self) -> None:
        """Nothing: the session belongs to the client."""


class AzureIdentity:
    """A credential of azure-identity. Raises PermanentError if the extra ``[azure]`` is not installed."""

    def __init__(self, settings: Settings, **transport: Any) -> None:
        """`transport` goes to azure-core as it is (a private certificate authority, say)."""
        try:
            from azure.identity import aio
        except ImportError:
            raise PermanentError(
                f"AZURE_CREDENTIAL={settings.azure_credential} needs azure-identity:"
                " install erni-foto-agency[azure]"
            ) from None
        self._scope = scope(settings)
        tenant, client = settings.azure_tenant_id or None, settings.azure_client_id or None
        # Attempts and waits are the machinery's, as for every call of ours.
        transport["retry_total"] = 0
        self._credential: AsyncTokenCredential
        if settings.azure_credential == "certificate":
            self._credential = aio.CertificateCredential(
                settings.azure_tenant_id,
                settings.azure_client_id,
                settings.azure_certificate_path,
                password=str.__str__(settings.azure_certificate_password) or None,
                authority=settings.azure_authority,
                **transport,
            )
        elif settings.azure_credential == "workload":
            self._credential = aio.WorkloadIdentityCredential(
                tenant_id=tenant, client_id=client, authority=settings.azure_authority, **transport
            )
        else:
            self._credential = aio.ManagedIdentityCredential(client_id=client, **transport)

    async def fetch(self) -> Grant:
        """A token from the credential, which keeps a cache of its own."""
        from azure.core.exceptions import AzureError

        try:
            token = await self._credential.get_token(self._scope)
        except AzureError as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TransientError(f"signing in to SharePoint through azure-identity: {said}") from error
        return Grant(access_token=token.token, expires_in=token.expires_on - time.time())

    async def close(self) -> None:
        """Close the credential's own connections."""
        await self._credential.close()


def scope(settings: Settings) -> str:
    """What the token is for: the Graph of this cloud, or the public one when Graph is on this machine."""
    parts = urlsplit(settings.graph_url)
    host = parts.hostname if parts.scheme == "https" and parts.hostname else "graph.microsoft.com"
    return f"https://{host}/.default"


def grants(settings: Settings, session: aiohttp.ClientSession) -> Grants:
    """What AZURE_CREDENTIAL asks for. Raises PermanentError naming what is not set."""
    needed = {
        "secret": ("azure_tenant_id", "azure_client_id", "azure_client_secret"),
        "certificate": ("azure_tenant_id", "azure_client_id", "azure_certificate_path"),
        # These two read what the platform set for the process.
        "workload": (),
        "managed": (),
    }[settings.azure_credential]
    missing = [name.upper() for name in needed if not getattr(settings, name)]
    if missing:
        raise PermanentError(
            f"SharePoint cannot be reached: set {', '.join(missing)}"
            f" (AZURE_CREDENTIAL is {settings.azure_credential})"
        )
    return (
        ClientSecret(settings, session) if settings.azure_credential == "secret" else AzureIdentity(settings)
    )
