"""Each part of the product is installed with what it imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from typing import TYPE_CHECKING, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN: Final = ("events", "shared", "sandbox", "consumers", "console")
BY_PACKAGE: Final = metadata.packages_distributions()
PARTS: Final = {
    "events": (),
    "consumers": ("agents", "azure", "vision-local"),
    "shared": ("agents", "azure", "vision-local", "vision-faces"),
    "sandbox": ("local",),
    "console": ("local",),
    "console/mcp": ("mcp",),
}
"""Folder → the extras with which it has to work; a folder inside another is looked at alone."""


def declared(extras: tuple[str, ...]) -> set[str]:
    """The distributions named by the base install and these extras, those that an extra contains included."""
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    found: set[str] = set()
    for text in texts:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        found |= declared(tuple(requirement.extras)) if name == PROJECT["name"] else {name}
    return found


def imported(part: str) -> Iterator[tuple[Path, str]]:
    """Every module that a part imports from outside, and where."""
    inside = [ROOT / other for other in PARTS if other.startswith(f"{part}/")]
    for path in sorted((ROOT / part).rglob("*.py")):
        if any(folder in path.parents for folder in inside):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _modules(node):
                if name.split(".")[0] not in (*sys.stdlib_module_names, *OWN):
                    yield path, name


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    # a relative import (level) stays in its package
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        # `from opentelemetry import trace`: a namespace of many distributions, told apart by the second word
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def distributions_of(module: str) -> set[str]:
    """The installed distributions that bring a module's top-level package, in canonical form."""
    return {canonicalize_name(name) for name in BY_PACKAGE.get(module.split(".", maxsplit=1)[0], ())}


@pytest.mark.parametrize("part", PARTS)
def test_what_a_part_imports_is_declared_for_it(part: str) -> None:
    allowed = declared(PARTS[part])
    undeclared = sorted(
        f"{path.relative_to(ROOT)} imports {module}"
        for path, module in imported(part)
        if not distributions_of(module) & allowed
    )
    assert not undeclared


def test_the_contract_reads_no_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "events").rglob("*.py")
        if re.search(r"\bos\.(environ|getenv)", path.read_text())
    ]
    assert not readers
