"""Names the person who types a command, for the list of activities."""

from __future__ import annotations

import getpass
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.operations.activity import Person


def person() -> Person:
    """Return who types a command, for the list of activities."""
    from shared.operations.activity import Person

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # a container may run as a number that no user has
        user = "somebody"
    return Person(f"{user}@{socket.gethostname()}", "command line")
