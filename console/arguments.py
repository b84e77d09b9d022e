"""What the commands' parsers have in common."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


class HelpText(argparse.HelpFormatter):
    """Fills paragraphs to the terminal's width, and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example:"):
            return text
        return super()._fill_text(text, width, indent)


def describe(parser: argparse.ArgumentParser, what: str, *examples: str, run: object) -> None:
    """Give a command its description, its examples, `--json`, and the function that runs it."""
    parser.description = what
    parser.epilog = "example:\n" + "\n".join(f"  {example}" for example in examples)
    parser.formatter_class = HelpText
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on stdout, messages on stderr"
    )
    parser.set_defaults(run=run)


def checked(reader: Callable[[str], T]) -> Callable[[str], T]:
    """An argument type whose ValueError becomes the message, as it is. What is not UTF-8 nobody takes."""

    def read(text: str) -> T:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not UTF-8") from None
        try:
            return reader(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


words = checked(str)
"""An argument type: any text."""


def whole(least: int, most: int = 1_000_000) -> Callable[[str], int]:
    """An argument type: a whole number between these two."""

    def read(text: str) -> int:
        digits = text.strip()
        # counted first: Python refuses to read thousands of digits, in words of its own
        if not digits.isdecimal() or len(digits) > 20 or not least <= int(digits) <= most:
            raise ValueError(f"{text[:40]!r}: give a whole number from {least} to {most}")
        return int(digits)

    return checked(read)


def hint(typed: Sequence[str], message: str) -> str:
    """What to do about a value or a name that begins with "-", which was taken for an option; else ''."""
    strange = next((word for word in typed if re.match("-[^-]", word) and word != "-h"), None)
    if strange is None:
        return ""
    if message.endswith("expected one argument"):
        option = typed[max(list(typed).index(strange) - 1, 0)]
        return f"A value that begins with '-' is written {option}={strange}"
    if "unrecognized arguments" in message or "are required" in message:
        return f"A name that begins with '-' is written ./{strange} if it is a file, or comes after --"
    return ""


def subcommands(
    parser: argparse.ArgumentParser, what: str, *examples: str
) -> Callable[[str, str], argparse.ArgumentParser]:
    """Make a group of commands; the result adds one by its name and its line of help."""
    parser.description = what
    parser.epilog = "example:\n" + "\n".join(f"  {example}" for example in examples)
    group = parser.add_subparsers(
        metavar="COMMAND", dest="subcommand", required=True, parser_class=type(parser)
    )
    return lambda name, line: group.add_parser(name, help=line)


def called_as() -> str:
    """Return the word that starts this program in a shell: `erni` if the PATH leads to it, else its path."""
    program = Path(sys.argv[0])
    if shutil.which("erni") or program.name != "erni":
        return "erni"
    program = program.absolute()
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)
