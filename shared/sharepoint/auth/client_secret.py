"""Signing in with a client secret: one small POST of our own, which also works against the local emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from shared.retry.errors import TransientError
from shared.settings import proxy_for
from shared.sharepoint.answers import error_of
from shared.sharepoint.auth.contract import Grant, authority, scope

if TYPE_CHECKING:
    import aiohttp

    from shared.settings import Settings

_CHECK: Final = "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"


class ClientSecret:
    """The OAuth 2.0 client credentials flow with a secret.

    A refusal (unknown client, wrong or expired secret) concerns every photo alike and is put right outside,
    so it is a TransientError: the photos wait behind the breaker instead of filling the dead letters.
    """

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._session = session
        tenant = quote(settings.azure_tenant_id, safe="")
        self._url = f"{authority(settings)}/{tenant}/oauth2/v2.0/token"
        self._proxy = proxy_for(settings, self._url)
        self._form = {
            "client_id": str.__str__(settings.azure_client_id),
            "client_secret": str.__str__(settings.azure_client_secret),
            "scope": scope(settings),
            "grant_type": "client_credentials",
        }

    async def fetch(self) -> Grant:
        """One POST to the token endpoint."""
        doing = "signing in to SharePoint with AZURE_CLIENT_ID and its secret"
        async with self._session.post(
            self._url, data=self._form, allow_redirects=False, proxy=self._proxy
        ) as response:
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
