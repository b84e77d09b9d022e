"""The containers of Redis start it with its password, and cut only a torn end off its log."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from tests.project import manifests
from tests.project.test_deployment import DURABLE, options, server_command
from tests.sandbox.test_append_only_file import CUTS, log_of, torn
from tests.tools import require

TORN = CUTS | {
    "behind the first number": lambda data: data.index(b"$"),
    "in a number": lambda data: data.index(b"torn-2") - 3,
    "in front of the last line's end": lambda data: len(data) - 1,
}
DAMAGED = {
    "a mark": (b"\r\n$4\r\nlist", b"\r\n%4\r\nlist"),
    "the mark of a command": (b"*1\r\n$4\r\nEXEC", b"+1\r\n$4\r\nEXEC"),
    "a length that ends nowhere": (b"$7\r\nwhole-1\r\n*3", b"$799999\r\n-1\r\n*3"),
    "the end of a transaction": (b"EXEC", b"EXEB"),
    "an empty sector": (b"whole-2\r\n*3\r\n$5", bytes(16)),
}


def start_script(where: str) -> list[str]:
    """How the containers of Redis start: the words before those of the server."""
    if where == "compose":
        words: list[str] = manifests.compose()["services"]["redis"]["entrypoint"]
        # compose takes a single dollar sign for a variable of its own
        return [word.replace("$$", "$") for word in words]
    return list(
        next(container for name, _, container in manifests.containers() if name == "redis")["command"]
    )


def start_of_redis(folder: Path, where: str, password: str) -> subprocess.CompletedProcess[str]:
    """Run what the containers run before the server, with `folder` for their volumes."""
    for name in ("secrets", "redis"):
        (folder / name).mkdir()
    (folder / "secrets" / "redis_password").write_text(password)
    words = [
        word.replace("/data", str(folder)).replace("/run/", f"{folder}/").replace("chown redis", "ls")
        for word in start_script(where)
    ]
    # the image's own entrypoint drops its rights and starts the server
    entrypoint = folder / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\necho "starts $*"\n')
    entrypoint.chmod(0o755)
    path = f"{folder}:{require('redis-server').parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*words, "redis-server", "--save", ""],
        env={"PATH": path},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )


@pytest.fixture
def one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server and redis-check-aof of one version, as in the image."""
    monkeypatch.setattr("sandbox.redis_server._candidates", lambda: [require("redis-server")])


@pytest.mark.needs("redis-server")  # redis-check-aof comes with it
@pytest.mark.usefixtures("one_version")
@pytest.mark.parametrize("where", ["compose", "kubernetes"])
@pytest.mark.parametrize("cut", TORN)
def test_redis_starts_on_a_torn_log_only_after_it_was_cut(tmp_path: Path, where: str, cut: str) -> None:
    transaction = torn(tmp_path, TORN[cut])
    log = log_of(tmp_path)
    whole = log.read_bytes()[: -TORN[cut](transaction)]
    done = start_of_redis(tmp_path, where, "s3cret words")
    assert done.stdout.endswith("starts redis-server --save \n")
    assert log.read_bytes() == whole


@pytest.mark.needs("redis-server")
@pytest.mark.usefixtures("one_version")
@pytest.mark.parametrize("where", ["compose", "kubernetes"])
@pytest.mark.parametrize(("whole", "damaged"), DAMAGED.values(), ids=DAMAGED)
def test_a_log_that_is_damaged_in_the_middle_is_left_for_redis_to_refuse(
    tmp_path: Path, where: str, whole: bytes, damaged: bytes
) -> None:
    torn(tmp_path, len)
    log = log_of(tmp_path)
    data = log.read_bytes()
    assert data.count(b"EXEC") == 2
    assert whole in data[: data.index(b"EXEC") + 4]
    data = data.replace(whole, damaged, 1)
    log.write_bytes(data)
    done = start_of_redis(tmp_path, where, "s3cret words")
    assert done.stdout.endswith("starts redis-server --save \n")
    assert log.read_bytes() == data
    durable = [word for option in DURABLE for word in (option, options(server_command(where))[option])]
    refused = subprocess.run(
        [
            require("redis-server"),
            *durable,
            "--port",
            "0",
            "--unixsocket",
            "redis.sock",
            "--dir",
            str(tmp_path),
        ],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    assert b"reading the append only file" in refused.stdout
    assert log.read_bytes() == data


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("character", ['"', "\\", "\n", "\r"])
@pytest.mark.parametrize("rest", ["", "maxmemory 1"])
def test_a_password_that_a_configuration_file_reads_differently_is_refused(
    tmp_path: Path, character: str, rest: str
) -> None:
    done = start_of_redis(tmp_path, "compose", f"s3cret{character}{rest}")
    assert done.returncode == 1
    assert done.stderr == (
        "REDIS_PASSWORD must not contain a double quote, a backslash or a line break: "
        'set another in .env, for example what "openssl rand -hex 24" prints\n'
    )
    assert not done.stdout
    assert not list((tmp_path / "redis").iterdir())


def test_composes_redis_has_time_to_check_and_read_its_log_before_it_counts_as_unhealthy() -> None:
    assert manifests.compose()["services"]["redis"]["healthcheck"]["start_period"] == "10m"


@pytest.mark.needs("redis-server")
def test_the_password_of_composes_redis_is_in_no_list_of_processes(tmp_path: Path) -> None:
    service = manifests.compose()["services"]["redis"]
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "redis_password").write_text("s3cret words")
    (tmp_path / "redis").mkdir()
    shell, *words = [
        word.replace("$$", "$").replace("/run/", f"{tmp_path}/") for word in service["entrypoint"]
    ]
    # the image's own script and user
    words[1] = words[1].replace("exec docker-entrypoint.sh", "exec").replace("chown redis", "ls")
    command = [word.replace("/run/", f"{tmp_path}/") for word in service["command"]]
    socket = tmp_path / "redis.sock"
    command += ["--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    with subprocess.Popen([shell, *words, *command], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            assert any("ready to accept connections" in line.lower() for line in server.stdout)
            arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
            assert "redis-server" in arguments
            assert "s3cret" not in arguments
            with Redis(unix_socket_path=str(socket)) as stranger, pytest.raises(AuthenticationError):
                stranger.ping()
            with Redis(unix_socket_path=str(socket), password="s3cret words") as friend:
                assert friend.config_get("maxmemory") == {"maxmemory": str(1280 << 20)}
        finally:
            server.terminate()
    assert (tmp_path / "redis" / "password.conf").stat().st_mode & 0o777 == 0o600
