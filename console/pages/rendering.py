"""Renders the pages: everything that came from outside is text (autoescape)."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec
from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from console.pages import formats
from console.pages.desk import VISIT
from console.pages.saying import Spoken
from console.pages.texts import LANGUAGES
from events import topology

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from console.pages.desk import Desk
    from console.pages.texts import Texts

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing inline and nothing from elsewhere: markup that slipped in could neither run nor load anything."""
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would take the Origin from forms, by which we know that they are ours
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


async def page(
    desk: Desk, request: web.Request, template: str, /, *, status: int = 200, **values: object
) -> web.Response:
    """Render the template of that name as a response."""
    visit = request[VISIT]
    texts, zone = visit.texts, desk.zone
    says = Spoken(texts, zone)
    running: tuple[object, ...] = ()
    versions: Mapping[str, str] = {}
    if visit.name and status < 500:
        snapshot = await desk.live.now()
        running, versions = snapshot.running, snapshot.versions
    html = (
        _environment()
        .get_template(f"{template}.html")
        .render(
            **values,
            t=texts,
            n=texts.count,
            language=texts.language,
            visit=visit,
            may=visit.may,
            environment=desk.settings.environment,
            path=request.path,
            here=request.path_qs,
            shown_at=_shown_at(request),
            languages=LANGUAGES,
            running=running,
            versions=msgspec.json.encode(versions).decode(),
            agents=topology.CONSUMERS,
            asset=asset,
            number=lambda value: formats.number(value, texts.language),
            rate=lambda value: formats.rate(value, texts.language),
            duration=formats.duration,
            ago=lambda unix: formats.age(time.time() - unix),
            moment=lambda unix: _moment(unix, texts, zone),
            says=says,
            quoted=says.quoted,
            refused=says.refused,
            address=address,
            agent_name=lambda agent: agent_name(texts, agent),
        )
    )
    return web.Response(
        text=html,
        status=status,
        content_type="text/html",
        headers={"Cache-Control": "no-store", "Vary": "Accept-Language, Cookie"},
    )


def _shown_at(request: web.Request) -> str:
    """Return where a person can see this page again: the answer to a form has no address of its own."""
    if request.method in ("GET", "HEAD"):
        return request.path_qs
    form = urlsplit(request.headers.get("Referer", ""))
    return urlunsplit(("", "", form.path, form.query, ""))


def spoken(desk: Desk, request: web.Request) -> Spoken:
    """Return what says the sentences that pages and commands share, for a visit."""
    return Spoken(request[VISIT].texts, desk.zone)


def _moment(unix: float, texts: Texts, zone: tzinfo) -> Markup:
    """Return a moment as markup: short, with its zone; the whole of it as a tool tip and for scripts."""
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        formats.iso(unix, zone), formats.exact(unix, zone), formats.clock(unix, texts.language, zone)
    )


def agent_name(texts: Texts, agent: str) -> str:
    """Return what an agent is called; an unknown one keeps its own name."""
    return texts(f"agent.{agent}") if texts.has(f"agent.{agent}") else agent


def address(*parts: str, **query: object) -> str:
    """Return a path of our own: parts are quoted, query values that are None or '' are left out."""
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


@cache
def asset(name: str) -> str:
    """Return the address of a file in `static`, which changes with its content: it can be cached for long."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
