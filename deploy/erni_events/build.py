# noqa: INP001 - a command, run by its path
"""Builds erni-events, the contract alone, from events/: ``python deploy/erni_events/build.py DIST``.

An upstream's environment gets exactly one package, named after the product: `events` would collide with
anybody's. The files are copied as they are, because they import each other relatively.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent
_ROOT: Final = _HERE.parents[1]
_PYPROJECT: Final = """\
[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "erni-events"
version = {version}
description = "The contract of Erni Foto Agency: its photo events and the publisher for upstream systems."
readme = "README.md"
requires-python = {python}
license = {license}
license-files = ["LICENSE"]
dependencies = {dependencies}

[tool.setuptools]
packages = ["erni_events"]

[tool.setuptools.package-data]
erni_events = ["lua/*.lua", "py.typed"]
"""
_BUILD: Final = """\
import sys
from setuptools import build_meta
target = sys.argv[1]  # setuptools changes sys.argv
build_meta.build_sdist(target)
build_meta.build_wheel(target)
"""


def stage(folder: Path) -> None:
    """Write the project of the distribution into an empty folder."""
    shutil.copytree(_ROOT / "events", folder / "erni_events", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_ROOT / "LICENSE", folder)
    shutil.copy(_HERE / "README.md", folder)
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    values = {
        "version": project["version"],
        "python": project["requires-python"],
        "license": project["license"],
        # the base install is the contract's own
        "dependencies": project["dependencies"],
    }
    # a JSON string or list of strings is one of TOML as well
    text = _PYPROJECT.format(**{name: json.dumps(value) for name, value in values.items()})
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")


def build(target: Path) -> None:
    """Build the sdist and the wheel into a folder. Raises CalledProcessError with setuptools' own words."""
    target = target.resolve()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        subprocess.run(  # noqa: S603 - our own Python and text
            [sys.executable, "-c", _BUILD, str(target)],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=300,
        )


def main() -> None:
    """Build into the folder that the command line names, and print what is there."""
    parser = argparse.ArgumentParser(description="Build the sdist and the wheel of erni-events.")
    parser.add_argument(
        "target", type=Path, metavar="DIST", help="the folder for both, made if it is not there"
    )
    target: Path = parser.parse_args().target
    build(target)
    for path in sorted(target.glob("erni_events-*")):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
