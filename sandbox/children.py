"""Child processes that never outlive the process that started them, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> Callable[[], None] | None:
    """What to give as `preexec_fn`, so that the kernel kills the child when its parent dies (`kill -9` too).

    None where the system has no such thing (only Linux has): an orderly stop still ends the children there.
    SIGKILL, because a child that may refuse to go would still hold its port and folder at the next start; the
    hand-off protocol and the append-only file are made to bear it.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Looked up before the fork: between fork and exec hardly anything is safe to do.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died between the fork and the line above; then no signal will ever come.
        if os.getppid() != parent:
            os._exit(1)

    return arm
