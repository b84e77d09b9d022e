"""Access tokens for Graph: fetched once, shared by all calls, renewed before they run out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.sharepoint.auth.contract import Grants

_AHEAD: Final = 300.0
"""Seconds before the end at which a token is renewed in the background; the old one still serves."""
_MARGIN: Final = 30.0
"""Seconds before the end at which a token is not used any more."""


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
        """Return a token that is good for half a minute or longer."""
        now = self._clock()
        if self._token and now < self._renew_at:
            return self._token
        fetching = self._fetch()
        if self._token and now < self._unusable_at:
            return self._token
        # Shielded, because a caller that is cancelled must not cancel the request of the others.
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
