"""Finds the photos that `erni publish` was asked for: files, folders, addresses."""

from __future__ import annotations

import os
import re
import secrets
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import msgspec

from console.errors import CommandError
from events import submission
from events.identities import SessionId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PHOTO_ENDINGS: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".heic", ".heif", ".hif"}
)
"""Endings by which a file in a folder counts as a photo. A file named on the command line always does."""
_ADDRESS = re.compile(r"(https?|store|sharepoint|file):", re.IGNORECASE)
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})


class PhotoFile(msgspec.Struct, frozen=True, kw_only=True):
    """Names one photo to publish: a file of this machine, or an address."""

    name: str
    """The path below its folder, or its file name; '' for an address without one."""
    path: Path | None = None
    url: str = ""
    version: str = ""
    """The version of a file in a library: a new version is a new photo at the same address."""

    @property
    def file_name(self) -> str | None:
        """Return the file name without folders."""
        return self.name.rpartition("/")[2] or None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Lists the photos to publish, and what was left out."""

    photos: tuple[PhotoFile, ...]
    skipped: int
    """Files in folders whose names are no photo's, and `leading_out`."""
    leading_out: tuple[str, ...]
    """Links in a folder to files outside of it, which the caller may not have meant."""
    unreadable: tuple[tuple[str, str], ...]
    """Path and why it cannot be opened."""


def count(number: int) -> str:
    """Return the number of photos in words."""
    return f"{number} photo{'' if number == 1 else 's'}"


def find(words: Sequence[str]) -> Found:
    """Look at every word. Raises CommandError (code 2) for a path that does not exist."""
    photos: list[PhotoFile] = []
    unreadable: list[tuple[str, str]] = []
    leading_out: list[str] = []
    skipped = 0
    for word in words:
        if _ADDRESS.match(word):
            photos.append(_address(word))
            continue
        root = _path(word)
        for path, name in _files(root, unreadable):
            if root.is_dir() and path.suffix.lower() not in PHOTO_ENDINGS:
                skipped += 1
                continue
            if path != root and path.is_symlink() and _leads_out(path, root):
                leading_out.append(str(path))
                skipped += 1
                continue
            if (wrong := _no_photo_file(path)) is not None:
                unreadable.append((str(path), wrong))
                continue
            try:
                # Reported now, so that the session's number of photos is right from the start.
                with path.open("rb"):
                    photos.append(PhotoFile(path=path, name=name))
            except OSError as error:
                unreadable.append((str(path), error.strerror or str(error)))
    return Found(
        photos=tuple(photos),
        skipped=skipped,
        leading_out=tuple(leading_out),
        unreadable=tuple(unreadable),
    )


def _path(word: str) -> Path:
    """Return the path of a file or folder that exists. Raises CommandError (code 2)."""
    if not word.strip():
        raise CommandError("an empty path: name a file, a folder or an address", code=2)
    path = Path(word)
    if not path.exists():
        if "://" in word:
            raise CommandError(
                f"{word}: only addresses that start with http, https, store, sharepoint or file can be"
                " published",
                code=2,
            )
        raise CommandError(f"{word}: there is no such file or folder", code=2)
    return path


def _leads_out(link: Path, root: Path) -> bool:
    """Return whether a link ends outside of the folder. A circular link is found to be no file later."""
    try:
        return not link.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def _no_photo_file(path: Path) -> str | None:
    """Return why a path cannot be published. It is not opened: a pipe would wait for its other end."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if path.is_symlink() and not path.exists():
        return "a link to nothing"
    return None if path.is_file() else "not a file"


def _address(word: str) -> PhotoFile:
    """Return the photo at an address. Raises CommandError (code 2) if the address can hold none."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise CommandError(f"{word}: is not UTF-8: write such bytes as %FF", code=2) from None
    try:
        parts = urlsplit(submission.source_url(word))
    except ValueError as error:
        raise CommandError(f"{word}: {str(error).removeprefix('source_url ')}", code=2) from None
    return PhotoFile(url=word, name=unquote(parts.path).rpartition("/")[2])


def _files(root: Path, unreadable: list[tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    """Yield every file below, in order, without hidden ones."""
    if not root.is_dir():
        yield root, root.name
        return

    def refused(error: OSError) -> None:
        unreadable.append((str(error.filename), error.strerror or str(error)))

    for folder, folders, files in os.walk(root, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                path = Path(folder) / name
                yield path, path.relative_to(root).as_posix()


def new_session_id(words: Sequence[str]) -> SessionId:
    """Make an id that people recognise: what was published, the day on this machine, and a random part."""
    first = words[0]
    name = urlsplit(first).netloc.rpartition("@")[2] if _ADDRESS.match(first) else Path(first).resolve().name
    plain = unicodedata.normalize("NFKD", name.translate(_UMLAUTS)).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-._")[:60] or "photos"
    return SessionId(f"{stem}-{time.strftime('%Y-%m-%d')}-{secrets.token_hex(3)}")
