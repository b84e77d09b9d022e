"""Finds the process behind a port of this machine, so that a sentence can name it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN: Final = "0A"
"""The state LISTEN in these tables (include/net/tcp_states.h of Linux)."""


class ListeningProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that listens."""

    pid: int
    stopped: bool
    """Whether it got SIGSTOP, or is in a debugger."""


def is_here(host: str) -> bool:
    """Return whether a host is this machine's loopback."""
    return host in ("localhost", "::1") or host.startswith("127.")


def listening_process(port: int) -> ListeningProcess | None:
    """Return who listens on a TCP port of this machine; None if that is another user's process.

    Reads /proc (proc(5)); where there is none, as outside Linux, the answer is None too.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return None
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) in sockets for link in folder.joinpath("fd").iterdir()):
                state = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0]
                return ListeningProcess(pid=int(folder.name), stopped=state in ("T", "t"))
    return None


def _listening(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port."""
    inodes: list[str] = []
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.append(words[9])
    return inodes
