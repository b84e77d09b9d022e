"""What docs/ says of commands, settings, metrics and alerts is so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec
import pytest
import yaml

from console import main as command_line
from shared.delivery.dead_letter import REASONS
from shared.settings import Settings, SettingsError, load
from shared.telemetry.metrics import OUTCOMES
from tests.project import pages
from tests.tools import ROOT

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

ALERTS = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"][0]["rules"]
FIELDS = {field.name.upper(): field for field in msgspec.structs.fields(Settings)}
LEAVES = dict(pages.commands())
NAMES = {*command_line.COMMANDS, *LEAVES}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def default_of(field: msgspec.structs.FieldInfo) -> str:
    value: Any = field.default
    if isinstance(value, bool):
        return str(int(value))
    if value in (None, "", ()):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_explained_once_with_its_default() -> None:
    table = [row for row in pages.rows(pages.page("settings.md")) if row[0] in FIELDS or row[0].isupper()]
    assert sorted(row[0] for row in table) == sorted(FIELDS)
    assert {row[0]: row[1] for row in table} == {name: default_of(field) for name, field in FIELDS.items()}
    assert [row[0] for row in table if len(row[2]) < len("the tenant")] == []


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if get_origin(field.type)])
def test_a_setting_of_few_words_names_them(name: str) -> None:
    words = [word for word in get_args(FIELDS[name].type) if isinstance(word, str)]
    (row,) = (row for row in pages.rows(pages.page("settings.md")) if row[0] == name)
    assert [word for word in words if not re.search(rf"\b{word}\b", " ".join(row))] == []


def test_the_wrong_settings_it_shows_are_answered_like_that() -> None:
    call, *answer = re.findall(r"^ {4}(.*)$", pages.page("settings.md"), re.MULTILINE)
    given = dict(re.findall(r"([A-Z_]+)=(\S+)", call))
    with pytest.raises(SettingsError) as raised:
        load(given)
    assert "\n".join(answer) == f"erni: {raised.value}"


def test_every_metric_is_there_as_the_code_says_it() -> None:
    found = pages.metrics_rows_of(pages.page("metrics.md"))
    assert found == pages.metrics_table(), "python -m tests.project.pages writes it anew"


def test_every_command_is_there_with_an_example_of_its_help() -> None:
    table = {row[0]: row for row in pages.rows(pages.page("commands.md")) if row[0].startswith("erni ")}
    assert sorted(table) == sorted(f"erni {path}" for path in LEAVES)
    for path, parser in LEAVES.items():
        assert table[f"erni {path}"][2] in examples(parser), path


def examples(parser: argparse.ArgumentParser) -> list[str]:
    return [line.strip() for line in (parser.epilog or "").splitlines()[1:]]


@pytest.mark.parametrize("path", LEAVES)
def test_the_examples_of_a_commands_help_can_be_typed(path: str) -> None:
    calls = list(pages.command_lines("".join(f"    {line}\n" for line in examples(LEAVES[path]))))
    assert calls
    for words in calls:
        command_line.parser(words).parse_args(words)


@pytest.mark.parametrize("where", PAGES, ids=lambda where: where.name)
def test_every_call_of_erni_on_a_page_can_be_typed(where: Path) -> None:
    for words in pages.command_lines(where.read_text(encoding="utf-8")):
        # a name alone is no call: `erni dead`, `erni photo show`
        if " ".join(words) not in NAMES:
            command_line.parser(words).parse_args(words)


def test_the_pages_together_show_every_command() -> None:
    shown = {
        " ".join(words)
        for where in PAGES
        for call in pages.command_lines(where.read_text(encoding="utf-8"))
        for words in (call[:1], call[:2], call[:3])
    }
    assert set(LEAVES) <= shown


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_has_a_paragraph_that_says_what_to_do(alert: str) -> None:
    sections = re.split(r"^### ", pages.page("on-call.md"), flags=re.MULTILINE)[1:]
    (section,) = (section for section in sections if section.splitlines()[0] == alert)
    assert len(section.split()) > 15
    headings = [section.splitlines()[0] for section in sections]
    assert sorted(headings) == sorted(rule["alert"] for rule in ALERTS)


def test_the_alert_that_the_walk_begins_with_says_that() -> None:
    (rule,) = (rule for rule in ALERTS if rule["alert"] == "ErniDeadLetters")
    said = rule["annotations"]["summary"].replace("{{ $value }}", "3")
    assert said.replace("{{ $labels.agent }}", "photo_fetcher") in pages.page("on-call.md")


def test_every_reason_and_every_outcome_is_explained() -> None:
    reasons = [row[0] for row in pages.rows(pages.page("dead-letters.md")) if row[0] in REASONS]
    assert sorted(reasons) == sorted(REASONS)
    listed = ", ".join(f"`{outcome}`" for outcome in OUTCOMES[:-1]) + f" or `{OUTCOMES[-1]}`"
    assert listed in pages.page("tracing.md")
    assert listed in pages.page("logging.md")
