"""The component for LANES=N names the same lanes to KEDA and to the pods."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from events import topology
from events.keys import all_lanes
from tests.project import manifests
from tests.scaling.lanes import patched, program, scaled_object
from tests.tools import ROOT

PROGRAM = manifests.KUBERNETES / "scaling.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, *words], capture_output=True, text=True, check=False, cwd=ROOT, timeout=30
    )


@pytest.mark.parametrize("lanes", [2, 8, 99])
def test_each_agent_is_scaled_by_its_streams_in_all_lanes(lanes: int) -> None:
    for stage in topology.PIPELINE:
        spec = scaled_object(stage.agent.replace("_", "-"), lanes)["spec"]
        named = {trigger["name"]: trigger["metadata"]["stream"] for trigger in spec["triggers"]}
        assert spec["advanced"]["scalingModifiers"]["formula"].split(" + ") == list(named)
        assert sorted(named.values()) == sorted(
            lane.stream(stream) for stream in stage.reads for lane in all_lanes(lanes)
        )
        assert all(re.fullmatch("[a-z_0-9]+", name) for name in named)


def test_without_lanes_it_says_what_the_manifests_say() -> None:
    component = program().component(1)
    for name, manifest in manifests.of_kind("ScaledObject").items():
        assert patched("ScaledObject", name, component) == manifest


def test_the_pods_get_the_same_number() -> None:
    assert patched("ConfigMap", "settings", program().component(8))["data"]["LANES"] == "8"


@pytest.mark.parametrize("lanes", ["0", "100", "-1", "1.5", "eight", "", "٣"])
def test_a_wrong_number_of_lanes_is_refused_with_a_sentence(lanes: str) -> None:
    answer = run(f"--lanes={lanes}")
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].endswith("expected a whole number from 1 to 99, as in LANES")
    assert not answer.stdout


def test_the_page_says_how_to_use_it() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert "python deploy/kubernetes/scaling.py --lanes 8 >your-folder/lanes/kustomization.yaml" in page
    assert "components: [lanes]" in page
