"""The scalers as `kubectl kustomize` would make them for an installation with lanes."""

from __future__ import annotations

import copy
import importlib.util
from typing import TYPE_CHECKING, Any

import yaml

from tests.project import manifests

if TYPE_CHECKING:
    from types import ModuleType

    from tests.project.manifests import Manifest


def program() -> ModuleType:
    """deploy/kubernetes/scaling.py, which is run by its path."""
    spec = importlib.util.spec_from_file_location("scaling", manifests.KUBERNETES / "scaling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def patched(kind: str, name: str, component: str) -> Manifest:
    """A manifest of the base with the component's patches."""
    manifest: Manifest = copy.deepcopy(manifests.of_kind(kind)[name])
    for each in yaml.safe_load(component)["patches"]:
        if each["target"] == {"kind": kind, "name": name}:
            for operation in yaml.safe_load(each["patch"]):
                _apply(manifest, operation)
    return manifest


def scaled_object(name: str, lanes: int) -> Manifest:
    """The scaler of a deployment: the base's without lanes."""
    base: Manifest = manifests.of_kind("ScaledObject")[name]
    return base if lanes == 1 else patched("ScaledObject", name, program().component(lanes))


def _apply(manifest: Manifest, operation: Manifest) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    *way, last = operation["path"].strip("/").split("/")
    target: Any = manifest
    for part in way:
        target = target[int(part) if isinstance(target, list) else part]
    if operation["op"] == "test":
        assert target[last] == operation["value"]
        return
    assert operation["op"] == "add" or last in target
    target[last] = operation["value"]
