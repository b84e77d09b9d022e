"""Every place that names the agents names all of them: an agent that is added is missing nowhere."""

from __future__ import annotations

import re
import tomllib
from typing import Final

import pytest

from console import agent_state
from events import topology
from shared.reports import german
from tests.tools import ROOT

ALERTS: Final = ROOT / "deploy" / "alerts.yml"


def independent() -> list[str]:
    """The agents of the contract that no agent imports another."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [modules] = [contract["modules"] for contract in contracts if contract["type"] == "independence"]
    return [module.removeprefix("consumers.") for module in modules]


def alerted() -> list[str]:
    """The agents whose absence wakes somebody."""
    rule = ALERTS.read_text().split("alert: ErniAgentMissing")[1].split("- alert:")[0]
    return re.findall(r'absent\(erni_in_hand\{agent="(\w+)"\}\)', rule)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(alerted(), id="deploy/alerts.yml: ErniAgentMissing"),
        pytest.param(list(german.AGENTS), id="shared/reports/german.py: AGENTS"),
    ],
)
def test_all_agents_are_named(names: list[str]) -> None:
    assert names == list(topology.AGENTS)


def test_each_consumer_has_a_part_that_it_waits_for() -> None:
    assert list(agent_state.PARTS) == list(topology.CONSUMERS)


def test_no_consumer_imports_another() -> None:
    assert independent() == list(topology.CONSUMERS)
