"""`erni doctor`: what is wrong, each in a line, with what to do; one part does not hide another."""

from __future__ import annotations

import re
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from console.checks import _decoder
from events.topology import AGENTS
from sandbox.redis_server import Valkey
from shared.settings import Settings
from tests.console.pipeline import beats

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis import Redis

    from tests.console.conftest import Ran


@pytest.fixture(autouse=True)
def _nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything outside is at an address where nobody listens."""
    for name, value in {
        "GRAPH_URL": "http://127.0.0.1:1/v1.0",
        "AZURE_AUTHORITY": "http://127.0.0.1:1",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_CLIENT_SECRET": "geheim",
        "SHAREPOINT_SITE": "localhost:/sites/Bau",
        "VISION_BACKEND": "openai",
        "VISION_URL": "http://127.0.0.1:1/v1",
        "VISION_MODEL": "some-model",
        "VISION_API_KEY": "geheim",
        "OTLP_ENDPOINT": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)


def _failed(ran: Ran) -> dict[str, str]:
    return {
        check["part"]: check["sentence"] for check in ran.document["checks"] if check["state"] == "failed"
    }


def test_every_part_that_is_away_is_named_with_what_to_do(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("PHOTO_STORE_URL", str(tmp_path / "file" / "store"))
    monkeypatch.setenv("ENABLE_TRACING", "1")
    ran = erni("doctor", "--json")
    assert ran.code == 1
    failed = _failed(ran)
    assert failed.keys() == {"redis", "sharepoint", "vision", "store", "traces"}
    assert "connection refused" in failed["redis"]
    assert "check PHOTO_STORE_URL" in failed["store"]
    assert "check VISION_URL" in failed["vision"]
    assert "start a collector" in failed["traces"]
    assert "geheim" not in ran.out + ran.err


def test_traces_are_tried_where_and_how_the_agents_send_them(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_TRACING", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with socket.create_server(("127.0.0.1", 0)) as other:
        # somebody listens, but it is no collector
        port = other.getsockname()[1]
        monkeypatch.setenv("OTLP_ENDPOINT", f"127.0.0.1:{port}")
        threading.Thread(target=_answer_404, args=(other,), daemon=True).start()
        sentence = _failed(erni("doctor", "--json"))["traces"]
    assert f"http://127.0.0.1:{port}/v1/traces (http/protobuf) takes no traces" in sentence
    assert "404" in sentence or "Not Found" in sentence
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")
    sentence = _failed(erni("doctor", "--json"))["traces"]
    assert sentence == (
        "tracing is off: OTEL_EXPORTER_OTLP_TIMEOUT='10s': expected a number of seconds above 0"
    )


def _answer_404(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def test_a_face_detector_that_is_not_installed_is_named_with_what_to_install(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISION_BACKEND", "local")
    monkeypatch.setenv("VISION_FACES", "1")
    assert "vision" not in _failed(erni("doctor", "--json"))
    monkeypatch.setitem(sys.modules, "shared.vision.local.faces", None)
    assert "pip install 'erni-foto-agency[vision-faces]'" in _failed(erni("doctor", "--json"))["vision"]


def test_a_redis_that_may_lose_photos_is_wrong(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = {"appendonly": "no", "maxmemory-policy": "allkeys-lru"}
    with Valkey(tmp_path / "redis", options=options) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        sentences = [
            check["sentence"]
            for check in erni("doctor", "--json").document["checks"]
            if check["part"] == "redis" and check["state"] == "failed"
        ]
    assert any("maxmemory-policy is allkeys-lru" in sentence for sentence in sentences)
    assert any("keeps no append-only file" in sentence for sentence in sentences)


def test_agents_that_do_not_run_are_named(erni: Callable[..., Ran], client: Redis) -> None:
    beats(client, "photo_fetcher")
    sentence = _failed(erni("doctor", "--json"))["agents"]
    assert "schema_extractor" in sentence
    assert "photo_fetcher" not in sentence
    assert " runs on redis://" in sentence


@pytest.mark.parametrize("named", [True, False])
def test_which_redis_the_agents_are_on_is_said(
    erni: Callable[..., Ran], client: Redis, monkeypatch: pytest.MonkeyPatch, redis_url: str, *, named: bool
) -> None:
    for agent in AGENTS:
        beats(client, agent)
    if not named:  # the default address, at which another system's may listen
        monkeypatch.setattr("console.checks.merged_environment", dict)
    said = {check["part"]: check["sentence"] for check in erni("doctor", "--json").document["checks"][::-1]}
    assert f"5 processes run on {redis_url}" in said["agents"]
    assert ("they may be another system's, as REDIS_URL is not set" in said["agents"]) is not named
    assert f"answers at {redis_url}" in said["redis"]
    assert ("the default: REDIS_URL is not set" in said["redis"]) is not named


def test_the_store_is_written_read_and_deleted(erni: Callable[..., Ran], tmp_path: Path) -> None:
    ran = erni("doctor")
    assert "written, read and deleted" in ran.out
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file() and "doctor" in path.name]


def test_a_disk_with_too_little_room_is_a_finding(
    erni: Callable[..., Ran], tmp_path: Path, nearly_no_room: Callable[[int], None]
) -> None:
    (tmp_path / "store").mkdir()
    nearly_no_room(352_000)
    found = {one["part"]: one for one in erni("doctor", "--json").document["checks"]}
    assert found["disk"]["state"] == "failed"
    assert f"the disk of {tmp_path}/store is full: 0.4 MB of 40.0 MB are free" in found["disk"]["sentence"]
    nearly_no_room(39_000_000)
    found = {one["part"]: one for one in erni("doctor", "--json").document["checks"]}
    assert "is nearly full: 39.0 MB of 40.0 MB are free" in found["disk"]["sentence"]


def test_tracing_that_is_off_is_no_failure(erni: Callable[..., Ran]) -> None:
    ran = erni("doctor", "--json")
    assert {"part": "traces", "state": "skipped", "sentence": "ENABLE_TRACING is off"} in ran.document[
        "checks"
    ]


def test_wrong_settings_are_findings_too(erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANES", "0")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    ran = erni("doctor", "--json")
    assert ran.code == 1
    assert len(ran.document["checks"]) == 2
    assert {check["part"] for check in ran.document["checks"]} == {"settings"}


def test_what_is_wrong_with_an_agent_is_said_as_status_says_it(
    erni: Callable[..., Ran], client: Redis
) -> None:
    for agent in AGENTS:
        beats(client, agent)
    beats(client, "vision_analyzer", unwell="the photo store is full")
    beats(client, "photo_fetcher", ago=5, host="another")
    doctor, status = erni("doctor", "--json").document, erni("status", "--json").document
    failed = [check["sentence"] for check in doctor["checks"] if check["part"] == "agents"]
    # the seconds since the last heartbeat differ
    assert [_without_numbers(one) for one in failed] == [_without_numbers(one) for one in status["problems"]]
    assert len(failed) == 2


def _without_numbers(sentence: str) -> str:
    return re.sub(r"\d", "", sentence)


def test_entries_that_belong_to_nobody_are_a_finding(erni: Callable[..., Ran], client: Redis) -> None:
    client.xgroup_create("erni:photo.fetched", "vision_analyzer", id="0", mkstream=True)
    for _ in range(3):
        client.xadd("erni:photo.fetched", {"data": "{}"})
    client.xreadgroup("vision_analyzer", "gone", {"erni:photo.fetched": ">"}, count=2)
    assert "belong to no process" not in " ".join(erni("doctor").out.split())
    client.xgroup_delconsumer("erni:photo.fetched", "vision_analyzer", "gone")
    # on a terminal its lines are folded
    said = " ".join(erni("doctor").out.split())
    assert "2 entries of vision_analyzer were read and belong to no process" in said
    # looking takes nothing
    assert client.xpending("erni:photo.fetched", "vision_analyzer")["pending"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel of Linux")
async def test_a_kernel_that_filters_no_system_calls_of_the_decoder_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await _decoder(Settings()) == []
    monkeypatch.setattr("shared.photos.system_calls.refusal_possible", lambda: "Function not implemented")
    [check] = await _decoder(Settings())
    assert (check.part, check.state) == ("decoder", "skipped")
    assert check.sentence == (
        "on this machine only limits keep a photo decoder from files and the network"
        " (Function not implemented)"
    )
