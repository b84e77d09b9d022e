"""Sends all requests to Microsoft Graph.

No call is repeated here, because the delivery engine decides about attempts and waits. There are two
exceptions: after a 401 the call is sent once more with a new token, and aiohttp repeats a call on a kept
connection that was already closed (not POST and PATCH). Network errors pass through unchanged; a refusal of
Graph is a GraphError. The bearer token goes to Graph's own
address and nowhere else: a pre-authenticated URL (download, upload session) carries its own permission, and
gets no header of ours.
"""

from __future__ import annotations

import contextlib
import io
import uuid
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from shared.retry.call_times import timed
from shared.retry.errors import PermanentError, PostponeError, TransientError, dependency
from shared.retry.retry_after import retry_after
from shared.settings import proxy_for
from shared.sharepoint.answers import error_of
from shared.sharepoint.auth.choose import grants
from shared.sharepoint.auth.tokens import Tokens
from shared.sharepoint.pacing import Pace
from shared.sharepoint.target import about, current_target
from shared.sharepoint.wire import Page

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
    from typing import Self

    from shared.settings import Settings
    from shared.sharepoint.auth.contract import Grants

T = TypeVar("T")

DEPENDENCY: Final = "sharepoint"
_CONNECT_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 60.0
"""Seconds without a byte after which a connection counts as dead."""
_LOCKED_SECONDS: Final = 300.0
_USUAL_SECONDS: Final = 0.25
"""What a call is compared with (`shared.retry.call_times`) until enough calls were seen. A choice: four times
this is slow."""
_CHUNK: Final = 262_144


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Holds an answer: status, headers (names in any case), body."""

    status: int
    headers: Any
    """Mapping[str, str] that ignores case (aiohttp's CIMultiDictProxy)."""
    body: bytes

    def decode(self, kind: type[T], doing: str) -> T:
        """Decode the body as `kind`. Raises TransientError if it is something else (a proxy's page)."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError as error:
            raise unreadable(doing, error) from error


class GraphClient:
    """Holds one HTTP session with Graph for a process. Use it as a context, or call `open` and `close`.

    `doing` is the beginning of an error's sentence: ``reading the columns of Referenzfotos``.
    """

    def __init__(self, settings: Settings, *, grants: Grants | None = None, pace: Pace | None = None) -> None:
        self._settings = settings
        self._base = settings.graph_url.rstrip("/")
        self._pace = pace or Pace()
        self._grants = grants
        self._session: aiohttp.ClientSession | None = None
        self._tokens: Tokens | None = None
        # SharePoint asks apps to name themselves in this form:
        # NONISV|company|app/version (learn.microsoft.com, "Avoid getting throttled").
        self._agent = f"NONISV|Erni|FotoAgency/{version('erni-foto-agency')}"

    async def open(self) -> None:
        """Open the session. Raises PermanentError if credentials are missing from the settings."""
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
            ),
            headers={"User-Agent": self._agent},
            # A cookie of SharePoint would be a second permission, which we do not control.
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[timed(DEPENDENCY, expected=_USUAL_SECONDS)],
        )
        try:
            self._tokens = Tokens(self._grants or grants(self._settings, session))
        except BaseException:
            await session.close()
            raise
        self._session = session

    async def close(self) -> None:
        """Close the session. A second call does nothing."""
        tokens, self._tokens = self._tokens, None
        session, self._session = self._session, None
        if tokens is not None:
            await tokens.close()
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def sign_in(self) -> None:
        """Fetch a token now. Calls do this by themselves; `erni doctor` uses it to test the sign-in."""
        _, tokens = self._opened()
        with dependency(DEPENDENCY):
            await tokens.get()

    async def get(
        self, path: str, kind: type[T], *, doing: str, params: Mapping[str, str] | None = None
    ) -> T:
        """GET a path below the Graph URL (or one of its own links) and decode the body as `kind`."""
        answer = await self.send("GET", path, doing=doing, params=params)
        return answer.decode(kind, doing)

    async def pages(
        self, path: str, kind: type[T], *, doing: str, params: Mapping[str, str] | None = None
    ) -> AsyncIterator[T]:
        """Yield every member of a collection, following ``@odata.nextLink``."""
        page = await self.get(path, Page, doing=doing, params=params)
        while True:
            for raw in page.value:
                try:
                    yield msgspec.json.decode(raw, type=kind)
                except msgspec.DecodeError as error:
                    raise unreadable(doing, error) from error
            if page.next_link is None:
                return
            page = await self.get(page.next_link, Page, doing=doing)

    async def send(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        params: Mapping[str, str] | None = None,
        json: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """Send one request to Graph with our token. Any 2xx and the statuses in `accept` are good answers.

        Raises GraphError for another answer, TransientError if our token is refused twice, HttpStatusError
        429 without sending while SharePoint has asked us to wait, and aiohttp's errors of the network.
        """
        with dependency(DEPENDENCY):
            url = self._address(path, params)
            sent = {"Accept": "application/json", **(headers or {})}
            if json is not None:
                data = msgspec.json.encode(json)
                sent["Content-Type"] = "application/json"
            # Reading one thing costs 1 unit, listing and writing 2 (learn.microsoft.com, as above).
            units = 1 if method == "GET" else 2
            answer = await self._authorised(method, url, data, sent, units, doing)
            with dependency(DEPENDENCY, _target_of(answer)):
                return _wanted(answer, doing, accept)

    async def _authorised(
        self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str], units: int, doing: str
    ) -> Answer:
        """Send the request with a token, once more with a new one. Raises TransientError for a second 401."""
        _, tokens = self._opened()
        for _ in range(2):
            await self._pace.turn(units)
            token = await tokens.get()
            answer = await self._exchange(
                method,
                url,
                data,
                {**headers, "Authorization": f"Bearer {token}", "client-request-id": str(uuid.uuid4())},
            )
            self._pace.note(answer.status, answer.headers)
            if answer.status != 401:
                return answer
            # Revoked, or the clocks disagree about its end: one new token, one more try.
            tokens.refuse(token)
        error = error_of(doing, answer.status, answer.headers, answer.body)
        # It concerns every photo alike, and is put right outside: the photos wait, as for a refused sign-in.
        raise TransientError(str(error)) from error

    async def plain(
        self,
        method: str,
        url: str,
        *,
        doing: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """Send one request to a pre-authenticated URL, without our token. Raises as `send` does."""
        with dependency(DEPENDENCY):
            answer = await self._exchange(method, URL(url, encoded=True), data, headers or {})
            with dependency(DEPENDENCY, _target_of(answer)):
                return _wanted(answer, doing, accept)

    async def stream(self, path: str, *, doing: str, target: str = "") -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a ``…/content`` path. Graph redirects; we follow without our token.

        `target`: as for `shared.sharepoint.target.about`, whose block cannot surround a generator.
        """
        target = target or current_target()
        with dependency(DEPENDENCY):
            with about(target):
                first = await self.send("GET", path, doing=doing, accept=(302,))
            location = first.headers.get("Location")
            if location is None:
                raise TransientError(
                    f"{doing}: SharePoint answered {first.status} without a download address"
                )
            session, _ = self._opened()
            async with session.get(URL(location, encoded=True), allow_redirects=False) as response:
                if response.status != 200:
                    with dependency(DEPENDENCY, target):
                        raise error_of(doing, response.status, response.headers, await response.read())
                async for chunk in response.content.iter_chunked(_CHUNK):
                    yield chunk

    async def _exchange(
        self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        session, _ = self._opened()
        # As a stream, because aiohttp writes a large bytes object at once, which blocks the event loop.
        body = io.BytesIO(data) if data is not None else None
        async with session.request(
            method,
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            proxy=proxy_for(self._settings, str(url)),
        ) as response:
            return Answer(status=response.status, headers=response.headers, body=await response.read())

    def _opened(self) -> tuple[aiohttp.ClientSession, Tokens]:
        if self._session is None or self._tokens is None:
            raise RuntimeError("the Graph client is used before it is opened, or after it is closed")
        return self._session, self._tokens

    def _address(self, path: str, params: Mapping[str, str] | None) -> URL:
        """Make the full URL. Raises PermanentError for a link to another host, which would get our token."""
        if path.startswith("/"):
            address = self._base + path
        else:
            there, here = urlsplit(path), urlsplit(self._base)
            if (there.scheme, there.netloc) != (here.scheme, here.netloc):
                raise PermanentError(
                    f"SharePoint's answer links to {there.scheme}://{there.hostname}, which is not"
                    f" {here.hostname} (GRAPH_URL): not followed"
                )
            address = path
        if params:
            pairs = "&".join(
                f"{quote(key, safe='$@.')}={quote(value, safe='$(),;=/')}" for key, value in params.items()
            )
            address += ("&" if "?" in address else "?") + pairs
        return URL(address, encoded=True)


def unreadable(doing: str, error: Exception) -> TransientError:
    """Return what to raise for an answer that is none of SharePoint's: a proxy may have sent it.

    It counts for SharePoint's breaker, because such a proxy answers every photo alike.
    """
    found = TransientError(f"{doing}: SharePoint's answer cannot be read ({error})")
    with contextlib.suppress(TransientError), dependency(DEPENDENCY):
        raise found
    return found


def _target_of(answer: Answer) -> str:
    """Return what an answer is about: a library or site, or '' for all of SharePoint.

    Throttling concerns the app (learn.microsoft.com, "Avoid getting throttled": 429, or 503 with
    Retry-After); every other answer is that of the library or site that was asked.
    """
    throttled = answer.status == 429 or (answer.status == 503 and retry_after(answer.headers) is not None)
    return "" if throttled else current_target()


def _wanted(answer: Answer, doing: str, accept: Collection[int]) -> Answer:
    """Return the answer if its status is a good one. Raises GraphError or PostponeError."""
    if answer.status < 300 or answer.status in accept:
        return answer
    error = error_of(doing, answer.status, answer.headers, answer.body)
    if answer.status == 423:
        # A person has the file open or checked out. It takes minutes, so frequent attempts are useless.
        raise PostponeError(str(error), error.retry_after or _LOCKED_SECONDS) from error
    raise error


def segment(text: str) -> str:
    """Quote an id or a name as one segment of a path."""
    return quote(text, safe="!,")
