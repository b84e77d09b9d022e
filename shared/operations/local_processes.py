"""Looks at processes of this machine, for commands that must start fast: it imports nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

STOPPED: Final = ("T", "t")
"""The state letters of a process that got SIGSTOP, or is in a debugger (proc(5))."""


def local_state(pid: int) -> str:
    """Return the state letter of an agent process on this machine (proc(5): T is stopped); '' if it is gone.

    Where there is no /proc, nothing is known and the answer is ''.
    """
    try:
        # a process id is used again after a crash: only a process that was started as an agent counts
        if b"consumers" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return ""
    except OSError:
        return ""
    return process_state(pid)


def process_state(pid: int) -> str:
    """Return the state letter of any process on this machine, as `local_state` does."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return "" if state in ("Z", "X") else state
