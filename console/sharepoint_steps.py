"""Walks to a SharePoint library step by step, for `erni doctor`: the first failing step is the cause."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import aiohttp

from console.addresses import bare
from console.durations import short
from console.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from shared.columns.schema import Column
    from shared.photo_store import BlobStore
    from shared.retry.call_times import SlowCalls
    from shared.settings import Settings
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.in_use import LibraryInUse

_LOOK_SECONDS: Final = 5.0
"""How long the look at one library may take, or at the list of them."""
_AT_ONCE: Final = 4
"""Libraries that are looked at at once."""
SLOW: Final = "answers slowly"
SILENT: Final = "does not answer"
_WHERE_TO_LOOK: Final = (
    "Look at the network between here and there, and at the service health page of Microsoft 365"
)


class Walk:
    """The way to the configured library. It notes what it does, so that whoever stops waiting can say it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._doing = ""
        self._started = time.monotonic()

    @property
    def late(self) -> str:
        """Say where the walk stands, for whoever waited long enough."""
        where, waited = bare(self._settings.graph_url), time.monotonic() - self._started
        stands = f"{self._doing} has not ended {short(waited)} after the first call"
        calls = _slow_calls()
        if calls is not None and not calls.answers:
            return f"{where} {SILENT}: {stands}. Photos wait, none is lost. {_WHERE_TO_LOOK}"
        how = f" (a call ({calls.method}) takes {short(calls.seconds_now)})" if calls else ""
        return f"{where} {SLOW}: {stands}{how}. Photos go on, more slowly. {_WHERE_TO_LOOK}"

    @property
    def slow(self) -> str:
        """Say that the calls of a walk that came to its end were slow; '' if they were not."""
        if not (calls := _slow_calls()):
            return ""
        return (
            f"{bare(self._settings.graph_url)} {SLOW}: a call ({calls.method}) takes"
            f" {short(calls.seconds_now)}. Photos go on, more slowly. {_WHERE_TO_LOOK}"
        )

    async def steps(self) -> AsyncIterator[str]:
        """Yield a sentence for each step that works.

        Raises CommandError with what to do at the first that does not. Nothing is left in the library: the
        last step begins an upload and drops it.
        """
        from shared.sharepoint.auth.contract import authority
        from shared.sharepoint.client import GraphClient
        from shared.sharepoint.columns import read_columns
        from shared.sharepoint.sites import find_library, find_site
        from shared.sharepoint.uploads import Uploader

        settings, site_name = self._settings, self._settings.sharepoint_site
        if not site_name:
            raise CommandError("no site is named: set SHAREPOINT_SITE to host:/sites/Name")
        client = GraphClient(settings)
        try:
            where = authority(settings)
            self._doing = "the sign-in"
            with _explained(where, "AZURE_AUTHORITY"):
                await client.open()
                await client.sign_in()
            managed = settings.azure_credential == "managed"
            yield "signed in with the managed identity" if managed else f"signed in at {bare(where)}"
            with _explained(settings.graph_url, "GRAPH_URL"):
                self._doing = f"the search for the site {site_name}"
                site = await find_site(client, site_name)
                yield f"the app may see the site {site_name}"
                self._doing = f"the search for the library {settings.sharepoint_library}"
                library = await find_library(client, site, site_name, settings.sharepoint_library)
                yield f"library {library.library}: {bare(library.web_url)}"
                self._doing = f"reading the columns of {library.library}"
                for sentence in _about(library.library, await read_columns(client, library)):
                    yield sentence
                self._doing = f"the start of an upload to {library.library}"
                await Uploader(client).rehearse(library.drive_id)
                yield "the app may write: an upload was begun and dropped again"
        finally:
            await client.close()


def _slow_calls() -> SlowCalls | None:
    from shared.retry.call_times import slow_parts
    from shared.sharepoint.client import DEPENDENCY

    return slow_parts().get(DEPENDENCY)


def _about(library: str, columns: Sequence[Column]) -> Iterator[str]:
    yield _filled(library, columns)
    if left := [column for column in columns if not column.writable and not column.hidden]:
        yield f"left alone: {_named(left)}"
    if odd := [column for column in columns if column.writable and column.name.startswith("_")]:
        yield (
            f"perhaps not writable: {', '.join(column.display_name for column in odd)}. Graph refuses"
            " columns whose internal name begins with an escaped letter; create such a column again"
            " under a plain name and rename it then"
        )


async def other_libraries(settings: Settings, store: BlobStore) -> list[tuple[bool, str]]:
    """Look at every other library that photos went to or came from lately: whether it works, and a sentence.

    A target must take an upload, which is begun and dropped; a source must show its files. One that does not
    answer does not hide the others. Raises TimeoutError if the store does not answer.
    """
    from shared.sharepoint.client import GraphClient
    from shared.sharepoint.in_use import libraries_in_use

    async with asyncio.timeout(_LOOK_SECONDS):
        known = await libraries_in_use(store)
    known = [one for one in known if one.use == "source" or not _is_default(settings, one.site, one.library)]
    places = asyncio.Semaphore(_AT_ONCE)
    async with GraphClient(settings) as client:
        return await asyncio.gather(*(_finding(client, settings, one, places) for one in known))


async def _finding(
    client: GraphClient, settings: Settings, one: LibraryInUse, places: asyncio.Semaphore
) -> tuple[bool, str]:
    used = "photos go to it" if one.use == "target" else "photos come from it"
    name = f"library {one.library} of {one.site} ({used})"
    async with places:
        try:
            with _explained(settings.graph_url, "GRAPH_URL"):
                async with asyncio.timeout(_LOOK_SECONDS):
                    return True, f"{name}: {await _look(client, settings, one)}"
        except TimeoutError:
            return False, f"{name}: no answer within {_LOOK_SECONDS:.0f} s"
        except CommandError as error:
            return False, f"{name}: {error}"


def _is_default(settings: Settings, site: str, library: str) -> bool:
    """Whether `steps` looks at this library already."""
    from shared.sharepoint.sites import same_site

    return same_site(site, settings.sharepoint_site) and (
        library.casefold() == settings.sharepoint_library.casefold()
    )


async def _look(client: GraphClient, settings: Settings, one: LibraryInUse) -> str:
    from shared.sharepoint.columns import read_columns
    from shared.sharepoint.listing import can_list
    from shared.sharepoint.sites import find_library, find_site
    from shared.sharepoint.uploads import Uploader

    site = await find_site(client, one.site, main=settings.sharepoint_site)
    library = await find_library(client, site, one.site, one.library)
    if one.use == "source":
        await can_list(client, library.drive_id)
        return "the app may read it"
    filled = _filled(library.library, await read_columns(client, library))
    await Uploader(client).rehearse(library.drive_id)
    return f"{filled}; the app may write"


@contextmanager
def _explained(url: str, setting: str) -> Iterator[None]:
    """Whatever goes wrong, as a sentence that says what to do."""
    from shared.retry.classify import sentence_of
    from shared.retry.errors import HttpStatusError, PermanentError, PostponeError, TransientError

    try:
        yield
    except HttpStatusError as error:
        wait = f": try again in {error.retry_after:.0f} s" if error.retry_after else ""
        raise CommandError(f"{error}{wait}") from error
    except (PermanentError, TransientError, PostponeError) as error:
        raise CommandError(str(error)) from error
    except aiohttp.ClientError as error:
        said = sentence_of(error).splitlines()[0][:200]
        raise CommandError(
            f"{bare(url)} does not answer ({said}): check {setting} and the network"
        ) from error


def _filled(library: str, columns: Sequence[Column]) -> str:
    writable = [column for column in columns if column.writable]
    if not writable:
        raise CommandError(f"{library} has no column that may be filled: add some, or choose another library")
    required = sum(column.required for column in writable)
    return f"{len(columns)} columns, {len(writable)} of them ours to fill, {required} required"


def _named(columns: Sequence[Column]) -> str:
    return ", ".join(
        f"{column.display_name} ({'read-only' if column.read_only else column.kind})" for column in columns
    )
