"""What the pages for developers say of the delivery engine is so."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, get_args

import pytest

from shared.delivery.outcome import Outcome, What
from shared.telemetry.metrics import OUTCOMES
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

README = ROOT / "shared" / "delivery" / "README.md"
PAGES = [README, ROOT / "docs" / "architecture.md"]
TOUR = ["publish", "hand_off", "retry", "dead_letter", "take_over", "replay"]
_NAMED = re.compile(r"\]\((?P<path>[^)#\s]+\.(?:py|lua))\)(?P<names>(?:(?: |, | and )`[\w.]+`)*)")


def names_of(path: Path) -> set[str]:
    """The functions, classes, methods and values of a Python file; the words of a script."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".lua":
        code = "\n".join(line.partition("--")[0] for line in text.splitlines())
        return set(re.findall(r"\w+", code))
    found = set()
    for node in ast.parse(text).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name):
                found.add(name)
                methods = (ast.FunctionDef, ast.AsyncFunctionDef)
                found |= {f"{name}.{part.name}" for part in node.body if isinstance(part, methods)}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case _:
                pass
    return found


def test_the_picture_has_exactly_the_outcomes_of_the_code() -> None:
    picture = README.read_text(encoding="utf-8").split("```")[1]
    ends = re.findall(r"[├└]─ (\w+)(?: \((\w+)\))? ─+▶", picture)
    settled = {name: Outcome(what=name).label for name in get_args(What)}
    assert {name: label or name for name, label in ends} == settled | {"fenced": "fenced", "gone": "gone"}
    assert sorted(label or name for name, label in ends) == sorted(OUTCOMES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_and_function_it_names_exists(page: Path) -> None:
    named = list(_NAMED.finditer(page.read_text(encoding="utf-8")))
    missing = []
    for found in named:
        path = (page.parent / found["path"].replace("\\", "")).resolve()
        names = re.findall(r"`([\w.]+)`", found["names"])
        known = names_of(path) if path.is_file() else set()
        missing += [found["path"]] * (not path.is_file())
        missing += [f"{found['path']}: {name}" for name in names if name not in known]
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("events", "shared", "consumers", "console", "sandbox")
        for path in (ROOT / folder).rglob("*.py")
    )
    private = {name for row in rows for name in re.findall(r"`(_\w+)`", row)}
    missing += [name for name in private if not re.search(rf"\b{name}\b", code)]
    assert missing == []
    assert sum("`" in found["names"] for found in named) > 10


def test_every_rule_names_where_it_is_kept() -> None:
    table = README.read_text(encoding="utf-8").split("| --- | --- |\n")[1]
    rules = [line for line in table.splitlines() if line.startswith("|")]
    assert [rule for rule in rules if "`" not in rule.split("|")[2]] == []


def test_the_tour_is_short_and_contributing_names_it_in_order() -> None:
    files = [f"test_{name}.py" for name in TOUR]
    assert sorted(path.name for path in (ROOT / "tests" / "tour").glob("test_*.py")) == sorted(files)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"`(test_\w+\.py)`", contributing) == files
    lines = {name: len((ROOT / "tests" / "tour" / name).read_text().splitlines()) for name in files}
    assert {name: count for name, count in lines.items() if count >= 30} == {}
