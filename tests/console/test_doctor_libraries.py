"""`erni doctor` looks at every library that photos name, not only at the configured one."""

from __future__ import annotations

import asyncio
import errno
import re
import time
from typing import TYPE_CHECKING

import pytest

from events.types import Target
from shared.photo_store import BlobStore
from shared.sharepoint.client import GraphClient
from shared.sharepoint.libraries import Libraries
from shared.sharepoint.source import ByPath, SharePointSource
from tests.shared.sharepoint.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.settings import Settings
    from tests.console.conftest import Ran


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A tenant of its own, in the settings of the command line."""
    running = Emulator(tmp_path / "graph")
    for name, value in running.ready.settings().items():
        monkeypatch.setenv(name, value)
    yield running
    running.stop()


async def use(emulator: Emulator, settings: Settings) -> None:
    """Let photos name a second library as their target, and a third as their source."""
    for name in ("Ablage", "Fotos"):
        column = {"name": "Ort", "text": {}}
        await emulator.admin(
            "POST", "/lists", {"displayName": name, "site": "sites/Alt", "columns": [column]}
        )
    async with GraphClient(settings) as client:
        libraries = Libraries(client, BlobStore(settings.photo_store_url), settings)
        await libraries.resolve(None)
        await libraries.resolve(Target(site="/sites/Alt", library="Ablage"))
        await libraries.close()
    source = SharePointSource(settings)
    await source.place(ByPath(site="/sites/Alt", library="Fotos", path=""))
    await source.close()


def lines(ran: Ran) -> dict[str, tuple[str, str]]:
    checks = [check for check in ran.document["checks"] if check["sentence"].startswith("library ")]
    return {check["sentence"].split()[1].rstrip(":"): (check["state"], check["sentence"]) for check in checks}


def test_every_library_that_photos_name_is_looked_at(
    erni: Callable[..., Ran], emulator: Emulator, tmp_path: Path
) -> None:
    asyncio.run(use(emulator, emulator.settings(tmp_path, PHOTO_STORE_URL=str(tmp_path / "store"))))
    found = lines(erni("doctor", "--json"))
    assert {name: state for name, (state, _) in found.items()} == {
        "Referenzfotos": "ok",
        "Ablage": "ok",
        "Fotos": "ok",
    }
    assert "of /sites/Alt (photos go to it): " in found["Ablage"][1]
    assert found["Ablage"][1].endswith("; the app may write")
    asyncio.run(emulator.fault(kind="507", method="POST", match="createUploadSession"))
    asyncio.run(emulator.fault(kind="403", method="GET", match="/root/children"))
    found = lines(erni("doctor", "--json"))
    assert found["Ablage"][0] == "failed"
    assert "the site's storage quota is used up: make room or raise it" in found["Ablage"][1]
    assert found["Fotos"][0] == "failed"
    assert "grant the app" in found["Fotos"][1]


def test_a_library_that_does_not_answer_hides_no_other_finding(
    erni: Callable[..., Ran], emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.checks._SECONDS", 10.0)
    monkeypatch.setattr("console.sharepoint_steps._LOOK_SECONDS", 2.0, raising=False)
    asyncio.run(use(emulator, emulator.settings(tmp_path, PHOTO_STORE_URL=str(tmp_path / "store"))))
    asyncio.run(emulator.fault(kind="slow", method="GET", match="/root/children", delay=60))
    ran = erni("doctor", "--json")
    assert {name: state for name, (state, _) in lines(ran).items()} == {
        "Referenzfotos": "ok",
        "Ablage": "ok",
        "Fotos": "failed",
    }
    assert lines(ran)["Fotos"][1] == (
        "library Fotos of /sites/Alt (photos come from it): no answer within 2 s"
    )
    looks = [check["sentence"] for check in ran.document["checks"] if check["part"] == "sharepoint"]
    assert looks[0].startswith("signed in"), "the configured library comes first"
    assert [look.split()[1] for look in looks[-2:]] == ["Ablage", "Fotos"]


@pytest.mark.parametrize(
    ("delay", "named"),
    [
        (1.0, r" answers slowly: .*a call \((GET|POST|DELETE)\) takes \d"),
        (60.0, " does not answer: the search for the site"),
    ],
)
def test_a_slow_sharepoint_is_named_within_ten_seconds_and_delays_no_other_part(
    erni: Callable[..., Ran], emulator: Emulator, delay: float, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.retry.call_times._PARTS", {})
    asyncio.run(emulator.fault(kind="slow", delay=delay))
    started = time.monotonic()
    ran = erni("doctor", "--json")
    took = time.monotonic() - started
    asyncio.run(emulator.admin("DELETE", "/fault"))
    assert took < 12, "parts that are looked at one after the other take their sum"
    checks = ran.document["checks"]
    [late] = [one["sentence"] for one in checks if one["part"] == "sharepoint" and one["state"] == "failed"]
    assert re.search(named, late)
    parts = [check["part"] for check in checks]
    assert parts.index("store") < len(parts) - 1 - parts[::-1].index("sharepoint")


def test_a_full_disk_is_said_once_and_not_of_the_stand_in_that_has_no_room(
    erni: Callable[..., Ran],
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nearly_no_room: Callable[[int], None],
    redis_url: str,
) -> None:
    (tmp_path / ".erni").mkdir()
    (tmp_path / ".erni" / "env").write_text(f"GRAPH_URL={emulator.ready.url}\nREDIS_URL={redis_url}\n")
    monkeypatch.chdir(tmp_path)
    asyncio.run(emulator.fault(kind="507", method="POST", match="createUploadSession"))

    def sharepoint() -> list[tuple[str, str]]:
        checks = erni("doctor", "--json").document["checks"]
        return [
            (one["state"], one["sentence"])
            for one in checks
            if one["part"] == "sharepoint" and one["state"] != "ok"
        ]

    [(state, said)] = sharepoint()
    assert state == "failed"
    assert "storage quota" in said
    nearly_no_room(0)
    assert sharepoint() == [
        ("skipped", "not checked: the disk on which the local stand-in keeps its files is full")
    ]
    # another SharePoint has no room for a reason of its own
    (tmp_path / ".erni" / "env").write_text(f"REDIS_URL={redis_url}\n")
    assert [state for state, _ in sharepoint()] == ["failed"]


def test_a_store_on_a_full_disk_is_said_once(
    erni: Callable[..., Ran],
    tmp_path: Path,
    nearly_no_room: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BlobStore, "put", refused)
    (tmp_path / "store").mkdir()

    def store() -> dict[str, str]:
        [one] = [one for one in erni("doctor", "--json").document["checks"] if one["part"] == "store"]
        return {"state": one["state"], "sentence": one["sentence"]}

    assert store()["state"] == "failed"
    nearly_no_room(0)
    assert store() == {
        "state": "skipped",
        "sentence": "not checked: the disk on which it keeps its files is full",
    }
