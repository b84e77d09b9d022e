"""From what people write (a site, a library) to the ids that Graph wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

import msgspec

from events.types import LibraryRef
from shared.retry.errors import PermanentError
from shared.sharepoint.answers import GraphError
from shared.sharepoint.client import segment
from shared.sharepoint.wire import Drive, Site, SiteList

if TYPE_CHECKING:
    from shared.sharepoint.client import GraphClient

_LIBRARY_TEMPLATES: Final = frozenset({"documentLibrary", "pictureLibrary", "mySiteDocumentLibrary"})


class SiteAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A site as it was written. Without a host it is on the tenant's main host."""

    host: str | None = None
    path: str = ""
    """Server-relative, decoded, without slashes at the ends; empty: the root site."""
    id: str | None = None
    """Graph's own id, if that is what was written."""


def site_address(text: str) -> SiteAddress:
    """Read ``host:/sites/Bau``, ``https://host/sites/Bau``, ``/sites/Bau``, ``host`` or Graph's site id.

    Raises PermanentError for anything else.
    """
    text = text.strip()
    if text.count(",") == 2 and "/" not in text:
        return SiteAddress(id=text)
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme != "https" or not parts.hostname:
            raise PermanentError(f"the site {_short(text)} is not an https address")
        return SiteAddress(host=parts.hostname, path=unquote(parts.path).strip("/"))
    if text.startswith("/"):
        return SiteAddress(path=unquote(text).strip("/"))
    host, _, path = text.partition(":")
    if not host or "/" in host or " " in host or (path and not path.startswith("/")):
        raise PermanentError(
            f"the site {_short(text)} cannot be read:"
            " expected host:/sites/Name, https://host/sites/Name or /sites/Name"
        )
    return SiteAddress(host=host, path=path.strip("/"))


async def find_site(client: GraphClient, text: str, *, main: str = "") -> Site:
    """The site of that address. Raises PermanentError if there is none.

    `main` is the configured site, whose host serves addresses without one; else the tenant's root site is
    asked.
    """
    address = site_address(text)
    doing = f"looking up the site {_short(text)}"
    if address.id is not None:
        path = f"/sites/{segment(address.id)}"
    else:
        host = address.host or (site_address(main).host if main else None) or await _main_host(client)
        path = f"/sites/{segment(host)}"
        if address.path:
            path += f":/{quote(address.path)}"
    try:
        return await client.get(path, Site, doing=doing)
    except GraphError as error:
        if error.status == 404:
            raise PermanentError(
                f"there is no site {_short(text)}, or the app may not see it: check the address and"
                " that the app has been granted this site (Sites.Selected)"
            ) from error
        raise


async def find_library(client: GraphClient, site: Site, asked: str, library: str) -> LibraryRef:
    """The library of that name in a site, its display name or the last part of its address in any case.

    `asked` is the site as it was written. Raises PermanentError naming the libraries that there are.
    """
    doing = f"looking up the library {library[:100]!r} in {_short(asked)}"
    libraries = [
        entry
        async for entry in client.pages(
            f"/sites/{segment(site.id)}/lists",
            SiteList,
            doing=doing,
            params={"$select": "id,name,displayName,webUrl,list"},
        )
        if entry.list is None or (entry.list.template in _LIBRARY_TEMPLATES and not entry.list.hidden)
    ]
    wanted = library.strip().casefold()
    # The display name first: another library's address may carry the same word.
    found = next((e for e in libraries if (e.display_name or "").casefold() == wanted), None) or next(
        (e for e in libraries if wanted in ((e.name or "").casefold(), _last_part(e.web_url))), None
    )
    if found is None:
        names = ", ".join(sorted(entry.display_name or entry.name or entry.id for entry in libraries))
        raise PermanentError(
            f"the site {_short(asked)} has no library {library[:100]!r}; it has: {names or 'none'}"
        )
    drive = await client.get(f"/sites/{segment(site.id)}/lists/{segment(found.id)}/drive", Drive, doing=doing)
    return LibraryRef(
        site_id=site.id,
        list_id=found.id,
        drive_id=drive.id,
        site=asked,
        library=found.display_name or library,
        web_url=found.web_url or drive.web_url or "",
    )


async def _main_host(client: GraphClient) -> str:
    """The tenant's main host, from its root site."""
    doing = "looking up the tenant's root site"
    root = await client.get("/sites/root", Site, doing=doing)
    host = root.site_collection.hostname if root.site_collection else None
    host = host or urlsplit(root.web_url).hostname
    if not host:
        raise PermanentError(f"{doing}: its answer names no host; write the site as host:/sites/Name")
    return host


def _last_part(web_url: str | None) -> str:
    return unquote((web_url or "").rstrip("/").rsplit("/", 1)[-1]).casefold()


def _short(text: str) -> str:
    """A site's address for a sentence, without query or userinfo."""
    return repr(text.partition("?")[0].rpartition("@")[2][:200])
