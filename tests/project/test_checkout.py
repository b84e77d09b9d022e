"""What the files of the checkout have in common."""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
from pathlib import Path
from typing import Final

from tests.tools import ROOT

PACKAGES: Final = ("events", "shared", "sandbox", "consumers", "console")
# Written apart, so that this file does not name them itself.
REGISTRIES: Final = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "deb." + "debian.org",
    "docker" + ".io",
    "gh" + "cr.io",
    "quay" + ".io",
)
# the folders in which people work, as they would stand in a path that only exists on one machine
MACHINES: Final = re.compile(r"(?<![\w.])/(?:" + "|".join(("wo" + "rk", "Us" + "ers")) + r")/\w")


def files() -> list[Path]:
    """The files that belong to the project: all but what .gitignore names (files and folders alone)."""
    ignored = {".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines())}
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not _matches(name, ignored)]
        found += [Path(folder, name) for name in names if not _matches(name, ignored)]
    return found


def _matches(name: str, patterns: set[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def lines() -> list[tuple[str, str]]:
    """Every line of every text file, with where it stands."""
    found = []
    for path in files():
        data = path.read_bytes()
        if b"\0" not in data:
            name = path.relative_to(ROOT)
            found += [
                (f"{name}:{number}", line) for number, line in enumerate(data.decode().splitlines(), start=1)
            ]
    return found


def test_nothing_names_a_package_registry_or_a_folder_of_one_machine() -> None:
    named = [
        f"{place}: {line.strip()[:120]}"
        for place, line in lines()
        if MACHINES.search(line) or any(host in line for host in REGISTRIES)
    ]
    assert not named


def test_what_is_not_python_in_the_packages_is_installed_with_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    left_out = [
        str(path.relative_to(ROOT))
        for path in files()
        if path.relative_to(ROOT).parts[0] in PACKAGES
        and path.suffix != ".py"
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
    ]
    assert not left_out


def test_every_folder_with_python_in_the_packages_is_a_package() -> None:
    folders = {path.parent for path in files() if path.suffix == ".py"}
    inside = {
        folder
        for folder in folders
        if folder.relative_to(ROOT).parts[:1] in {(p,) for p in (*PACKAGES, "tests")}
    }
    assert not [str(folder.relative_to(ROOT)) for folder in inside if not (folder / "__init__.py").is_file()]
