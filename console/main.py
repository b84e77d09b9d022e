"""The `erni` command line: finds the command, runs it, turns what goes wrong into a sentence.

Exit codes: 0 done, 1 the thing failed or something was found wrong, 2 wrong usage, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

from console.arguments import HelpText, hint
from console.errors import INTERRUPTED, CommandError
from console.output import Output
from shared.process_exit import end_at, leave

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: Final = {
    "demo": ("demo", "show it: sample photos go through the five agents, all on this machine"),
    "up": ("up", "run everything on this machine until Ctrl-C"),
    "publish": ("publish", "submit photos: files, folders or addresses"),
    "status": ("status", "the pipeline: processes, backlog, dead letters, breakers"),
    "session": ("session", "submission batches: list, show, close, forget"),
    "photo": ("photo", "one photo's way through the agents"),
    "report": ("report", "the HTML report of a session"),
    "dead": ("dead", "dead letters: list, show, replay, discard"),
    "pause": ("pauses", "an agent stops reading, all its processes"),
    "resume": ("pauses", "an agent reads again"),
    "fault": ("fault", "make the local stand-in misbehave, to practise"),
    "doctor": ("doctor", "check settings and everything they point at"),
    "redis-cli": ("redis_cli", "the command line of Redis, connected to this system"),
    "gateway": ("gateway", "serve publishing over HTTP, health, metrics and the metrics targets"),
    "console": ("console", "a link that signs in to the web console, once"),
    "key": ("key", "keys for publishing and reading over HTTP: add, list, remove"),
    "webhook": ("webhook", "notices over HTTP when photos end: add, list, remove, rotate, enable"),
    "mcp": ("mcp", "tools for an assistant: it looks, and changes nothing"),
}
"""Each command, the module of `console.commands` that has it, and what it does in a line."""
_OURS: Final = ("console", "consumers", "events", "sandbox", "shared")
_EXTRAS: Final = {"demo": "local", "up": "local", "mcp": "mcp"}
"""Commands that need more than the extra `console`: the embedded services, the SDK of MCP."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong word in one line and points at --help; with --json the document says it too."""

    words: Sequence[str] = ()
    """What was typed."""

    def error(self, message: str) -> NoReturn:
        self.complain(message, self.prog)

    def complain(self, message: str, prog: str) -> NoReturn:
        """Say what is wrong with the words of the command `prog`, then exit with code 2."""
        output = Output(as_json="--json" in self.words)
        output.answer({"error": message})
        output.warn(f"{prog}: {message}")
        if what_to_do := hint(self.words, message):
            output.warn(f"{what_to_do}.")
        output.warn(f"Try '{prog} --help'.")
        raise SystemExit(2)


def parser(words: Sequence[str]) -> _Parser:
    """The parser for these words: only the command they name has its arguments, the others cost nothing."""
    top = _Parser(
        prog="erni",
        description="Photos of building sites become described, validated SharePoint entries.",
        epilog="example:\n  erni demo            see it work\n  erni COMMAND --help  what a command does",
        formatter_class=HelpText,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = top.add_subparsers(metavar="COMMAND", dest="command", required=True, parser_class=_Parser)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, line) in COMMANDS.items():
        command = commands.add_parser(name, help=line, formatter_class=HelpText)
        if name == chosen:
            import_module(f"console.commands.{module}").arguments(command)
    return top


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"erni {version('erni-foto-agency')}\n")
        raise SystemExit(0)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; the entry point of the `erni` script."""
    words = sys.argv[1:] if words is None else words
    _Parser.words = words
    try:
        options = _options(words)
        return _run(options, Output(as_json=options.json))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        Output(as_json=False).warn("erni: interrupted")
        return INTERRUPTED


def _options(words: Sequence[str]) -> argparse.Namespace:
    """Read the words. Unknown words are reported by the command, where argparse would blame `erni`."""
    top = parser(words)
    options, unknown = top.parse_known_args(words)
    if unknown:
        names = (top.prog, options.command, getattr(options, "subcommand", None))
        top.complain(f"unrecognized arguments: {' '.join(unknown)}", " ".join(filter(None, names)))
    return options


def _run(options: argparse.Namespace, output: Output) -> int:
    """Run the chosen command and report its errors."""
    try:
        _log_to_stderr()
        result: Any = options.run(options, output)
        code = asyncio.run(result) if inspect.iscoroutine(result) else result
    except BrokenPipeError:
        # Whoever read us (`| head`) has gone; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        extra = _EXTRAS.get(options.command, "console")
        missing = (
            f"{error.name} is not installed: this command needs more than the contract for upstream systems."
            f" Install it with: pip install 'erni-foto-agency[{extra}]'"
        )
        output.answer({"error": missing})
        # not by the output, whose terminal part may be what is missing
        sys.stderr.write(f"erni: {missing}\n")
        return 1
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        output.answer({"error": str(sentence)})
        output.warn(f"erni: {sentence}")
        return sentence.code
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    return int(code)


def _log_to_stderr() -> None:
    """Send log lines of the packages a command uses to standard error; commands that serve set up more."""
    import structlog

    # looked up for each line, since it may be another one by then
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def _sentence(error: Exception) -> CommandError | None:
    """Return the sentence for an error that a user can cause; None for a mistake of ours."""
    if isinstance(error, CommandError):
        return error
    from console.explain import explain

    return explain(error)


def run() -> NoReturn:
    """The program `erni`."""
    end_at(signal.SIGTERM)
    # photos and reports are for this user
    os.umask(0o077)
    leave(main())


if __name__ == "__main__":
    run()
