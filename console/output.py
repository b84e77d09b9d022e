"""Where a command's words go: results to stdout, for people or as one JSON document; messages to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from shared.telemetry.printable import STEERING, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console


class Output:
    """One command's voice. With `as_json` stdout holds one JSON document and nothing else."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._answered = False
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Where people read: rich, on stdout, or on stderr when stdout belongs to the JSON document."""
        if self._console is None:
            from rich.console import Console

            file = sys.stderr if self.as_json else sys.stdout
            # Without a terminal rich would break lines at 80 columns; who reads a pipe wants them whole.
            width = None if file.isatty() or "COLUMNS" in os.environ else 160
            self._console = Console(file=file, highlight=False, soft_wrap=False, width=width)
        return self._console

    @property
    def width(self) -> int | None:
        """Cells of a line where people read on a terminal; None: lines stay whole."""
        return self.console.width if self.console.is_terminal or "COLUMNS" in os.environ else None

    def say(self, text: str = "") -> None:
        """A line for people, as it is: no markup, no colours."""
        _line(sys.stderr if self.as_json else sys.stdout, text)

    def tell(self, text: str, *, style: str = "", indent: int = 0, hang: int = 0) -> None:
        """A sentence, perhaps with a colour; on a terminal its lines break between words.

        The lines after the first stand `hang` cells further in.
        """
        folded = _folded(printable(text), self.width, indent, hang)
        self.console.print(folded, style=style, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A message that is no result; on a terminal its lines break between words."""
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
        _line(sys.stderr, _folded(text, width))

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Say what goes on while it takes its time: something that moves on a terminal, else a line."""
        if not self.console.is_terminal:
            self.say(text)
            yield
            return
        with self.console.status(text):
            yield

    def answer(self, document: Any) -> None:
        """The JSON document, once, where it was asked for."""
        if self.as_json and not self._answered:
            self._answered = True
            try:
                plain = msgspec.json.encode(document, enc_hook=str)
            except UnicodeEncodeError:
                # a word of the command line that is not UTF-8: only this encoder, which is slow, passes it on
                text = json.dumps(msgspec.to_builtins(document, enc_hook=str), indent=2, ensure_ascii=False)
            else:
                text = msgspec.json.format(plain, indent=2).decode()
            _json(text + "\n")
            sys.stdout.flush()

    def answer_in_pieces(self, pieces: Iterable[bytes | bytearray]) -> None:
        """The JSON document in pieces, where it may be too large for one."""
        if self.as_json and not self._answered:
            self._answered = True
            for piece in pieces:
                _json(piece.decode())
            sys.stdout.flush()


def _json(text: str) -> None:
    """Write a piece of JSON, with the escapes of JSON for what would steer the terminal."""
    # the encoder has escaped what is below the space
    if not text.isascii() or "\x7f" in text:
        text = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.write(text)


def _folded(text: str, width: int | None, indent: int = 0, hang: int = 0) -> str:
    """The text in lines of that width, if one is given. A word that is longer stays whole, to be copied."""
    margin = " " * indent
    if width is None:
        return margin + text
    return "\n".join(
        textwrap.fill(
            line,
            width,
            initial_indent=margin,
            subsequent_indent=margin + " " * hang,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        for line in text.split("\n")
    )


def _line(file: TextIO, text: str) -> None:
    file.write(printable(text) + "\n")
    file.flush()
