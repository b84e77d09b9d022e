"""The component for LANES=N names the same lanes to KEDA and to the pods."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from events import topology
from events.keys import all_lanes
from events.redis_address import read
from tests.project import manifests
from tests.scaling.lanes import patched, program, scaled_object
from tests.tools import ROOT

PROGRAM = manifests.KUBERNETES / "scaling.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, *words], capture_output=True, text=True, check=False, cwd=ROOT, timeout=30
    )


@pytest.mark.parametrize("lanes", [2, 12])
def test_each_agent_is_scaled_by_its_streams_in_all_lanes(lanes: int) -> None:
    for stage in topology.PIPELINE:
        spec = scaled_object(stage.agent.replace("_", "-"), lanes)["spec"]
        named = {trigger["name"]: trigger["metadata"]["stream"] for trigger in spec["triggers"]}
        assert spec["advanced"]["scalingModifiers"]["formula"].split(" + ") == list(named)
        assert sorted(named.values()) == sorted(
            lane.stream(stream) for stream in stage.streams for lane in all_lanes(lanes)
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


SENTINELS = "redis+sentinel://s-0:26379,s-1:26379/erni/2"


def test_with_sentinels_pods_and_keda_look_for_the_primary() -> None:
    component = program().component(1, SENTINELS)
    for name in [*manifests.of_kind("ScaledObject"), "gateway"]:
        deployment = patched("Deployment", name, component)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (url,) = [one["value"] for one in container["env"] if one["name"] == "REDIS_URL"]
        role = "operator" if name == "gateway" else "worker"
        assert url == SENTINELS.replace("://", f"://{role}@")
        assert read(url).master == "erni"
    for name in manifests.of_kind("ScaledObject"):
        for trigger in patched("ScaledObject", name, component)["spec"]["triggers"]:
            assert trigger["type"] == "redis-sentinel-streams"
            metadata = trigger["metadata"]
            assert (metadata["addresses"], metadata["sentinelMaster"]) == ("s-0:26379,s-1:26379", "erni")
            assert (metadata["databaseIndex"], "address" in metadata) == ("2", False)


def test_with_a_cluster_pods_and_keda_know_some_of_its_nodes() -> None:
    cluster = "rediss+cluster://n-0:7000,n-1:7001"
    component = program().component(2, cluster)
    (container,) = patched("Deployment", "photo-fetcher", component)["spec"]["template"]["spec"]["containers"]
    assert {"name": "REDIS_URL", "value": cluster.replace("://", "://worker@")} in container["env"]
    for trigger in patched("ScaledObject", "photo-fetcher", component)["spec"]["triggers"]:
        assert trigger["type"] == "redis-cluster-streams"
        metadata = trigger["metadata"]
        assert (metadata["addresses"], metadata["enableTLS"]) == ("n-0:7000,n-1:7001", "true")
        assert not {"address", "sentinelMaster", "databaseIndex"} & metadata.keys()
    answer = run("--lanes=1", f"--redis={cluster}")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "a cluster needs two lanes or more" in answer.stderr


def test_another_server_with_tls_is_named_too() -> None:
    component = program().component(2, "rediss://redis.example:6380/0")
    for trigger in patched("ScaledObject", "photo-fetcher", component)["spec"]["triggers"]:
        assert trigger["metadata"]["address"] == "redis.example:6380"
        assert trigger["metadata"]["enableTLS"] == "true"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("redis+sentinel://worker@s-0/erni/0", "without user, password and parameters"),
        ("redis://redis/0?max_connections=2", "without user, password and parameters"),
        ("redis+sentinel://s-0:26379", "expected the name under which the sentinels know the primary"),
        ("unix:///run/redis.sock", "a pod reaches no socket of another"),
        ("redis.example:6379", "expected an address that starts with"),
    ],
)
def test_an_address_that_pods_cannot_use_is_refused_with_a_sentence(address: str, says: str) -> None:
    answer = run("--lanes=1", f"--redis={address}")
    assert answer.returncode == 2
    assert says in answer.stderr
    assert not answer.stdout


def test_the_page_says_how_to_use_it() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert "python deploy/kubernetes/scaling.py --lanes 8 >your-folder/lanes/kustomization.yaml" in page
    assert "components: [lanes]" in page
