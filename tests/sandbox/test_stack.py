"""What runs on this machine, and with which settings: what is given already wins."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Literal

import pytest

from events import topology
from sandbox import redis_server as valkey
from sandbox import stack
from shared.settings import Settings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for one core, so that each agent has one process by default."""
    monkeypatch.setattr(stack, "cores", lambda: 1)


def _names(plan: stack.Stack) -> list[str]:
    return [process.name for process in plan.processes]


def test_with_no_setting_everything_is_ours(tmp_path: Path) -> None:
    plan = stack.plan_up({}, tmp_path)
    assert _names(plan) == ["redis", "sharepoint", "traces", "gateway", *topology.CONSUMERS]
    assert plan.settings.redis_url.startswith("redis://127.0.0.1:")
    assert plan.settings.graph_url.startswith("http://127.0.0.1:")
    assert plan.settings.photo_store_url == str(tmp_path / "store")
    assert plan.settings.sharepoint_site == "localhost:/sites/Bau"
    assert {process.environment["REDIS_URL"] for process in plan.processes} == {plan.settings.redis_url}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"REDIS_URL": "redis://elsewhere:6379/0"}, "redis"),
        ({"SESSION_REDIS_URL": "redis://elsewhere:6379/0"}, "redis"),
        ({"GRAPH_URL": "https://graph.microsoft.com/v1.0"}, "sharepoint"),
        ({"AZURE_CLIENT_ID": "somebody"}, "sharepoint"),
        ({"OTLP_ENDPOINT": "http://elsewhere:4317"}, "traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere:4317"}, "traces"),
        ({"ENABLE_TRACING": "0"}, "traces"),
    ],
)
def test_what_is_configured_is_not_started(tmp_path: Path, given: dict[str, str], missing: str) -> None:
    plan = stack.plan_up(given, tmp_path)
    assert missing not in _names(plan)
    assert not plan.given.keys() & given.keys()
    assert all(given.items() <= process.environment.items() for process in plan.processes)


def test_a_store_that_is_configured_is_used(tmp_path: Path) -> None:
    plan = stack.plan_up({"PHOTO_STORE_URL": "s3://photos"}, tmp_path)
    assert plan.settings.photo_store_url == "s3://photos"
    assert "PHOTO_STORE_URL" not in plan.given


def test_an_agent_may_have_several_processes(tmp_path: Path) -> None:
    names = _names(stack.plan_up({}, tmp_path, processes={"vision_analyzer": 3}))
    assert [name for name in names if name.startswith("vision")] == [
        "vision_analyzer.1",
        "vision_analyzer.2",
        "vision_analyzer.3",
    ]


def test_a_usual_port_that_is_taken_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind((valkey.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(stack, "_PREFERRED", {"redis": taken})
        plan = stack.plan_up({}, tmp_path)
    assert plan.settings.redis_url != f"redis://127.0.0.1:{taken}/0"
    free = valkey.free_port()
    monkeypatch.setattr(stack, "_PREFERRED", {"redis": free})
    another = tmp_path / "another"
    assert stack.plan_up({}, another).settings.redis_url == f"redis://127.0.0.1:{free}/0"


def test_a_demo_touches_nothing_outside_this_machine(tmp_path: Path) -> None:
    outside = {
        "REDIS_URL": "redis://production:6379/0",
        "REDIS_PASSWORD": "geheim",
        "GRAPH_URL": "https://graph.microsoft.com/v1.0",
        "AZURE_CLIENT_SECRET": "geheim",
        "SHAREPOINT_SITE": "contoso.sharepoint.com:/sites/Bau",
        "SHAREPOINT_LIBRARY": "Archiv",
        "PHOTO_STORE_URL": "s3://photos",
        "VISION_BACKEND": "openai",
        "VISION_API_KEY": "geheim",
        "LANES": "4",
        "PATH": "/bin",
    }
    plan = stack.plan_demo(outside, tmp_path)
    assert _names(plan) == ["redis", "sharepoint", "traces", *topology.AGENTS]
    for process in plan.processes:
        assert process.folder == tmp_path
        assert process.environment["PATH"] == "/bin"
        assert "geheim" not in process.environment.values()
        assert not {"production", "contoso", "s3:"} & set(" ".join(process.environment.values()).split("/"))
    assert plan.settings.vision_backend == "local"
    assert plan.settings.lanes == 1
    assert plan.settings.sharepoint_library == "Referenzfotos"


def test_a_demo_sends_its_traces_where_they_are_wanted(tmp_path: Path) -> None:
    plan = stack.plan_demo({"OTLP_ENDPOINT": "http://jaeger:4317", "JAEGER_URL": "http://jaeger:1"}, tmp_path)
    assert "traces" not in _names(plan)
    assert plan.settings.otlp_endpoint == "http://jaeger:4317"
    assert plan.settings.jaeger_url == "http://jaeger:1"


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CONCURRENCY='many'"):
        stack.plan_up({"CONCURRENCY": "many"}, tmp_path)


@pytest.mark.parametrize(
    ("cores", "backend", "vision", "fetchers"),
    [(1, "local", 1, 1), (2, "local", 2, 1), (4, "local", 4, 1), (32, "local", 8, 2), (4, "openai", 2, 1)],
)
def test_there_are_as_many_processes_as_keep_the_cores_busy(
    cores: int, backend: Literal["local", "openai"], vision: int, fetchers: int
) -> None:
    numbers = stack.sized(Settings(vision_backend=backend), cores)
    assert numbers.keys() == set(topology.CONSUMERS)
    assert (numbers["vision_analyzer"], numbers["photo_fetcher"]) == (vision, fetchers)
    assert numbers["schema_extractor"] == 1


def test_a_number_that_is_given_wins_over_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "cores", lambda: 4)
    names = _names(stack.plan_up({}, tmp_path, processes={"vision_analyzer": 1}))
    assert [name for name in names if name.startswith("vision")] == ["vision_analyzer"]
    names = _names(stack.plan_demo({}, tmp_path))
    assert len([name for name in names if name.startswith("vision")]) == 4


def test_the_ports_of_the_last_start_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_PREFERRED", {})
    first = stack.plan_up({}, tmp_path).given
    again = stack.plan_up({}, tmp_path).given
    for name in ("REDIS_URL", "GRAPH_URL", "JAEGER_URL", "OTLP_ENDPOINT"):
        assert again[name] == first[name]


def test_the_port_of_redis_can_be_chosen_and_a_taken_one_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(valkey.ValkeyError, match=f"port {port} is taken"):
            stack.plan_up({}, tmp_path, redis_port=port)
    assert stack.plan_up({}, tmp_path, redis_port=port).given["REDIS_URL"].endswith(f":{port}/0")
