"""Finds the programs that some tests need and that pip does not install."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
UNPACKED: Final = ROOT / ".cache" / "prometheus" / "usr" / "bin"
"""Where `.ci/run` unpacks Debian's prometheus package: installed, it would start a service."""

_NAMES: Final = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "gcc": ("gcc", "cc"),
    "promtool": ("promtool",),
    "redis-server": ("redis-server",),
    "strace": ("strace",),
}
TOOLS: Final = tuple(_NAMES)


@functools.cache
def find(tool: str) -> Path | None:
    """The program's path, or None. Raises KeyError for a tool that is not one of TOOLS."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(UNPACKED)))
    found = (shutil.which(name, path=places) for name in _NAMES[tool])
    return next((Path(path) for path in found if path), None)


def require(tool: str) -> Path:
    """The program's path, in a test that is marked `needs(tool)`. Raises FileNotFoundError."""
    path = find(tool)
    if path is None:
        raise FileNotFoundError(f"{tool} is not installed, and the test is not marked needs({tool!r})")
    return path
