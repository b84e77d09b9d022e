"""requirements.lock is what pyproject.toml asks for, whole, with hashes, and from nowhere in particular."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from typing import TYPE_CHECKING, Final

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCK: Final = (ROOT / "requirements.lock").read_text()
PINS: Final = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", LOCK, re.MULTILINE)
}
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final = tuple(PROJECT["optional-dependencies"])
PYTHONS: Final = ("3.11.0", "3.11.2", "3.11.3", "3.12.0", "3.13.0", "3.14.0")
"""Debian 12 has 3.11.2."""
OWN: Final = canonicalize_name(PROJECT["name"])


def asked_for() -> list[str]:
    """Every requirement of the project and its extras, but for those on itself."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [text for texts in lists for text in texts if canonicalize_name(Requirement(text).name) != OWN]


def needed_by(name: str, environment: Mapping[str, str] | None = None) -> Iterator[Requirement]:
    """What an installed package needs in turn, with the extras it was asked for with.

    `environment`: variables of markers that differ from this environment's.
    """
    extras = {extra for text in asked_for() for extra in _extras_if(Requirement(text), name)}
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate({**(environment or {}), "extra": extra}) for extra in extras | {""}
        ):
            yield requirement


def _met(requirement: Requirement) -> bool:
    pin = PINS.get(canonicalize_name(requirement.name))
    return pin is not None and pin in requirement.specifier


def _extras_if(requirement: Requirement, name: str) -> set[str]:
    return requirement.extras if canonicalize_name(requirement.name) == name else set()


@pytest.mark.parametrize("text", asked_for())
def test_each_requirement_is_locked_to_a_version_that_meets_it(text: str) -> None:
    requirement = Requirement(text)
    pin = PINS.get(canonicalize_name(requirement.name))
    assert _met(requirement), f"requirements.lock has {pin} for {requirement}: make lock"


def test_what_the_locked_packages_need_in_turn_is_locked_too() -> None:
    missing = [
        f"{name} needs {requirement}"
        for name in PINS
        for requirement in needed_by(name)
        if not _met(requirement)
    ]
    assert not missing


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_serves_every_python_that_the_project_takes(python: str) -> None:
    environment = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    missing = [
        f"{name} needs {requirement}"
        for name in PINS
        for requirement in needed_by(name, environment)
        if not _met(requirement)
    ]
    assert not missing
    refused = [
        name
        for name in PINS
        if python not in SpecifierSet(str(metadata.metadata(name).json.get("requires_python", "")))
    ]
    assert not refused


def test_the_tests_run_with_the_locked_versions() -> None:
    installed = {name: Version(metadata.version(name)) for name in PINS}
    assert installed == PINS


def test_every_pin_has_hashes() -> None:
    blocks = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PINS)
    assert not [block.split()[0] for block in blocks if "--hash=sha256:" not in block]


def test_the_lock_names_no_place_to_download_from() -> None:
    assert not re.findall(r"^.*(?:://|file:|--(?:index|extra|find|trusted)).*$", LOCK, re.MULTILINE)


def test_extras_that_contain_each_other_exist() -> None:
    for name, texts in PROJECT["optional-dependencies"].items():
        for text in texts:
            requirement = Requirement(text)
            if canonicalize_name(requirement.name) == OWN:
                assert requirement.extras <= set(EXTRAS), name
