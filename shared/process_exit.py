"""How our processes end once everything is closed: at once."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End with this exit code, without taking the interpreter apart.

    Libraries with threads of their own (the photo store's runtime, gRPC) may still run then, and such an
    exit has been seen to abort: all work done, and the exit code of a crash.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
