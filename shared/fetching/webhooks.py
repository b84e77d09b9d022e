"""Posts to the addresses of web hooks: to none that is private and not allowed, and along no redirect."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.helpers import is_ip_address
from yarl import URL

from shared.fetching.guard import AddressRefusedError, Hosts, is_public, session
from shared.retry.errors import PermanentError, TransientError
from shared.retry.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiohttp.abc import AbstractResolver

MAX_URL: Final = 2000
_LOCAL: Final = frozenset({"localhost", "localhost."})
_REST_SECONDS: Final = 0.5
"""How long the body of an answer is waited for, so that its connection can be used again."""
_REST_BYTES: Final = 16_384


class Posts:
    """Post to web hooks. Open it before the first one: it holds connections."""

    def __init__(
        self, hosts: Iterable[str], *, timeout: float, resolver: AbstractResolver | None = None
    ) -> None:
        """`hosts`: the setting WEBHOOK_HOSTS; `timeout`: seconds for connection and answer together."""
        self._hosts = Hosts(("*", *hosts))
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._resolver = resolver
        self._sessions = AsyncExitStack()

    async def open(self) -> None:
        """Make two sessions: a host named in the setting may have a private address, others may not."""
        enter = self._sessions.enter_async_context
        self._named = await enter(session(public_only=False, resolver=self._resolver))
        self._public = await enter(session(public_only=True, resolver=self._resolver))

    async def close(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    def check(self, address: str) -> URL:
        """Return an address as a URL. Raises PermanentError for one that nothing is posted to."""
        try:
            url = URL(address)
            # a port beyond 65535 is only noticed when it is read
            usable = url.scheme in ("http", "https") and bool(url.host) and bool(url.port)
        except ValueError:
            usable = False
        if not usable or len(address) > MAX_URL:
            raise PermanentError(
                f"a web hook needs an http(s) address of at most {MAX_URL} characters, such as"
                " https://example.com/hooks"
            )
        if url.user or url.password:
            raise PermanentError(
                "a web hook's address has no user and no password: the receiver checks the signature"
            )
        try:
            self._hosts.check(url)
        except PermanentError:
            raise PermanentError(
                f"port {url.port} is another service's: if a web server listens there, name it with its port"
                f" in WEBHOOK_HOSTS ({url.host}:{url.port})"
            ) from None
        return url

    def check_with_host(self, address: str) -> URL:
        """As `check`; an IP address must be public, too. A name is looked up when it is posted to."""
        url = self.check(address)
        host = url.host or ""
        if not self._hosts.named(url) and (host in _LOCAL or (is_ip_address(host) and not is_public(host))):
            raise PermanentError(_private(url))
        return url

    async def post(self, address: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a notice. Returns if the answer is 2xx.

        Raises GoneError for 410, PermanentError for an address that is not allowed, TransientError for any
        other answer; aiohttp's errors and TimeoutError pass through, except those about a certificate.
        """
        url = self.check(address)
        client = self._named if self._hosts.named(url) else self._public
        try:
            async with client.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as answer:
                with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                    async with asyncio.timeout(_REST_SECONDS):
                        await answer.content.read(_REST_BYTES)
                _judge(answer)
        except aiohttp.ClientConnectorCertificateError as error:
            # it may be renewed before the schedule is over
            raise TransientError(
                f"this machine does not trust the endpoint's certificate ({_why(error.certificate_error)}):"
                " the receiver needs another one, or the notifier its authority (SSL_CERT_FILE)"
            ) from error
        except aiohttp.ClientConnectorError as error:
            if not isinstance(error.os_error, AddressRefusedError):
                raise
            raise PermanentError(_private(url)) from error


def _why(error: Exception) -> str:
    """Return why a certificate is refused, in the words of OpenSSL: self-signed, expired, another host."""
    said = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
    return said.rstrip(".") or "no reason given"


def _private(url: URL) -> str:
    return (
        "nothing is posted there: the host has an address that is not public; if it is trusted, name the host"
        f" itself in WEBHOOK_HOSTS ({url.host})"
    )


class GoneError(PermanentError):
    """Report that the endpoint wants nothing more: it answered 410."""


def _judge(answer: aiohttp.ClientResponse) -> None:
    status = answer.status
    if 200 <= status < 300:
        return
    if status == 410:
        raise GoneError("the endpoint answered 410: it wants no more notices")
    advice = ""
    if 300 <= status < 400:
        advice = ", a redirect, which is not followed: register the address that it leads to"
    raise TransientError(f"the endpoint answered {status}{advice}", retry_after=retry_after(answer.headers))
