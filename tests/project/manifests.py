"""The manifests, read for the tests that hold them against the topology and each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Manifest: TypeAlias = dict[str, Any]
KUBERNETES = ROOT / "deploy" / "kubernetes"


def read(path: Path) -> list[Manifest]:
    """Every document of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def compose() -> Manifest:
    """docker-compose.yml, with its anchors followed."""
    (document,) = read(ROOT / "docker-compose.yml")
    return document


def procfile() -> dict[str, str]:
    """Process name → command line."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: command.strip() for name, command in (line.split(":", 1) for line in lines if line.strip())}


def kubernetes() -> list[Manifest]:
    """Every manifest that `kubectl apply -k` would apply."""
    (listed,) = read(KUBERNETES / "kustomization.yaml")
    return [document for name in listed["resources"] for document in read(KUBERNETES / name)]


def of_kind(kind: str) -> dict[str, Manifest]:
    """The manifests of one kind by name."""
    return {each["metadata"]["name"]: each for each in kubernetes() if each["kind"] == kind}


def containers() -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, pod spec and container of every workload."""
    for kind in ("Deployment", "StatefulSet"):
        for name, manifest in of_kind(kind).items():
            pod = manifest["spec"]["template"]["spec"]
            for container in pod["containers"]:
                yield name, pod, container
