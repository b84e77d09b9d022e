"""What holds for every command: help with an example, one JSON document, exit codes, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from console.arguments import called_as
from console.main import COMMANDS, main, parser
from sandbox.redis_server import Valkey
from tests.console.pipeline import beats

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis import Redis

    from tests.console.conftest import Ran

_READING = (
    ("status",),
    ("session", "list"),
    ("session", "show", "s1"),
    ("photo", "list", "--session", "s1"),
    ("photo", "show", "a.jpg"),
    ("dead", "list"),
    ("dead", "show", "1-1"),
    ("dead", "replay", "--all"),
    ("dead", "discard", "--all", "--yes"),
    ("report", "s1"),
    ("pause", "vision_analyzer"),
    ("resume", "vision_analyzer"),
    ("session", "close", "s1", "--expected", "1"),
    ("session", "forget", "s1", "--yes"),
)


def _leaves(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The command, or its subcommands."""
    top = parser(words)
    group = next(action for action in top._actions if action.dest == "command")
    yield from _below(words, group.choices[words[0]])  # type: ignore[index]  # a parser's is a dict


def _below(words: tuple[str, ...], chosen: argparse.ArgumentParser) -> Iterator[tuple[str, ...]]:
    under = next((action for action in chosen._actions if action.dest == "subcommand"), None)
    if under is None:
        yield words
        return
    for name in under.choices or ():
        yield from _below((*words, name), under.choices[name])  # type: ignore[index]  # likewise


_ALL = [leaf for name in COMMANDS for leaf in _leaves((name,))]


@pytest.mark.parametrize("words", _ALL, ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"example:\n  erni {' '.join(words)}" in text or "example:\n  HTTP_PORT" in text
    assert "--json" in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize(
    "words", [(), ("nonsense",), ("status", "--nope"), ("dead",), ("dead", "list", "--limit", "0")]
)
def test_wrong_usage_is_said_in_a_line_with_exit_code_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--help'" in captured.err
    assert "Traceback" not in captured.err


def test_wrong_usage_with_json_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--nope"]) == 2
    assert "unrecognized arguments" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("what", ["\udcff", "\x7f\x9b"])
def test_a_word_that_no_terminal_shows_is_escaped_in_the_document(
    erni: Callable[..., Ran], what: str
) -> None:
    ran = erni("publish", what, "--json")
    assert ran.code == 2
    assert ran.document["error"] == f"{what}: there is no such file or folder"
    assert ran.out.isprintable() or what not in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fault", "sharepoint", "503", "--for", "-3s"), "is written --for=-3s."),
        (("publish", "-rf.jpg"), "is written ./-rf.jpg if it is a file, or comes after --."),
        (("photo", "show", "-x.jpg"), "is written ./-x.jpg"),
        (
            ("gateway", "--port", "3"),
            "erni gateway: unrecognized arguments: --port 3\nTry 'erni gateway --help'.",
        ),
        (("session", "list", "--limit", "9" * 21), f"'{'9' * 21}': give a whole number from 1 to 1000000"),
        (("session", "list", "--limit", "9" * 5000), "give a whole number from 1 to 1000000"),
        (("session", "close", "s1", "--expected", "10000001"), "give a whole number from 1 to 10000000"),
        (("demo", "--photos", "9999999999"), "'9999999999': give a whole number from 1 to 10000"),
        (("up", "--processes", "photo_fetcher"), "how many? Write photo_fetcher=3, for example"),
        (("up", "--processes", "photo_fetcher=65"), "'65': give a whole number from 1 to 64"),
        (("photo", "show", "--", "\udcff"), "argument ID|FILENAME: '\\udcff' is not UTF-8"),
        (("dead", "list", "--photo", "\udcff"), "argument --photo: '\\udcff' is not UTF-8"),
        (("dead", "list", "--session", "a b"), "session_id 'a b' cannot be used: give 1 to 128"),
        (("dead", "show", f"{2**64}-0"), "'18446744073709551616-0' is no id: `erni dead list` shows them"),
        (("dead", "show", f"1-{'9' * 5000}"), "is no id: `erni dead list` shows them"),
        (("photo", "show", " "), "an empty name: give a photo's id or its file name"),
    ],
)
def test_a_mistyped_word_is_refused_with_how_to_write_it(
    erni: Callable[..., Ran], words: tuple[str, ...], said: str
) -> None:
    ran = erni(*words)
    assert ran.code == 2
    assert said in ran.err


_EMPTY_HANDED = (
    ("status",),
    ("session", "list"),
    ("session", "show", "s1"),
    ("session", "close", "s1"),
    ("session", "forget", "s1", "--yes"),
    ("photo", "list", "--session", "s1"),
    ("photo", "show", "a.jpg"),
    ("dead", "list"),
    ("dead", "show", "1-1"),
    ("report", "s1"),
    ("publish", "https://example.org/a.jpg"),
)


@pytest.mark.parametrize("words", _EMPTY_HANDED, ids=" ".join)
def test_a_redis_without_a_trace_of_us_is_named_as_that(
    words: tuple[str, ...], erni: Callable[..., Ran], client: Redis, redis_url: str
) -> None:
    ran = erni(*words)
    said = f"Redis at {redis_url} has no trace of agents: if another one is meant, set REDIS_URL; `erni up`"
    assert said in " ".join((ran.out + ran.err).split())
    beats(client, "photo_fetcher")
    ran = erni(*words)
    assert "no trace" not in ran.out + ran.err


def test_a_host_that_is_not_there_is_said_in_words(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://nowhere.invalid:6379/0")
    said = "Redis at redis://nowhere.invalid:6379/0 does not answer (there is no host of that name)."
    assert said in erni("session", "list").err
    monkeypatch.setenv("REDIS_URL", "redis://localhost/0?socket_timeout=soon")
    ran = erni("session", "list")
    assert ran.code == 2
    assert "REDIS_URL: the parameter socket_timeout has a value that cannot be used" in ran.err


def test_an_env_file_that_cannot_be_read_is_wrong_usage(erni: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LANES=1\nwhat is this\n")
    ran = erni("session", "list")
    assert ran.code == 2
    assert f"{tmp_path}/.env, line 2: cannot be read; write NAME=value" in ran.err


@pytest.mark.parametrize("words", _READING, ids=" ".join)
def test_with_redis_away_a_sentence_says_where_and_what_to_do(
    words: tuple[str, ...], erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://somebody:geheim@127.0.0.1:1/0")
    ran = erni(*words, "--json")
    assert ran.code == 1
    assert ran.document["error"].startswith(
        "Redis at redis://127.0.0.1:1/0 does not answer (connection refused). Start everything"
    )
    assert "geheim" not in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_an_address_left_by_an_up_that_is_gone_is_named_as_that(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REDIS_URL")
    (tmp_path / ".erni").mkdir()
    (tmp_path / ".erni" / "env").write_text("REDIS_URL='redis://127.0.0.1:1/0'\n")
    said = " ".join(erni("session", "list").err.split())
    assert "(from .erni/env)" in said
    assert f"It was the one of an `erni up` in {tmp_path} that was killed" in said


def test_a_server_that_refuses_the_password_is_said(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "locked", options={"requirepass": "geheim"}) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        said = erni("session", "list").err
        assert "does not let us in" in said
        assert "Check REDIS_PASSWORD" in said
        monkeypatch.setenv("REDIS_PASSWORD", "geheim")
        assert erni("session", "list").code == 0


def test_all_wrong_settings_are_named_at_once_with_exit_code_2(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANES", "many")
    monkeypatch.setenv("VISION_BACKEND", "crystal ball")
    ran = erni("status")
    assert ran.code == 2
    assert "LANES='many'" in ran.err
    assert "VISION_BACKEND='crystal ball'" in ran.err


def test_a_mistake_of_ours_keeps_its_traceback(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("console.sessions.newest", broken)
    with pytest.raises(ZeroDivisionError):
        erni("session", "list")


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from console.main import main; sys.exit(main(['--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as typed:
        assert typed.stdout
        assert typed.stderr
        typed.stdout.close()
        assert b"Traceback" not in typed.stderr.read()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from console.main import main; main(['publish', '--help'])\n"
        "heavy = {'aiohttp', 'redis', 'rich', 'opentelemetry', 'structlog', 'obstore', 'PIL', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_program_is_named_as_it_can_be_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [".venv/bin/erni", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert called_as() == ".venv/bin/erni"
    monkeypatch.setattr(sys, "argv", ["/opt/erni/bin/erni", "demo"])
    assert called_as() == "/opt/erni/bin/erni"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "erni").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert called_as() == "erni"
