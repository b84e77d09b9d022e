"""`python -m benchmarks.handoff` and `benchmarks.profile` run, and print and write what they promise."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import scaling
from benchmarks.handoff import PEERS, SUBJECTS
from benchmarks.handoff import environments as pythons_of
from benchmarks.peers import environments
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(value: Any) -> list[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_a_quick_run_measures_the_bare_loop_and_each_mode_of_ours(tmp_path: Path) -> None:
    output = run("benchmarks.handoff", "--quick", "--output", str(tmp_path / "handoff.json"))
    figures = json.loads((tmp_path / "handoff.json").read_text(encoding="utf-8"))

    for subject in SUBJECTS:
        assert subject.title in output
        row = figures["rows"][subject.name]
        assert all(row[figure] > 0 for figure in ("per_second", "rate_to_bare", "client", "server"))
    assert all(math.isfinite(number) for number in numbers(figures))
    # one span for each hand-off arrived: what is called exported was exported
    assert figures["rows"]["ours_traced"]["spans"] == pytest.approx(1, abs=0.1)
    assert figures["rows"]["ours"]["spans"] == 0


def test_a_quick_run_names_every_goal_and_whether_it_is_reached(tmp_path: Path) -> None:
    output = run("benchmarks.handoff", "--quick", "--output", str(tmp_path / "handoff.json"))
    goals = json.loads((tmp_path / "handoff.json").read_text(encoding="utf-8"))["goals"]

    assert len(goals) == 8
    for goal in goals:
        assert goal["goal"] in output
    # the peers are not part of it
    assert [goal["within"] for goal in goals].count(None) == 3


def test_the_profile_counts_the_functions_that_one_entry_passes(tmp_path: Path) -> None:
    output = run("benchmarks.profile", "--entries", "500", "--output", str(tmp_path / "profile.json"))
    figures = json.loads((tmp_path / "profile.json").read_text(encoding="utf-8"))

    for mode in ("off", "with sessions"):
        assert f"{mode}: what one entry passes between read and release" in output
        # decode and encode at least, and never a function of the benchmark itself
        assert 2 <= figures[mode]["files"] <= figures[mode]["functions"]
        assert "events/codec.py: " in output
    assert "benchmarks/subjects/path.py: " not in output


def test_the_parts_of_client_and_server_are_measured(tmp_path: Path) -> None:
    run("benchmarks.parts", "--entries", "500", "--output", str(tmp_path / "parts.json"))
    figures = json.loads((tmp_path / "parts.json").read_text(encoding="utf-8"))

    for side in ("client", "server"):
        for mode in ("off", "with sessions"):
            assert figures[f"{side}, {mode}"]
    assert figures["server, with sessions"]["photo record and session"] > 0


def test_a_library_that_cannot_be_installed_is_left_out_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # pip finds nothing: no index, and no folder to look into
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    dramatiq = [peer for peer in PEERS if peer.environment == "dramatiq"]

    assert pythons_of(dramatiq) == {}
    said = capsys.readouterr().err
    assert said.startswith("dramatiq is left out, its environment ")
    assert "No matching distribution found for dramatiq" in said
    assert not (tmp_path / "dramatiq" / "installed").exists()


def test_a_quick_run_of_the_gateway_compares_events_and_batches_with_an_empty_answer(tmp_path: Path) -> None:
    run("benchmarks.gateway", "--quick", "--output", str(tmp_path / "gateway.json"))
    figures = json.loads((tmp_path / "gateway.json").read_text(encoding="utf-8"))
    assert figures["events_per_second"].keys() == {"single", "batches", "empty"}
    assert all(figure > 0 for figure in numbers(figures))
    assert figures["cpu_to_an_empty_answer"]["batches"] < figures["cpu_to_an_empty_answer"]["single"]


def test_a_quick_run_delivers_notices_and_measures_a_dead_endpoint(tmp_path: Path) -> None:
    output = run("benchmarks.webhooks", "--quick", "--output", str(tmp_path / "webhooks.json"))
    figures = json.loads((tmp_path / "webhooks.json").read_text(encoding="utf-8"))
    assert figures["delivered"]["p99_seconds"] > 0
    assert figures["dead_endpoint"]["milliseconds_per_end_with"] > 0
    assert all(math.isfinite(number) for number in numbers(figures))
    assert "end of a photo → delivered: p99" in output
    assert "a dead endpoint costs" in output


def test_the_scaling_benchmark_says_of_each_goal_whether_it_is_reached() -> None:
    found: dict[str, Any] = {
        "backlog": 1_000_000,
        "looks": 200,
        "looks_right": 199,
        "factors": {"bare": {"1": 1.0, "2": 1.5, "4": 1.4}, "agent": {"1": 1.0, "2": 1.6, "4": 1.3}},
        "cost": {"ratio": 1.05, "status_seconds": 0.8, "bytes_to_fields": 1.5},
        "idle": {"1": 10.0, "8": 20.0},
    }
    assert [goal.within for goal in scaling.goals(found)] == [False, True, False, True, True, False, True]
    assert all(goal.line()[0] in "\N{CHECK MARK}\N{MULTIPLICATION X}" for goal in scaling.goals(found))
