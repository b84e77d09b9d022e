"""Ends a process at once: when everything is closed, or when it is asked to before it is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn


def end_at(*signals: signal.Signals) -> None:
    """End at these signals until somebody else handles them.

    As the first process of a container, a process does not get a signal that it has no handler for, and its
    imports take a second. Nothing is in flight then.
    """
    for number in signals:
        signal.signal(number, lambda received, _: os._exit(128 + received))


def leave(code: int) -> NoReturn:
    """End with this exit code, without taking the interpreter apart.

    Libraries with threads of their own (the photo store's runtime, gRPC) may still run then, and such an
    exit has been seen to abort: all work done, and the exit code of a crash.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
