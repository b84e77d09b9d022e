"""Streams a photo from an http(s) address that somebody else chose."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from shared.fetching.guard import AddressRefusedError, Hosts, session
from shared.retry.errors import HttpStatusError, PermanentError, aimed_at, dependency
from shared.retry.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from aiohttp.abc import AbstractResolver

DEPENDENCY: Final = "source"
MAX_REDIRECTS: Final = 3
_PRINTABLE: Final = re.compile(r"[!-~]*")
_CHUNK: Final = 65_536
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ADVICE: Final = {
    401: "it wants a login: publish an address that works without one, such as a signed one",
    403: "access is refused: publish an address that may be read, its signature may be over",
    404: "there is nothing: check the source address",
    410: "it was removed there: check the source address",
    429: "it is asked too often",
}


class Web:
    """HTTP sources. Open it before the first stream: it holds connections."""

    def __init__(
        self, hosts: Iterable[str], *, max_bytes: int, resolver: AbstractResolver | None = None
    ) -> None:
        """`hosts`: the setting SOURCE_HOSTS. `max_bytes`: an answer that announces more is not read."""
        self._hosts = Hosts(hosts)
        self._max_bytes = max_bytes
        self._resolver = resolver
        self._sessions = AsyncExitStack()

    async def open(self) -> None:
        """Make two sessions: a host named literally may have a private address, all others may not."""
        enter = self._sessions.enter_async_context
        self._named = await enter(session(public_only=False, resolver=self._resolver))
        self._public = await enter(session(public_only=True, resolver=self._resolver))

    async def close(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def stream(self, address: str) -> AsyncGenerator[bytes, None]:
        """The body at an address, in pieces, decompressed piece by piece if it came compressed.

        At most three redirects are followed, each checked like the first address. Raises PermanentError for
        what is not allowed, HttpStatusError for an answer other than 200, PostponeError while the host is
        known to be down; aiohttp's errors pass through.
        """
        url = _parsed(address)
        for _ in range(MAX_REDIRECTS + 1):
            with _about(url):
                self._hosts.check(url)
                client = self._named if self._hosts.named(url) else self._public
                try:
                    async with client.get(url, allow_redirects=False) as answer:
                        if answer.status not in _REDIRECTS:
                            self._check(answer, url)
                            async for chunk in answer.content.iter_chunked(_CHUNK):
                                yield chunk
                            return
                        url = _parsed(answer.headers.get("Location", ""), base=url)
                except aiohttp.InvalidURL as error:
                    raise _no_address(None) from error
                except aiohttp.ClientConnectorError as error:
                    if not isinstance(error.os_error, AddressRefusedError):
                        raise
                    raise PermanentError(
                        f"{_shown(url)} is not fetched: its host has an address that is not public;"
                        " if it is trusted, name the host itself in SOURCE_HOSTS"
                    ) from error
        raise PermanentError(
            f"{_shown(url)} is the end of more than {MAX_REDIRECTS} redirects: publish the photo's own"
            " address"
        )

    def _check(self, answer: aiohttp.ClientResponse, url: URL) -> None:
        """Raise HttpStatusError or PermanentError for an answer that is not to be read."""
        status = answer.status
        if status != 200:
            advice = _ADVICE.get(status, "the server has a problem" if status >= 500 else "check the address")
            raise HttpStatusError(
                f"{_shown(url)} answered {status}: {advice}",
                status=status,
                retry_after=retry_after(answer.headers),
            )
        if (answer.content_length or 0) > self._max_bytes:
            raise PermanentError(
                f"{_shown(url)} has {answer.content_length:,} bytes, more than {self._max_bytes:,}: make the"
                " photo smaller, or allow more with MAX_PHOTO_BYTES"
            )


@contextmanager
def _about(url: URL) -> Iterator[None]:
    """Let what fails in this block count for the host alone: the photos of other hosts go on."""
    host = _host(url)
    with aimed_at(DEPENDENCY, host, ()), dependency(DEPENDENCY, host):
        yield


def about_host(address: str) -> AbstractContextManager[None]:
    """Let a failure in this block count for the host of a web address."""
    return dependency(DEPENDENCY, _host(URL(address)))


def _host(url: URL) -> str:
    """Return the host, with its port if that is not the usual one."""
    return f"{url.host}" if url.is_default_port() else f"{url.host}:{url.port}"


def _parsed(address: str, base: URL | None = None) -> URL:
    """A web address, or one relative to `base`. Raises PermanentError if it is none.

    Path and query stay byte for byte as they are: a signed address is signed over its exact spelling, and
    `%7E` and `~` are two spellings of one character. Only characters that no address may have are quoted.
    """
    try:
        absolute = urljoin(str(base), address) if base is not None else address
        url = URL(absolute)
        if url.scheme not in ("http", "https") or not url.host or not url.port:
            raise _no_address(base)
        exact = urlsplit(absolute)
        if not _PRINTABLE.fullmatch(exact.path + exact.query):
            return url
        return URL.build(
            scheme=url.scheme,
            authority=url.raw_authority,
            path=exact.path or "/",
            query_string=exact.query,
            encoded=True,
        )
    except ValueError as error:
        raise _no_address(base) from error


def _no_address(base: URL | None) -> PermanentError:
    where = f"{_shown(base)} leads to" if base is not None else "the source is"
    return PermanentError(f"{where} something that is no http(s) address: check the source address")


def _shown(url: URL) -> str:
    """For a sentence: without password, query and fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None))[:200]
