"""The figures of docs/performance.md are those of benchmarks/results."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from benchmarks.handoff import PEERS, SUBJECTS
from benchmarks.previews import TARGET
from benchmarks.subjects.figures import Row, table
from tests.tools import ROOT

PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def result(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def squeezed(text: str) -> str:
    """The text with one blank wherever there are several: a terminal's table is padded, the page's is not."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", [subject.name for subject in (*SUBJECTS, *PEERS)])
def test_hand_offs(name: str) -> None:
    if name not in result("handoff")["rows"]:
        # a library that stands still is left out of the run, and the page says so
        assert f"{name} was left out" in PAGE
        return
    row = msgspec.convert(result("handoff")["rows"][name], Row)
    assert squeezed(table({name: row})[-1]) in squeezed(PAGE)


def test_the_goals_of_a_hand_off_are_on_the_page_with_what_was_reached() -> None:
    for goal in result("handoff")["goals"]:
        assert f"| {goal['goal']} | {goal['figure']:.2f} |" in PAGE


def test_the_parts_of_a_hand_off() -> None:
    parts = result("parts")
    for first, second in (("client, off", "client, with sessions"), ("server, off", "server, with sessions")):
        for part, usec in parts[first].items():
            assert f"| {part} | {usec:.1f} | {parts[second][part]:.1f} |" in PAGE
    for part, usec in parts["a span of the SDK"].items():
        assert f"| {part} | {usec:.1f} |" in PAGE


def test_the_pipeline() -> None:
    assert f"{result('pipeline')['ratio']:.2f} of what the cores allow" in PAGE


def test_one_process_hands_off_a_quarter_of_what_the_bare_loop_does() -> None:
    assert result("handoff")["ratio_to_bare"]["ours"] >= 0.25


def test_watching() -> None:
    figures = result("telemetry")["microseconds"]
    for name in ("full_before_export", "full_exported", "full_sampled_1_percent", "spans_off"):
        assert f"{figures[name]:.1f}" in PAGE
    assert f"{figures['ratio_full_exported_to_bare_exported']:.2f} \N{MULTIPLICATION SIGN}" in PAGE
    assert result("telemetry")["within"]


def test_a_collector_in_trouble() -> None:
    ratios = result("collector")["ratio_to_works"]
    assert f"{ratios['away']:.2f}, {ratios['never_answers']:.2f} and {ratios['refuses']:.2f}" in PAGE
    megabytes = result("collector")["megabytes_after_each_round"]
    assert f"between {min(megabytes)} and {max(megabytes)} MB" in PAGE


def test_previews() -> None:
    figures = result("previews")
    assert figures["files"].keys() >= {"JPEG", "PNG", "WebP", "HEIC"}
    for name, row in figures["files"].items():
        if row["ratio"] is None:
            assert f"| {name} | {row['ours_ms']} | not here | not measured |" in PAGE
        else:
            verdict = ", too much" if row["ratio"] > TARGET else ""
            assert (
                f"| {name} | {row['ours_ms']} | {row['libvips_ms']} | {row['ratio']:.2f}{verdict} |" in PAGE
            )


def test_sessions() -> None:
    figures = result("sessions")
    growth = ", ".join(f"{row['touch_to_bare']:.1f}" for row in figures["growth"])
    assert f"({growth})" in PAGE
    assert f"take {figures['memory']['megabytes']:.1f} MB" in PAGE
    bound = figures["bound"]
    assert f"{bound['created']:,} were created by {bound['writers']} writers" in PAGE
    assert bound["finished_sessions_at_most"] - bound["limit"] <= bound["writers"]
