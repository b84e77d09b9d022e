"""Keeps what `erni up` knows of its processes in a file, so that other commands know who starts or failed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from dotenv import dotenv_values

from sandbox.claims import holder_of
from shared import settings as settings_module

if TYPE_CHECKING:
    from collections.abc import Iterable

    from console.supervisor import Change
    from shared.settings import Settings

_FILE: Final = "processes.json"


class UpState:
    """Keeps the file up to date. A disk that is full costs other commands this knowledge and nothing else."""

    def __init__(self, erni: Path, names: Iterable[str]) -> None:
        """`erni`: the folder; `names`: the processes that are going to be started."""
        self._path = erni / _FILE
        self._states: dict[str, str] = dict.fromkeys(names, "starting")
        self._write()

    def note(self, change: Change) -> None:
        """Note what happened to a process."""
        if self._states.get(change.name) != change.state:
            self._states[change.name] = change.state
            self._write()

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            draft.write_bytes(msgspec.json.encode(self._states))
            draft.replace(self._path)


def states_of(erni: Path) -> dict[str, str]:
    """Return the state of each process of the `erni up` that runs in a folder; {} if none runs there."""
    if not holder_of(erni / "up.lock"):
        return {}
    try:
        return msgspec.json.decode((erni / _FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def starting(erni: Path) -> str:
    """Return who is starting a system in a folder and cannot be asked yet; '' if nobody is."""
    return "" if (erni / "env").is_file() else holder_of(erni / "up.lock")


def agent_states(settings: Settings) -> dict[str, str]:
    """Return for each agent what `erni up` says of its processes, if these settings lead to its system.

    ``starting`` or ``failed`` if one process is, else nothing is said of that agent.
    """
    erni = settings_module.erni_folder(Path.cwd())
    if erni is None or not (erni / "env").is_file():
        return {}
    # without an address there, `erni up` was given one as we were
    if (
        dotenv_values(erni / "env", interpolate=False).get("REDIS_URL", settings.redis_url)
        != settings.redis_url
    ):
        return {}
    found: dict[str, str] = {}
    for name, state in states_of(erni).items():
        agent = name.partition(".")[0]
        if state in ("starting", "waiting"):
            found[agent] = "starting"
        elif state == "failed":
            found.setdefault(agent, "failed")
    return found
