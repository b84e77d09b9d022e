"""`erni up` and `erni demo` with real processes: everything starts, survives, and is gone afterwards."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from PIL import Image

from console.up_state import given_settings
from shared.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# Any free ports: several tests may run at once, and so may the developer's own `erni up`.
_ERNI = """
import sys
from sandbox import stack
stack._PREFERRED = {}
from console.main import main
sys.exit(main())
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "GRACE_SECONDS": "5"}


def _erni(folder: Path, *words: str) -> tuple[int, Any, str]:
    """Type a command with --json; gives exit code, document, messages."""
    done = subprocess.run(
        [sys.executable, "-c", _ERNI, *words, "--json"],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def _photos(folder: Path, number: int) -> Path:
    """Different small photos, and one that is none."""
    folder.mkdir()
    for index in range(number):
        picture = io.BytesIO()
        Image.new("RGB", (64, 48), (index * 7 % 255, 90, 200)).save(picture, "JPEG")
        (folder / f"IMG_{index:04}.JPG").write_bytes(picture.getvalue())
    (folder / "IMG_9999.JPG").write_bytes(b"<html>Anmeldung</html>")
    return folder


@contextmanager
def _up(folder: Path, *words: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`erni up`, from the moment when everything is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", _ERNI, "up", *words],
        cwd=folder,
        env=_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        try:
            heard = "".join(_hear(running, "publish: erni publish"))
            running.by_hand = heard.partition("by hand: ")[2].partition("\n")[0]  # type: ignore[attr-defined]
            yield running
        finally:
            running.send_signal(signal.SIGINT)
            try:
                running.wait(60)
            finally:
                running.kill()


def _hear(running: subprocess.Popen[str], pattern: str) -> list[str]:
    """What it says until it says this."""
    assert running.stdout
    heard = []
    for line in running.stdout:
        heard.append(line)
        if re.search(pattern, line):
            return heard
    raise AssertionError(f"never said {pattern!r}, but: {''.join(heard)}")


def _until(look: Callable[[], bool]) -> None:
    """Ask the pipeline until it is so; the test's own time limit is the deadline."""
    while not look():
        time.sleep(0.2)


def _agent(folder: Path, name: str) -> dict[str, Any]:
    agents = _erni(folder, "status")[1]["agents"]
    found: dict[str, Any] = next(agent for agent in agents if agent["agent"] == name)
    return found


def _validated(folder: Path, session: str, number: int) -> bool:
    counts = _erni(folder, "session", "show", session)[1]["session"]
    return bool(counts["validated"] == number and counts["status"] == "completed")


def test_photos_go_through_whoever_is_killed_and_twice_is_once(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos", 40)
    with _up(tmp_path, "--processes", "photo_fetcher=2") as running:
        assert len(_agent(tmp_path, "photo_fetcher")["processes"]) == 2
        code, first, _ = _erni(tmp_path, "publish", str(photos), "--session", "first")
        assert (code, first["published"]) == (0, 41)
        for name in ("vision_analyzer", "sharepoint_uploader"):
            os.kill(_agent(tmp_path, name)["processes"][0]["pid"], signal.SIGKILL)
        _hear(running, "first is through: 40 validated, 1 dead")
        # The same pictures again: the same items.
        _erni(tmp_path, "publish", str(photos), "--session", "second")
        _hear(running, "second is through: 40 validated, 1 dead")
        assert (
            len(list((tmp_path / ".erni" / "sharepoint" / "library" / "Referenzfotos").rglob("*.jpg"))) == 40
        )
        assert (tmp_path / ".erni" / "store" / "reports" / "second" / "report.html").is_file()
        assert _erni(tmp_path, "doctor")[0] == 0
    assert running.returncode == 0
    assert not (tmp_path / ".erni" / "env").exists()


def test_an_outage_of_sharepoint_is_shown_and_waited_for(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos", 30)
    with _up(tmp_path) as running:
        assert _erni(tmp_path, "fault", "sharepoint", "503", "--for", "10m")[0] == 0
        _erni(tmp_path, "publish", str(photos), "--session", "s1")
        _hear(running, "SharePoint cannot be used now")
        assert _erni(tmp_path, "status")[0] == 1
        assert _erni(tmp_path, "fault", "sharepoint", "heal")[0] == 0
        _hear(running, "SharePoint works again")
        _hear(running, "s1 is through: 30 validated, 1 dead")
    assert running.returncode == 0


def test_redis_itself_may_be_killed(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos", 20)
    with _up(tmp_path) as running:
        _erni(tmp_path, "publish", str(photos), "--session", "s1")
        redis = next(child for child in psutil.Process(running.pid).children() if "valkey" in child.name())
        redis.kill()
        _hear(running, "redis +was ended by SIGKILL; starts again at once")
        _until(lambda: _validated(tmp_path, "s1", 20))
    assert running.returncode == 0


def test_a_second_up_in_the_same_folder_is_told_who_runs(tmp_path: Path) -> None:
    with _up(tmp_path) as running:
        code, document, _ = _erni(tmp_path, "up")
        assert code == 1
        assert "runs `erni up` since" in document["error"]
        assert f"(process {running.pid}) already" in document["error"]


def test_nobody_outlives_an_up_that_was_killed_and_the_next_one_finds_the_data(tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos", 5)
    with _up(tmp_path, "--processes", "vision_analyzer=1") as running:
        _erni(tmp_path, "publish", str(photos), "--session", "s1")
        _hear(running, "s1 is through")
        children = psutil.Process(running.pid).children(recursive=True)
        # three agents have a decoder of their own
        assert len(children) == 13
        running.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        code, document, _ = _erni(tmp_path, "status")
        assert code == 1
        assert "start `erni up` there again" in document["error"]
    with _up(tmp_path):
        assert _validated(tmp_path, "s1", 5)


def test_a_redis_that_is_configured_and_not_there_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://127.0.0.1:1/0\n")
    code, document, _ = _erni(tmp_path, "up")
    assert code == 1
    assert document["error"].startswith("Redis at redis://127.0.0.1:1/0 does not answer")


def test_the_demo_shows_every_good_photo_validated_and_every_broken_one_dead(tmp_path: Path) -> None:
    code, document, said = _erni(tmp_path, "demo")
    assert code == 0, said
    assert (document["submitted"], document["validated"], document["dead"]) == (15, 12, 3)
    assert document["total_seconds"] < 60
    assert len(document["dead_photos"]) == 3
    assert "15 of 15 done, 3 dead" in said
    report = tmp_path / ".erni" / "demo" / "store" / "reports" / document["session_id"] / "report.html"
    assert document["report"] == str(report)
    page = report.read_text()
    assert all(photo["file"] in page for photo in document["dead_photos"])
    library = tmp_path / ".erni" / "demo" / "sharepoint" / "library" / "Referenzfotos"
    assert document["library"] == str(library)
    assert len([path for path in library.rglob("*") if path.is_file()]) == 12


def _redis(folder: Path, *words: str) -> str:
    """Type `erni redis-cli`."""
    typed = [sys.executable, "-c", _ERNI, "redis-cli", *words]
    done = subprocess.run(
        typed, cwd=folder, env=_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_the_line_to_publish_by_hand_runs_as_it_is_printed(tmp_path: Path) -> None:
    with _up(tmp_path) as running:
        words = shlex.split(running.by_hand)  # type: ignore[attr-defined]
        assert words[:2] == ["erni", "redis-cli"]
        assert re.fullmatch(r"\d+-0", _redis(tmp_path, *words[2:]))
        _until(lambda: _redis(tmp_path, "XLEN", "erni:photo.validated") == "1")


def test_other_commands_know_the_settings_that_up_was_given_and_no_secret(tmp_path: Path) -> None:
    given = {"PHOTO_STORE_URL": "photos", "VISION_MODEL": "mine", "VISION_API_KEY": "sk-hidden"}
    with _up(tmp_path, "--processes", "vision_analyzer=1", **given):
        written = (tmp_path / ".erni" / "env").read_text()
        assert "sk-hidden" not in written
        below = tmp_path / "may"
        below.mkdir()
        said = _erni(below, "status")[2]
        assert f"photo store {tmp_path}/photos\n" in said
        assert load({}, folder=tmp_path).vision_model == "mine"
        assert load({"VISION_MODEL": "other"}, folder=tmp_path).vision_model == "other"
    assert "sk-hidden" not in (tmp_path / ".erni").joinpath("processes.json").read_text()


def test_up_keeps_no_address_with_a_secret_in_it_and_one_redis() -> None:
    environ = {
        "SESSION_REDIS_URL": "redis://redis.example:6379/0",
        "VISION_URL": "https://user:secret@models.example/v1",
        "OTLP_ENDPOINT": "https://collector.example?token=secret",
        "AZURE_CERTIFICATE_PASSWORD": "secret",
        "PHOTO_STORE_URL": "az://photos/erni",
        "HOME": "/home/erni",
    }
    assert given_settings(environ, load(environ)) == {
        "REDIS_URL": "redis://redis.example:6379/0",
        "PHOTO_STORE_URL": "az://photos/erni",
    }
