# noqa: INP001 - a command, run by its path
"""Makes an environment of its own for each tool that some tests run beside ours: ``environments.py``.

Each is `.cache/NAME`. They are no dependencies of the project, whose lock they would only make longer.
"""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

_CACHE = Path(__file__).resolve().parent.parent / ".cache"
_ENVIRONMENTS = {
    "cloudevents": "cloudevents==2.2.0",
    "kubernetes": "kubernetes-validate==1.37.0",
    "schemathesis": "schemathesis==4.32.5",
    "standardwebhooks": "standardwebhooks==1.1.0",
}


def make(name: str, wanted: str) -> None:
    """Make one, unless it is there. Raises CalledProcessError if pip cannot install it."""
    mark = _CACHE / name / "installed"
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return
    venv.create(_CACHE / name, with_pip=True, clear=True)
    pip = [str(_CACHE / name / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", wanted], check=True)  # noqa: S603 - our own words
    mark.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    for _name, _wanted in _ENVIRONMENTS.items():
        make(_name, _wanted)
