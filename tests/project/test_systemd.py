"""The units of deploy/systemd: they name what exists, and give an agent the time that it needs to stop."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from events import topology
from shared.settings import Settings
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNITS = ROOT / "deploy" / "systemd"
FILES = sorted(UNITS.glob("*.service"))


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names are case-sensitive
    parser.read_string(path.read_text())
    return parser


def test_there_is_one_for_agents_and_one_for_the_gateway() -> None:
    assert [path.name for path in FILES] == ["erni-gateway.service", "erni@.service"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_unit_starts_again_for_ever_and_gains_no_rights(path: Path) -> None:
    found = unit(path)
    assert found["Unit"]["StartLimitIntervalSec"] == "0"
    service = found["Service"]
    assert service["Restart"] == "always"
    assert service["User"] == "erni"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert int(service["TimeoutStopSec"]) > Settings().grace_seconds


@pytest.mark.parametrize("agent", topology.CONSUMERS)
def test_an_instance_is_an_agent_and_a_number(agent: str, tmp_path: Path) -> None:
    line = unit(UNITS / "erni@.service")["Service"]["ExecStart"]
    # as systemd does: the specifier, then the two characters that stand for themselves when they are doubled
    line = re.sub(r"%(?!%)i", f"{agent}.2", line.replace("%%", "\0")).replace("\0", "%").replace("$$", "$")
    echo = tmp_path / "python"
    echo.write_text(f"#!{sys.executable}\nimport sys; print(*sys.argv[1:])\n")
    echo.chmod(0o755)
    said = subprocess.run(
        ["/bin/sh", "-c", line.replace("/opt/erni/bin/python", str(echo))],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.split() == ["-m", "consumers", agent]
