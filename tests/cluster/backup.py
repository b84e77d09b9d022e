"""Runs the commands of docs/operating.md as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from typing import TYPE_CHECKING, Final

from sandbox.redis_server import find_server
from tests.tools import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK: Final = re.compile(r"(?:^ {4,}.*\n)+", re.MULTILINE)
_LINES_OF_THE_STORE: Final = re.compile(r"^.*\$STORE.*\n", re.MULTILINE)


def blocks(heading: str) -> list[str]:
    """Return the commands of one section, block by block; those of the lists are set in further."""
    page = (ROOT / "docs" / "operating.md").read_text()
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    # a line of text behind a number is set in by three
    return [textwrap.dedent(block) for block in _BLOCK.findall(section)]


def of_one_server() -> tuple[str, str]:
    """Return the backup and the restore of one server, without the lines about the store."""
    copy, restore = blocks("Backup and restore")
    return _LINES_OF_THE_STORE.sub("", copy), _LINES_OF_THE_STORE.sub("", restore)


class Shell:
    """Types commands; `redis-cli` is the one beside the server."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        self._bin.mkdir()
        beside = find_server().path.with_name("valkey-cli")
        (self._bin / "redis-cli").symlink_to(beside if beside.exists() else shutil.which("redis-cli") or "")

    def run(self, commands: str, **places: object) -> str:
        """Return what they print. Fails if one of them fails."""
        values = {name: str(value) for name, value in places.items()}
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", commands],
            env={"PATH": path, **values},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (commands, done.stdout, done.stderr)
        return done.stdout
