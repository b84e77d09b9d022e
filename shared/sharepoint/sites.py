"""Finds Graph's ids of a site and a library from what people write."""

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

_NO_LIBRARIES: Final = frozenset(
    {"genericList", "tasks", "survey", "links", "announcements", "contacts", "events", "issueTracking"}
)
"""Templates of lists without files (listInfo resource type). What is not among them is a library if it has a
drive: documents, pictures, assets."""
_PAGES: Final = frozenset({"sitepages", "pages", "lists", "_layouts", "_api"})
"""What follows a site in the addresses that browsers show, beside libraries."""


class SiteAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a site as it was written. Without a host it is on the host of the configured site."""

    host: str | None = None
    path: str = ""
    """Server-relative, decoded, without slashes at the ends; empty: the root site."""
    id: str | None = None
    """Graph's own id, if that is what was written."""


def site_address(text: str) -> SiteAddress:
    """Read ``host:/sites/Bau``, ``https://host/sites/Bau``, ``/sites/Bau``, ``host`` or Graph's site id.

    Raises PermanentError for anything else; for the address of a library's page it names site and library.
    """
    text = text.strip().partition("?")[0]
    if text.count(",") == 2 and "/" not in text:
        return SiteAddress(id=text, host=text.partition(",")[0])
    address = _read(text)
    names = address.path.split("/")
    folded = [name.casefold() for name in names]
    if "forms" in folded[1:] and folded[-1].endswith(".aspx"):
        library = folded.index("forms", 1) - 1
        raise PermanentError(
            f"the site {_short(text)} goes on into a library: {_instead(address, names, library)}"
        )
    depth = _usual_depth(names)
    for at, name in enumerate(folded[depth:], depth):
        if name in _PAGES or name.endswith(".aspx"):
            raise PermanentError(
                f"the site {_short(text)} is the address of a page:"
                f" the site is {_written(address, names[:at])}"
            )
    if folded[0].startswith(":"):
        raise PermanentError(
            f"the site {_short(text)} is a link to share something by: write the site's own address,"
            " host:/sites/Name"
        )
    return address


def same_site(one: str, other: str) -> bool:
    """Return whether two addresses name the same site. Without a host the configured one is meant."""
    try:
        first, second = site_address(one), site_address(other)
    except PermanentError:
        return False
    hosts = {(address.host or "").casefold() for address in (first, second)} - {""}
    return len(hosts) < 2 and (first.id, first.path.casefold()) == (second.id, second.path.casefold())


def _read(text: str) -> SiteAddress:
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
    return SiteAddress(host=host, path=unquote(path).strip("/"))


async def find_site(client: GraphClient, text: str, *, main: str = "") -> Site:
    """Find the site of that address. Raises PermanentError if there is none.

    `main` is the configured site, whose host serves addresses without one. (The tenant could be asked for its
    host, but not by an app that may see single sites only.)
    """
    address = site_address(text)
    doing = f"looking up the site {_short(text)}"
    if address.id is not None:
        path = f"/sites/{segment(address.id)}"
    else:
        host = address.host or (site_address(main).host if main else None)
        if host is None:
            raise PermanentError(
                f"the site {_short(text)} names no host, and SHAREPOINT_SITE none either: write it as"
                f" contoso.sharepoint.com:/{address.path}, with the host that the browser shows"
            )
        path = f"/sites/{segment(host)}"
        if address.path:
            path += f":/{quote(address.path)}"
    try:
        return await client.get(path, Site, doing=doing)
    except GraphError as error:
        if error.status in (403, 404):
            # An app that may see single sites gets the same 403 for one that is not there.
            answer = " ".join([str(error.status), *error.codes[:1]])
            raise PermanentError(
                f"there is no site {_short(text)}, or the app may not see it (SharePoint answered {answer}):"
                " check the address, then that the app has been granted this site (Sites.Selected)"
                f"{_perhaps_a_library(address)}"
            ) from error
        if error.status == 400:
            raise PermanentError(
                f"the site {_short(text)} is none of this tenant's (SharePoint answered"
                f" {' '.join(['400', *error.codes[:1]])}): check its host, as the browser shows it"
            ) from error
        raise


async def find_library(client: GraphClient, site: Site, asked: str, library: str) -> LibraryRef:
    """Find the library of a site by its display name or the last part of its address, in any case.

    `asked` is the site as it was written. Raises PermanentError naming the libraries that there are.
    """
    doing = f"looking up the library {library[:100]!r} in {_short(asked)}"
    lists = [
        entry
        async for entry in client.pages(
            f"/sites/{segment(site.id)}/lists",
            SiteList,
            doing=doing,
            params={"$select": "id,name,displayName,webUrl,list"},
        )
        if entry.list is None or not entry.list.hidden
    ]
    wanted = library.strip().casefold()
    lists = [entry for entry in lists if not entry.list or entry.list.template not in _NO_LIBRARIES]
    # The display name first: another library's address may carry the same word.
    found = next((e for e in lists if (e.display_name or "").casefold() == wanted), None) or next(
        (e for e in lists if wanted in ((e.name or "").casefold(), _last_part(e.web_url))), None
    )
    drive = await _drive(client, site, found, doing) if found else None
    if found is None or drive is None:
        names = ", ".join(sorted(e.display_name or e.name or e.id for e in lists if _is_library(e)))
        raise PermanentError(
            f"the site {_short(asked)} has no library {library[:100]!r}; it has: {names or 'none'}"
        )
    return LibraryRef(
        site_id=site.id,
        list_id=found.id,
        drive_id=drive.id,
        site=asked,
        library=found.display_name or library,
        web_url=found.web_url or drive.web_url or "",
    )


def _is_library(entry: SiteList) -> bool:
    """Return whether a list's template says that it is a library: for documents, pictures, assets, pages."""
    template = entry.list.template if entry.list else None
    return template is None or template.casefold().endswith("library")


async def _drive(client: GraphClient, site: Site, found: SiteList, doing: str) -> Drive | None:
    """Read the drive of a list; None if it is not a library."""
    try:
        return await client.get(
            f"/sites/{segment(site.id)}/lists/{segment(found.id)}/drive", Drive, doing=doing
        )
    except GraphError as error:
        if error.status in (400, 404):
            return None
        raise


def _perhaps_a_library(address: SiteAddress) -> str:
    """Say what to try if the address has more parts than sites usually have. It may also be a subsite."""
    names = address.path.split("/")
    depth = _usual_depth(names)
    if not address.path or len(names) <= depth:
        return ""
    return f". If {names[depth]!r} is a library, {_instead(address, names, depth)}"


def _usual_depth(names: list[str]) -> int:
    """Return how many parts a site's path has, if it is not a subsite."""
    return 2 if names[0].casefold() in ("sites", "teams", "personal") else 0


def _instead(address: SiteAddress, names: list[str], library: int) -> str:
    """Say which settings to use for an address whose `library`-th part is the library."""
    return (
        f"the site ends before it: set SHAREPOINT_SITE={_written(address, names[:library])} and"
        f" SHAREPOINT_LIBRARY={names[library]}"
    )


def _written(address: SiteAddress, names: list[str]) -> str:
    path = "/" + "/".join(names)
    return f"{address.host}:{path}" if address.host and names else address.host or path


def _last_part(web_url: str | None) -> str:
    return unquote((web_url or "").rstrip("/").rsplit("/", 1)[-1]).casefold()


def _short(text: str) -> str:
    """Quote a site's address for a sentence, without query or userinfo."""
    return repr(text.partition("?")[0].rpartition("@")[2][:200])
