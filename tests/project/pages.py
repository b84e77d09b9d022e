"""What pages of docs/ say of the code, as the code has it.

``python -m tests.project.pages`` writes the table of docs/metrics.md anew.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics import MetricWrapperBase

from console import main as command_line
from shared.telemetry import metrics
from shared.telemetry.histogram import BatchHistogram
from tests.tools import ROOT

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

DOCS: Final = ROOT / "docs"
_ROWS: Final = re.compile(r"(?:^\| `erni_.*\n)+", re.MULTILINE)


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without the backquotes around a whole cell."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| --- ")]
    return [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def _plain(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1] if re.fullmatch(r"`[^`]+`", cell) else cell


def metrics_table() -> str:
    """A row for each instrument: name, type, labels, sentence."""
    lines = []
    for instrument in vars(metrics).values():
        if isinstance(instrument, MetricWrapperBase | BatchHistogram):
            family = next(iter(instrument.describe()))
            name = family.name + ("_total" if family.type == "counter" else "")
            # prometheus_client has the label names nowhere else
            names = [instrument.label] if isinstance(instrument, BatchHistogram) else instrument._labelnames
            labels = ", ".join(f"`{label}`" for label in names)
            cells = (f"`{name}`", family.type, labels, family.documentation)
            lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|\n")
    return "".join(lines)


def metrics_rows_of(text: str) -> str:
    """The rows that a page has of them."""
    found = _ROWS.search(text)
    return found[0] if found else ""


def command_lines(text: str) -> Iterator[list[str]]:
    """Each call of `erni` in a page's code (not output), in words, as a shell would hand them over."""
    blocks = re.findall(r"^(?: {4}.*\n)+|^```(?:sh|shell)?\n.*?^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`((?:[A-Z_]+=\S+ )*erni [^`]+)`", text)
    for line in lines:
        # two spaces begin what is said about it, a bar another program
        call = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*erni ((?:[^\s|>]|\s(?![\s|>]))+)", line)
        if call and "…" not in call[1]:
            yield ["vision_analyzer" if word == "AGENT" else word for word in shlex.split(call[1])]


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, such as ``dead list``, and its parser."""
    for name in command_line.COMMANDS:
        yield from _leaves(name, _chosen(command_line.parser([name]), name))


def _leaves(path: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = _below(parser)
    if not below:
        yield path, parser
    for name, one in below.items():
        yield from _leaves(f"{path} {name}", one)


def _chosen(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    return _below(parser)[name]


def _below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser: argparse has no public way to ask for them."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            return action.choices
    return {}


if __name__ == "__main__":
    before = page("metrics.md")
    (DOCS / "metrics.md").write_text(_ROWS.sub(lambda _: metrics_table(), before, count=1), encoding="utf-8")
