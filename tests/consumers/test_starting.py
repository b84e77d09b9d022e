"""The first second of a process: signals, a store that cannot be opened, a user without a home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from shared.photo_store import BlobStore, StoreUnhealthyError
from shared.retry.classify import Kind, classify
from shared.settings import Settings, SettingsError, cache_folder, load

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
AGENT: Final = ("consumers", "photo_fetcher")


def run(*words: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "imported"), [(AGENT, "structlog"), (("console.main", "gateway"), "aiohttp")]
)
def test_a_signal_during_the_imports_ends_the_process_even_as_the_first_of_a_container(
    words: tuple[str, ...], imported: str, tmp_path: Path
) -> None:
    # Without a handler it would be ended by the signal here, and not at all where it is process 1.
    (tmp_path / f"{imported}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)\n"
    )
    ended = run(*words, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert ended.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("url", ["file:///proc/nix", "foo://x"])
def test_a_store_that_cannot_be_opened_is_one_sentence(url: str) -> None:
    ended = run(*AGENT, PHOTO_STORE_URL=url)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"photo_fetcher does not start: the photo store {url} cannot be used (")
    with pytest.raises(StoreUnhealthyError) as raised:
        BlobStore(url)
    assert classify(raised.value) is Kind.UNHEALTHY


def test_a_user_without_a_home_is_told_to_name_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(SettingsError, match="this user has no home folder; name a folder"):
        cache_folder(Settings())
    assert cache_folder(Settings(cache_dir="/var/cache/erni")) == Path("/var/cache/erni")


def test_a_value_in_env_is_taken_literally(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('REDIS_PASSWORD=a${HOME}b$c\nAZURE_CLIENT_SECRET="x${NIX}y"\n')
    settings = load({}, folder=tmp_path)
    assert str(settings.redis_password) == "a${HOME}b$c"
    assert str(settings.azure_client_secret) == "x${NIX}y"


def test_what_is_stored_is_for_its_user_alone(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    store = tmp_path / "store"
    words = ("console.main", "publish", "a.jpg", "--session", "s1")
    variables = {"REDIS_URL": redis_url, "PHOTO_STORE_URL": f"file://{store}", "PYTHONPATH": str(ROOT)}
    ended = run(*words, folder=tmp_path, **variables)
    assert ended.returncode == 0, ended.stderr
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (store, *store.rglob("*"))}
    assert modes == {True: 0o700, False: 0o600}


def test_output_that_is_not_utf8_is_no_traceback(tmp_path: Path) -> None:
    ended = run(
        "console.main",
        "publish",
        "Küsnacht.jpg",
        folder=tmp_path,
        PYTHONIOENCODING="ascii",
        PYTHONPATH=str(ROOT),
    )
    assert "Traceback" not in ended.stderr
    assert "there is no such file" in ended.stderr
