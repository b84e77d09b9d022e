"""`erni fault`: the local stand-in misbehaves for a while, to see and to practise what happens."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from console import durations
from console.arguments import checked, describe
from console.errors import CommandError

if TYPE_CHECKING:
    import argparse

    from console.output import Output
    from shared.settings import Settings

_KINDS: Final = ("403", "404", "429", "503", "507", "reset", "slow", "garbage")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni fault sharepoint|vision KIND --for DURATION`."""
    describe(
        parser,
        "Make the local stand-in of SharePoint (or of the vision service, where VISION_URL is one) misbehave "
        "for a while: answer with an error (403, 404, 429, 503, 507) or with nonsense (garbage), cut "
        "connections (reset), or answer slowly. `heal` ends it.",
        "erni fault sharepoint 503 --for 60s",
        "erni fault sharepoint heal",
        run=fault,
    )
    parser.add_argument("part", choices=("sharepoint", "vision"), metavar="PART", help="sharepoint or vision")
    parser.add_argument("kind", choices=(*_KINDS, "heal"), metavar="KIND", help=", ".join((*_KINDS, "heal")))
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="DURATION",
        type=checked(durations.span),
        default=60.0,
        help="how long (default: 60s)",
    )
    parser.add_argument(
        "--share",
        metavar="0..1",
        type=checked(_share),
        default=1.0,
        help="part of the requests (default: all)",
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ValueError(f"{text[:40]!r}: give a number above 0, at most 1")
    return share


def fault(options: argparse.Namespace, output: Output) -> int:
    """Order the fault from the stand-in."""
    from shared import settings as settings_module

    host, port = _stand_in(options.part, settings_module.load())
    order = {"kind": options.kind, "for": options.seconds, "share": options.share}
    if options.kind == "heal":
        _send(host, port, "DELETE", None)
        output.answer({"part": options.part, "kind": None})
        if not output.as_json:
            output.say(f"{options.part} behaves again")
        return 0
    _send(host, port, "POST", msgspec.json.encode(order))
    output.answer({"part": options.part, "kind": options.kind, "seconds": options.seconds})
    if not output.as_json:
        what = {"reset": "cuts connections", "slow": "answers slowly", "garbage": "answers nonsense"}.get(
            options.kind, f"answers {options.kind}"
        )
        output.tell(
            f"{options.part} {what} for {durations.short(options.seconds)}; look at `erni status --watch`,"
            f" end it with `erni fault {options.part} heal`"
        )
    return 0


def _stand_in(part: str, settings: Settings) -> tuple[str, int]:
    """Where the stand-in listens. Raises CommandError where there is none: a real service is left alone."""
    if part == "vision" and settings.vision_backend == "local":
        raise CommandError(
            "VISION_BACKEND=local: photos are described inside the agent, no service is asked that could fail"
        )
    url = settings.graph_url if part == "sharepoint" else settings.vision_url
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK or parts.port is None:
        raise CommandError(_no_stand_in("GRAPH_URL" if part == "sharepoint" else "VISION_URL", url))
    return parts.hostname or "", parts.port


def _no_stand_in(setting: str, url: str) -> str:
    """Say why there is no stand-in here, and what to do."""
    from console.system import not_running
    from shared.settings import merged_environment

    if why := not_running():
        return why
    if setting == "GRAPH_URL" and setting not in merged_environment():
        return (
            "no `erni up` with a stand-in runs in this folder or above it: type the command in the folder of"
            " your `erni up`"
        )
    parts = urlsplit(url)
    return (
        f"{setting} ({parts.scheme}://{parts.hostname}) is no local stand-in, and a real service is left"
        " alone. To practise, start `erni up` without this setting, and type the command in its folder"
    )


def _send(host: str, port: int, method: str, body: bytes | None) -> None:
    link = http.client.HTTPConnection(host, port, timeout=5)
    try:
        link.request(method, "/_erni/fault", body, {"Content-Type": "application/json"})
        answer = link.getresponse()
        said = answer.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"nobody answers on {host}:{port} ({error}): does `erni up` run?") from error
    finally:
        link.close()
    if answer.status >= 300:
        raise CommandError(f"{host}:{port} takes no faults (HTTP {answer.status}: {said.strip()[:200]})")
