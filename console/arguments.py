"""What the commands' parsers have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """An argument type whose ValueError becomes the message, as it is."""

    def read(text: str) -> T:
        try:
            return reader(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def whole(least: int) -> Callable[[str], int]:
    """An argument type: a whole number of at least this."""

    def read(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise ValueError(f"{text[:40]!r}: give a whole number, {least} or more")
        return int(text)

    return checked(read)


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
