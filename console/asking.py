"""Asking before something is gone for good."""

from __future__ import annotations

import signal
import sys

from console.errors import CommandError


def sure(question: str) -> bool:
    """Ask on the terminal; only "y" or "yes" is yes.

    Raises CommandError (code 2) where nobody can answer: a script says `--yes`.
    """
    if not sys.stdin.isatty():
        raise CommandError("nobody is here to ask: say --yes to do it without asking", code=2)
    # asyncio's handler would cancel a task that does not run while we wait here: Ctrl-C would do nothing
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
    finally:
        signal.signal(signal.SIGINT, before)
