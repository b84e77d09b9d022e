"""Keeps what `erni up` knows of its processes in a file, so that other commands know who starts or failed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
from dotenv import dotenv_values

from console.addresses import bare
from events import topology
from sandbox.claims import holder_of
from shared import settings as settings_module
from shared.operations.local_processes import STOPPED, process_state
from shared.settings import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from console.supervisor import Change
    from shared.settings import Settings

_FILE: Final = "processes.json"
_MEANWHILE: Final = {
    "gateway": ", so that the web console and publishing over HTTP do not answer",
    "sharepoint": ", so that photos wait for SharePoint",
    "traces": ", so that no traces are kept",
}
"""What does not work while one of these is frozen."""


_PATHS: Final = ("PHOTO_STORE_URL", "AZURE_CERTIFICATE_PATH")
"""Settings that may be a path below the folder in which `erni up` was typed."""


def given_settings(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the settings that `erni up` got from its environment, for the other commands of its folder.

    Without secrets, and without addresses that may have one in them: with user, password or a query. Paths
    are absolute, because a command may be typed in a folder below. `settings`: what `environ` means.
    """
    found: dict[str, str] = {}
    for field in settings.__struct_fields__:
        name, value = field.upper(), environ.get(field.upper(), "").strip()
        secret = isinstance(getattr(settings, field), Secret) or ("://" in value and bare(value) != value)
        if value and not secret:
            local = name in _PATHS and urlsplit(value).scheme in ("", "file")
            found[name] = str(Path(value.removeprefix("file://")).absolute()) if local else value
    # a command whose environment has another REDIS_URL would be refused for two that differ
    if session_redis := found.pop("SESSION_REDIS_URL", ""):
        found["REDIS_URL"] = session_redis
    return found


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """What `erni up` knows of one process."""

    state: str
    """As `console.supervisor.State` names it."""
    pid: int | None = None


class UpState:
    """Keeps the file up to date. A disk that is full costs other commands this knowledge and nothing else."""

    def __init__(self, erni: Path, names: Iterable[str]) -> None:
        """`erni`: the folder; `names`: the processes that are going to be started."""
        self._path = erni / _FILE
        self._states = dict.fromkeys(names, ProcessState(state="starting"))
        self._write()

    def note(self, change: Change) -> None:
        """Note what happened to a process."""
        state = ProcessState(state=change.state, pid=change.pid)
        if self._states.get(change.name) != state:
            self._states[change.name] = state
            self._write()

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            draft.write_bytes(msgspec.json.encode(self._states))
            draft.replace(self._path)


def states_of(erni: Path) -> dict[str, ProcessState]:
    """Return the state of each process of the `erni up` that runs in a folder; {} if none runs there."""
    if not holder_of(erni / "up.lock"):
        return {}
    try:
        return msgspec.json.decode((erni / _FILE).read_bytes(), type=dict[str, ProcessState])
    except (OSError, msgspec.DecodeError):
        return {}


def starting(erni: Path) -> str:
    """Return who is starting a system in a folder and cannot be asked yet; '' if nobody is."""
    return "" if (erni / "env").is_file() else holder_of(erni / "up.lock")


def erni_of(settings: Settings) -> Path | None:
    """Return the `.erni` whose `erni up` these settings lead to, whether it runs or was killed; else None."""
    erni = settings_module.erni_folder(Path.cwd())
    if erni is None or not (erni / "env").is_file():
        return None
    given = dotenv_values(erni / "env", interpolate=False)
    # without an address there, `erni up` was given one as we were
    return erni if given.get("REDIS_URL", settings.redis_url) == settings.redis_url else None


def agent_states(settings: Settings) -> dict[str, str]:
    """Return for each agent what `erni up` says of its processes, if these settings lead to its system.

    ``starting`` or ``failed`` if one process is, else nothing is said of that agent.
    """
    erni = erni_of(settings)
    if erni is None:
        return {}
    found: dict[str, str] = {}
    for name, process in states_of(erni).items():
        agent = name.partition(".")[0]
        if process.state in ("starting", "waiting"):
            found[agent] = "starting"
        elif process.state == "failed":
            found.setdefault(agent, "failed")
    return found


def process_troubles(settings: Settings) -> dict[str, str]:
    """Return a sentence for each process of `erni up` that is frozen and of which Redis knows nothing.

    Agents report themselves in Redis, and of Redis itself each command says that it does not answer.
    """
    erni = erni_of(settings)
    found: dict[str, str] = {}
    for name, process in (states_of(erni) if erni else {}).items():
        known = name.partition(".")[0] in topology.CONSUMERS or name == "redis"
        if not known and process.pid is not None and process_state(process.pid) in STOPPED:
            found[name] = stopped(name, process.pid, _MEANWHILE.get(name, ""))
    return found


def stopped(name: str, pid: int, rest: str = "") -> str:
    """Say that a process of this machine is stopped, and what to do, in the words of all commands."""
    return f"{name}: process {pid} is stopped by SIGSTOP or a debugger{rest}. Let it go on: kill -CONT {pid}"
