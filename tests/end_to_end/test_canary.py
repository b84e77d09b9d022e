"""A planted secret and a planted position are found in nothing that people and machines keep to look at."""

from __future__ import annotations

import http.server
import json
import urllib.request
from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.end_to_end.bombs import site
from tests.end_to_end.system import KEYS
from tests.shared.photos.pictures import jpeg, rationals, text, tiff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.system import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECRET = "kanarienvogel8731"
POSITION = ("47.1357", "8.2468")
_GPS = [
    text(1, "N"),
    rationals(2, (471_357, 10_000)),
    text(3, "E"),
    rationals(4, (82_468, 10_000)),
]


class _Upstream(http.server.BaseHTTPRequestHandler):
    """Serves photos, and repeats the secret wherever an answer may carry one."""

    photos: ClassVar[dict[str, bytes]] = {
        "/placed.jpg": jpeg(tiff(gps=_GPS)),
        "/unplaced.jpg": jpeg(tiff(gps=[*_GPS, text(29, "2024:05:12")])),
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/elsewhere.jpg":
            self.send_response(302)
            self.send_header("Location", f"/forbidden.jpg?sig={SECRET}")
        elif path in self.photos:
            self.send_response(200)
        else:
            self.send_response(403, f"no access with {SECRET}")
            self.send_header("WWW-Authenticate", f'Bearer error="{SECRET}"')
        self.send_header("X-Api-Key", SECRET)
        self.end_headers()
        self.wfile.write(self.photos.get(path, f"token={SECRET} is refused".encode()))

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def _kept(system: System) -> Iterator[tuple[str, str]]:
    """Everything that is kept to be looked at: where it is, and what it says."""
    for path in (system.folder / "logs").iterdir():
        yield str(path), path.read_text(errors="replace")
    url = system.traces["url"]
    for service in _get(f"{url}/api/services")["data"]:
        yield f"spans of {service}", json.dumps(_get(f"{url}/api/traces?service={service}&limit=1000"))
    for agent in system.erni("status", code=0)["agents"]:
        for process in agent["processes"]:
            with urllib.request.urlopen(f"http://{process['metrics_address']}/metrics") as answer:  # loopback
                yield f"metrics of {agent['agent']}", answer.read().decode()
    for session in ("canary", "canary-errors"):
        for group in system.erni("dead", "list", "--session", session)["groups"]:
            for letter in group["letters"]:
                yield "dead letter", json.dumps(letter)
                yield "dead letter shown", json.dumps(system.erni("dead", "show", letter["id"]))
        for path in (system.store / "reports" / session).rglob("*"):
            if path.is_file():
                yield str(path), path.read_text()
    for stream in ("photo.validated", "session.reported"):
        for _, fields in system.redis.xrange(KEYS.stream(stream)):
            if b"canary" in fields.get(b"sessionid", b""):
                yield f"public event {stream}", str(fields)


def _get(url: str) -> dict[str, list[str]]:
    with urllib.request.urlopen(url) as answer:  # noqa: S310  # the receiver on loopback
        found: dict[str, list[str]] = json.loads(answer.read())
    return found


def test_a_planted_secret_and_a_planted_position_are_found_nowhere(system: System) -> None:
    for agent in ("photo_fetcher", "vision_analyzer"):
        system.end(agent)
        system.start(agent, LOG_LEVEL="debug", VISION_API_KEY=SECRET)
    with site(_Upstream) as address:
        host = address.removeprefix("http://")
        there = f"http://someone:{SECRET}@{host}"
        system.erni("publish", f"{there}/placed.jpg?sig={SECRET}", "--session", "canary", "--place", "Seewen")
        bad = [
            f"{there}/forbidden.jpg?sig={SECRET}#{SECRET}",
            f"{there}/elsewhere.jpg?sig={SECRET}",
            f"http://not-allowed.example/{SECRET[:0]}x.jpg?token={SECRET}",
        ]
        system.erni("publish", *bad, f"{there}/unplaced.jpg?sig={SECRET}", "--session", "canary-errors")
        outcomes = [system.wait("canary"), system.wait("canary-errors")]
    assert [(len(outcome.validated), len(outcome.dead)) for outcome in outcomes] == [(1, 0), (1, 3)]
    # spans are sent when an agent ends, at the latest
    for agent in ("photo_fetcher", "vision_analyzer", "validation_reporter"):
        system.end(agent)
        system.start(agent)
    kept = list(_kept(system))
    assert len({where.partition(" ")[0] for where, _ in kept}) >= 5
    assert [where for where, said in kept if SECRET in said] == []
    # A photo without any other place has its position in the place column, and so in its own report.
    elsewhere = [(where, said) for where, said in kept if "canary-errors" not in where + said]
    assert [where for where, said in elsewhere if any(number in said for number in POSITION)] == []
    machines = [
        (where, said)
        for where, said in kept
        if where.partition(" ")[0] != "public" and "reports" not in where
    ]
    assert [where for where, said in machines if any(number in said for number in POSITION)] == []
