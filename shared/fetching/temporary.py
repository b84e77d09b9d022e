"""Makes the temporary files of fetched photos, in one folder that is chosen and checked at the start.

Python's own choice changes while a process runs: with a full disk or no free descriptor it tries other
folders, the current one among them, and then says "No usable temporary directory", which looks like a file
that is not there. No photo is to blame for that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shared.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_WRONG: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG}
)
"""What waiting does not change: the folder was chosen wrongly."""
_PASSED: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ENOMEM}
)
_REMEDIES: Final = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "raise the quota or free some space there",
    errno.EMFILE: "raise the process' limit of open files",
    errno.ENFILE: "raise the system's limit of open files",
}


class TemporaryFileError(OSError):
    """This machine cannot keep a temporary file. No photo is to blame for that.

    `errno` is the system's where it can only mean this machine, else EIO. The sentence says what to do.
    """

    def __init__(self, folder: Path, error: OSError) -> None:
        number = error.errno or errno.EIO
        remedy = _REMEDIES.get(number, "check the folder, or name another one with TMPDIR")
        super().__init__(
            number if number in _PASSED else errno.EIO,
            f"no temporary file in {folder} ({os.strerror(number).lower()}): {remedy}. Photos wait meanwhile",
        )

    def __str__(self) -> str:
        return str(self.args[1])


class TemporaryFiles:
    """Makes files in the folder of TMPDIR, by default /tmp. They are removed when their block ends."""

    def __init__(self) -> None:
        self.folder = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - the files in it are secure

    def check(self) -> None:
        """Make a file, once at the start. Raises SettingsError for a folder that cannot be right.

        A disk that is full may be emptied, so that is no error yet.
        """
        try:
            tempfile.TemporaryFile(dir=self.folder, prefix="erni-").close()
        except OSError as error:
            if error.errno in _WRONG:
                cause = os.strerror(error.errno or 0).lower()
                raise SettingsError(
                    f"no temporary file can be made in {self.folder} ({cause}):"
                    " name a folder that this user may write to with TMPDIR"
                ) from error

    @contextmanager
    def file(self) -> Iterator[TemporaryFile]:
        """Make a file for one photo. Raises TemporaryFileError."""
        try:
            made = tempfile.NamedTemporaryFile(dir=self.folder, prefix="erni-photo-")  # noqa: SIM115
        except OSError as error:
            raise TemporaryFileError(self.folder, error) from error
        try:
            yield TemporaryFile(self.folder, made)
        finally:
            _close(made)


class TemporaryFile:
    """A file that exists as long as the block that made it lasts."""

    def __init__(self, folder: Path, file: IO[bytes]) -> None:
        self._folder = folder
        self._file = file
        self.path = Path(file.name)

    def write(self, data: bytes) -> None:
        """Append bytes. Raises TemporaryFileError."""
        try:
            self._file.write(data)
        except OSError as error:
            raise TemporaryFileError(self._folder, error) from error

    def flush(self) -> None:
        """Let others read what was written. Raises TemporaryFileError."""
        try:
            self._file.flush()
        except OSError as error:
            raise TemporaryFileError(self._folder, error) from error


def _close(file: IO[bytes]) -> None:
    # What is left in the buffer of a full disk fails again here; its error was raised already.
    try:
        file.close()
    except OSError:
        with contextlib.suppress(OSError):
            file.close()
