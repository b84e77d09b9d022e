"""How a command says that it cannot do what it was asked."""

from __future__ import annotations

from typing import Final

INTERRUPTED: Final = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""


class CommandError(Exception):
    """A sentence for who typed the command: what was being done, why it failed, what to do."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        """`code`: 1, it failed or something was found wrong; 2, it was asked the wrong way; INTERRUPTED."""
        super().__init__(message)
        self.code = code
