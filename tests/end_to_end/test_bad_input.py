"""Bad input: each ends as one dead letter whose reason a person understands, and nothing else stops."""

from __future__ import annotations

import http.server
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end import scenario
from tests.end_to_end.bombs import site
from tests.end_to_end.system import KEYS

if TYPE_CHECKING:
    from tests.end_to_end.system import Outcome, System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class _Nothing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def _reasons(outcome: Outcome) -> dict[str, str]:
    assert all(dead.reason == "permanent" for dead in outcome.dead)
    return {dead.file_name or "": dead.message for dead in outcome.dead}


def test_each_bad_photo_is_one_dead_letter_and_the_good_ones_go_on(system: System) -> None:
    folder = system.photos / "mixed"
    good = scenario.pictures(folder, 3, seed="mixed")
    whole = (folder / good[0]).read_bytes()
    (folder / "login.jpg").write_bytes(b"<!DOCTYPE html><html><body>Anmeldung</body></html>")
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "nothing.jpg").write_bytes(b"")
    with site(_Nothing) as address:
        words = [str(folder), f"file://{folder}/missing.jpg", f"{address}/gone.jpg"]
        system.erni("publish", *words, "--session", "mixed")
        outcome = system.wait("mixed")
    scenario.all_stored(system, outcome, good)
    reasons = _reasons(outcome)
    assert len(outcome.dead) == len(reasons) == 5
    assert reasons["missing.jpg"].endswith("is not there: check the path, or publish it again")
    assert "answered 404: there is nothing: check the source address" in reasons["gone.jpg"]
    assert reasons["login.jpg"].startswith("the file is an HTML page, not a photo")
    assert "is cut off after" in reasons["truncated.jpg"]
    assert "is empty (0 bytes)" in reasons["nothing.jpg"]
    assert outcome.counters["validated"] == "3"
    assert outcome.counters["dead"] == "5"


def test_an_unknown_library_is_told_with_those_that_there_are(system: System) -> None:
    folder = system.photos / "astray"
    scenario.pictures(folder, 1, seed="astray")
    system.erni("publish", str(folder), "--session", "astray", "--library", "Gibtsnicht")
    (reason,) = _reasons(system.wait("astray")).values()
    assert "Gibtsnicht" in reason
    assert "Referenzfotos" in reason


def test_a_field_that_the_library_no_longer_takes_names_its_column(system: System) -> None:
    choice = {"name": "Zustand", "displayName": "Zustand", "required": True}
    system.ask(
        "POST",
        f"{system.graph['admin']}/lists",
        {"displayName": "Umgebaut", "columns": [choice | {"choice": {"choices": ["Prüfen", "Gut"]}}]},
    )
    folder = system.photos / "rebuilt"
    scenario.pictures(folder, 1, seed="rebuilt")
    system.end("sharepoint_uploader")
    try:
        system.erni("publish", str(folder), "--session", "rebuilt", "--library", "Umgebaut")
        analyzed = KEYS.stream("photo.analyzed")
        while not system.redis.xlen(analyzed):
            system.redis.xread({analyzed: "0-0"}, block=1000)
        system.ask(
            "PUT",
            f"{system.graph['admin']}/lists/Umgebaut/columns",
            choice | {"choice": {"choices": ["Gut", "Schlecht"]}},
        )
    finally:
        system.start("sharepoint_uploader")
    (reason,) = _reasons(system.wait("rebuilt")).values()
    assert "'Zustand'" in reason
    assert "«Prüfen» ist keine Auswahl" in reason
    assert "submit the photo again" in reason
    assert system.items("Umgebaut") == []


def test_random_bytes_are_one_dead_letter_each_and_nobody_falls_over(system: System) -> None:
    before = system.redis.xlen(KEYS.dead("schema_extractor"))
    intake = KEYS.stream("photo.submitted")
    entries: list[dict[Any, Any]] = [
        {"data": os.urandom(300)},
        {os.urandom(20): os.urandom(20)},
        {"data": b'{"source_url": 7}'},
        {"data": b"[" * 5000},
        {"data": json.dumps({"source_url": "gopher://x/y", "photo_id": "p\u202e"}).encode()},
    ]
    for entry in entries:
        system.redis.xadd(intake, entry)
    while system.redis.xlen(KEYS.dead("schema_extractor")) < before + len(entries):
        system.redis.xread({KEYS.dead("schema_extractor"): "$"}, block=200)
    assert system.redis.xlen(KEYS.dead("schema_extractor")) == before + len(entries)
    folder = system.photos / "after"
    names = scenario.pictures(folder, 1, seed="after")
    system.erni("publish", str(folder), "--session", "after")
    scenario.all_stored(system, system.wait("after"), names)
    assert all(process.poll() is None for process in system.processes.values())
