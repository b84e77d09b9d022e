"""Finds what some tests need and pip does not install: programs, and an earlier commit."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
UNPACKED: Final = ROOT / ".cache" / "prometheus" / "usr" / "bin"
"""Where `.ci/run` unpacks Debian's prometheus package: installed, it would start a service."""

_NAMES: Final = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "curl": ("curl",),
    "gcc": ("gcc", "cc"),
    "node": ("node",),
    "promtool": ("promtool",),
    "redis-server": ("redis-server",),
    "strace": ("strace",),
}
NODE_REDIS: Final = "node-redis"
"""Node with the npm package `redis`, which `.ci/run` installs below `.cache/node`."""
NODE_CLOUDEVENTS: Final = "node-cloudevents"
"""Node with the npm package `cloudevents`, the official SDK, likewise."""
NODE_IOREDIS: Final = "node-ioredis"
"""Node with the npm package `ioredis`, likewise."""
NODE_STANDARDWEBHOOKS: Final = "node-standardwebhooks"
"""Node with the npm package `standardwebhooks`, the official verifier, likewise."""
_NODE_PACKAGES: Final = {
    NODE_REDIS: "redis",
    NODE_CLOUDEVENTS: "cloudevents",
    NODE_IOREDIS: "ioredis",
    NODE_STANDARDWEBHOOKS: "standardwebhooks",
}
PYTHON_CLOUDEVENTS: Final = "python-cloudevents"
"""A Python with the official SDK of CloudEvents, in an environment that `.ci/run` makes."""
PYTHON_STANDARDWEBHOOKS: Final = "python-standardwebhooks"
"""A Python with the official verifier of Standard Webhooks, likewise."""
SCHEMATHESIS: Final = "schemathesis"
"""A program that sends what an OpenAPI document allows, likewise."""
NODE_MODULES: Final = ROOT / ".cache" / "node" / "node_modules"
REDIS_8: Final = "redis-8"
"""A newer Redis than the distribution's, which `.ci/run` unpacks from a wheel."""
KUBERNETES: Final = "kubernetes-validate"
"""The schemas of Kubernetes, which `.ci/run` installs below `.cache/kubernetes`; the path is a Python's."""
_OF_CACHE: Final = {
    PYTHON_CLOUDEVENTS: ROOT / ".cache" / "cloudevents" / "bin" / "python",
    PYTHON_STANDARDWEBHOOKS: ROOT / ".cache" / "standardwebhooks" / "bin" / "python",
    SCHEMATHESIS: ROOT / ".cache" / "schemathesis" / "bin" / "schemathesis",
    REDIS_8: ROOT / ".cache" / "redis-8" / "redis-server",
    KUBERNETES: ROOT / ".cache" / "kubernetes" / "bin" / "python",
}
HISTORY: Final = "history"
"""A tool that is no program: git with the commit `EARLIER`. A shallow clone and an archive lack it."""
EARLIER: Final = "0004ea5d069bef019735f1eeb939865de4bf2f4f"
"""The last commit with the delivery engine in `shared/streams`. What is deployed may still run this code, and
works beside ours on one Redis while it is replaced."""
TOOLS: Final = (*_NAMES, HISTORY, *_NODE_PACKAGES, *_OF_CACHE)


@functools.cache
def find(tool: str) -> Path | None:
    """The program's path, or None. Raises KeyError for a tool that is not one of TOOLS."""
    if tool == HISTORY:
        return _git_with_history()
    if tool in _NODE_PACKAGES:
        node = shutil.which("node")
        return Path(node) if node and (NODE_MODULES / _NODE_PACKAGES[tool]).is_dir() else None
    if tool in _OF_CACHE:
        return _OF_CACHE[tool] if os.access(_OF_CACHE[tool], os.X_OK) else None
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(UNPACKED)))
    found = (shutil.which(name, path=places) for name in _NAMES[tool])
    return next((Path(path) for path in found if path), None)


def require(tool: str) -> Path:
    """The program's path, in a test that is marked `needs(tool)`. Raises FileNotFoundError."""
    path = find(tool)
    if path is None:
        raise FileNotFoundError(f"{tool} is not installed, and the test is not marked needs({tool!r})")
    return path


def _git_with_history() -> Path | None:
    git = shutil.which("git")
    if git is None:
        return None
    look = [git, "-C", str(ROOT), "cat-file", "-e", f"{EARLIER}^{{tree}}"]
    return None if subprocess.run(look, capture_output=True, check=False).returncode else Path(git)
