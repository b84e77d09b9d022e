"""What is planted is found in nothing kept to look at, and in nothing at all after `erni session forget`."""

from __future__ import annotations

import http.server
import json
import os
import time
import urllib.request
from typing import TYPE_CHECKING, ClassVar

import pytest

from shared.operations.activity import ACTIVITY
from tests.end_to_end.bombs import site
from tests.end_to_end.system import KEYS
from tests.shared.photos.pictures import jpeg, rationals, text, tiff

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


_PLANTED = ("zaunkoenig4711", "rotkehlchen0815", "46.9753", "7.4489")
"""In the file's name, in a hint, and in the picture's GPS."""


_THERE = [text(1, "N"), rationals(2, (469_753, 10_000)), text(3, "E"), rationals(4, (74_489, 10_000))]


def _everything(system: System) -> Iterator[tuple[str, str]]:
    """Every blob's name and bytes, every key of Redis with its value."""
    for path in system.store.rglob("*"):
        said = path.read_bytes().decode("latin-1") if path.is_file() else ""
        yield str(path), f"{path.relative_to(system.store)} {said}"
    for key in system.redis.scan_iter():
        kind = system.redis.type(key).decode()
        read = {
            "string": system.redis.get,
            "hash": system.redis.hgetall,
            "stream": system.redis.xrange,
            "set": system.redis.smembers,
            "list": lambda key: system.redis.lrange(key, 0, -1),
            "zset": lambda key: system.redis.zrange(key, 0, -1),
        }[kind]
        yield key.decode(), f"{key!r} {read(key)!r}"


def _where(system: System, *words: str) -> set[str]:
    return {where for where, said in _everything(system) if any(word in said for word in words)}


def _acts(system: System, session: str) -> list[str]:
    """What people did that names a session."""
    acts = system.redis.xrange(ACTIVITY)
    return [act[b"action"].decode() for _, act in acts if session.encode() in act[b"what"]]


def test_after_a_session_is_forgotten_nothing_of_it_is_kept(system: System, tmp_path: Path) -> None:
    (tmp_path / f"{_PLANTED[0]}.jpg").write_bytes(jpeg(tiff(gps=_THERE)) + _PLANTED[0].encode())
    (tmp_path / f"{_PLANTED[0]}-broken.jpg").write_bytes(b"no picture " + _PLANTED[0].encode())
    hints = ("--project", _PLANTED[1], "--text", _PLANTED[1])
    system.erni("publish", str(tmp_path), "--session", "forgotten", *hints)
    outcome = system.wait("forgotten")
    assert (len(outcome.validated), len(outcome.dead)) == (1, 1)
    contents = {photo.sha256 for photo in outcome.validated}
    assert len(_where(system, *contents)) > 6
    for word in _PLANTED:
        assert len(_where(system, word)) > 3, word
    system.erni("session", "forget", "forgotten", "--yes")
    assert _where(system, *_PLANTED, *contents) == set()
    # what makes a second publication of the same event none: ids, for a day
    left = {key for key in _where(system, "forgotten") if not key.startswith("erni:published:")}
    # it says who forgot the session, and nothing else of it
    assert left == {ACTIVITY}
    assert _acts(system, "forgotten") == ["forget session"]
    # the same picture once more is no second item
    items = [item for item in system.items() if item.name == outcome.validated[0].item.name]
    system.erni("publish", str(tmp_path / f"{_PLANTED[0]}.jpg"), "--session", "forgotten-again", *hints)
    again = system.wait("forgotten-again").validated[0]
    assert again.item.item_id == outcome.validated[0].item.item_id
    assert len(items) == len([item for item in system.items() if item.name == again.item.name]) == 1


def test_what_is_old_goes_from_the_store_of_a_running_system(system: System) -> None:
    orphan = system.store / "originals" / ("f" * 64)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"nobody's")
    when = time.time() - 3 * 24 * 3600
    os.utime(orphan, (when, when))
    system.end("validation_reporter")
    system.start("validation_reporter", STORE_RETENTION_DAYS="2")
    deadline = time.monotonic() + 20
    while orphan.exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # a file that goes gives no signal
    assert not orphan.exists()
    system.end("validation_reporter")
    system.start("validation_reporter")
