"""Who uses a folder: a lock the kernel lets go when its holder ends, and a line that says who that is."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


class ClaimedError(RuntimeError):
    """Somebody else holds the claim; `holder` is the line they left."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path.parent} is in use by {holder}")
        self.holder = holder


class FolderClaim:
    """An exclusive claim, held until `release` or the end of the process, whichever way it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, what: str) -> Self:
        """Claim by locking the file at `path` and leaving our line in it.

        Raises ClaimedError with the holder's line, OSError when the file cannot be written.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 500).decode(errors="replace").strip()
            os.close(descriptor)
            raise ClaimedError(path, holder or "another process") from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} (process {os.getpid()})\n".encode(), 0)
        return cls(path, descriptor)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files of one name."""
        os.truncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder_of(path: Path) -> str:
    """Return the line of who holds a claim now; '' if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(descriptor, 500).decode(errors="replace").strip() or "another process"
    else:
        return ""
    finally:
        os.close(descriptor)
