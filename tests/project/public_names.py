"""The names that people and other systems hold on to, collected from outside, and the list of them.

``python -m tests.project.public_names`` says what differs from tests/project/public_names.json, and with
``--write`` it writes that list again. Do this for names that were added. A name that is gone is given back; a
removal that cannot be avoided is announced in CHANGELOG.md first.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from events import topology
from shared.settings import Settings
from tests.project import pages, public_run
from tests.project.json_paths import paths_of
from tests.project.redis_names import redis_names
from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.project.public_run import Seen

LIST: Final = ROOT / "tests" / "project" / "public_names.json"
WRITE: Final = "python -m tests.project.public_names --write"
Names: TypeAlias = dict[str, list[str]]
"""By kind, such as ``metrics``: sorted names."""

_VALUES: Final = frozenset({"agent", "direction", "field", "outcome", "reason"})
"""Labels whose values are the same in each run; those of the others depend on what goes wrong."""
_LOGS: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_TOOLS: Final = frozenset({"tests", "benchmarks"})


def collect(seen: Seen) -> Names:
    """Everything public that a run showed, and that the code and its pages say."""
    found: dict[str, set[str]] = {
        **redis_names(seen),
        "agents": set(topology.CONSUMERS),
        "commands": set(_commands()) | set(_agent_options(seen)),
        "events": set(_events()),
        "imports": set(_imports()),
        "json documents": set(_documents(seen)),
        "log": set(_logged(seen)) | set(_log_calls()),
        "metrics": set(_metrics(seen)),
        "settings": set(_settings()),
        "spans": set(_spans(seen)),
    }
    return {kind: sorted(names) for kind, names in sorted(found.items())}


def differences(frozen: Mapping[str, Iterable[str]], found: Mapping[str, Iterable[str]]) -> list[str]:
    """A sentence for each name that is gone or new, first those that are gone."""
    gone, new = [], []
    for kind in sorted({*frozen, *found}):
        before, now = set(frozen.get(kind, ())), set(found.get(kind, ()))
        gone += [
            f"{kind}: {name!r} is gone; people and other systems hold on to it, so give it back"
            for name in sorted(before - now)
        ]
        new += [
            f"{kind}: {name!r} is new; if it shall stay for ever, add it by `{WRITE}`"
            for name in sorted(now - before)
        ]
    return gone + new


def frozen_names() -> Names:
    """The list as it was frozen."""
    return msgspec.json.decode(LIST.read_bytes(), type=Names)


def _commands() -> Iterator[str]:
    """Commands with their options, arguments and the words that these take."""
    for path, parser in pages.commands():
        yield f"erni {path}"
        for action in parser._actions:  # argparse has no public way to ask for them
            names = action.option_strings or [str(action.metavar or action.dest).upper()]
            yield from (f"erni {path} {name}" for name in names)
            if not set(topology.AGENTS) & set(map(str, action.choices or ())):
                yield from (f"erni {path} {names[-1]} {choice}" for choice in action.choices or ())


def _agent_options(seen: Seen) -> Iterator[str]:
    yield from (f"python -m consumers {name}" for name in re.findall(r"--[\w-]+", seen.agent_help))


def _events() -> Iterator[str]:
    """Event types, what their data has, and the words that a value can be."""
    for name, struct in topology.TYPES.items():
        yield name
        schema = msgspec.json.schema(struct)
        yield from _schema_paths(name, schema, schema.get("$defs", {}))


def _schema_paths(path: str, schema: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("enum", ()):
        yield f"{path} = {choice}"
    for below in schema.get("anyOf", ()):
        yield from _schema_paths(path, below, parts)
    for name, below in schema.get("properties", {}).items():
        yield f"{path} {name}" if " " not in path else f"{path}.{name}"
        yield from _schema_paths(f"{path} {name}" if " " not in path else f"{path}.{name}", below, parts)
    if isinstance(below := schema.get("items"), dict):
        yield from _schema_paths(f"{path}[]", below, parts)
    if isinstance(below := schema.get("additionalProperties"), dict):
        yield from _schema_paths(f"{path}.<name>", below, parts)


def _imports() -> Iterator[str]:
    """What the pages say can be imported or run, as far as it can, and the parameters it takes."""
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(pages.DOCS.glob("*.md")))
    )
    for module, listed in re.findall(r"^from (events[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
        for name in re.split(r",\s*", listed.strip()):
            value = _imported(module, name)
            if value is None:
                continue
            yield f"from {module} import {name}"
            if inspect.ismodule(value):
                for used in re.findall(rf"\b{name}\.(\w+)\(", text):
                    yield from _called(f"{module}.{name}.{used}", getattr(value, used, None))
            else:
                yield from _called(f"{module}.{name}", value)
    for module in re.findall(r"python -m ((?:events|consumers)[\w.]*)", text):
        yield f"python -m {module}"
    for path in re.findall(r"events/[\w/]+\.lua", text):
        if (ROOT / path).exists():
            yield path


def _imported(module: str, name: str) -> object | None:
    try:
        return getattr(importlib.import_module(module), name, None) or importlib.import_module(
            f"{module}.{name}"
        )
    except ImportError:
        return None


def _called(path: str, value: Any) -> Iterator[str]:
    """A function's parameters, and the public methods of a class with theirs; events are listed elsewhere."""
    ours = str(getattr(value, "__module__", "")).startswith("events.")
    if not ours or not callable(value) or (inspect.isclass(value) and issubclass(value, msgspec.Struct)):
        return
    yield path
    try:
        names = list(inspect.signature(value).parameters)
    except ValueError:  # an exception that takes what Exception takes
        names = []
    yield from (f"{path}({name})" for name in names if name not in ("self", "args", "kwargs"))
    if inspect.isclass(value):
        for name, method in vars(value).items():
            if not name.startswith("_") and inspect.isfunction(method):
                yield from _called(f"{path}.{name}", method)


def _documents(seen: Seen) -> Iterator[str]:
    for name, documents in seen.documents.items():
        for document in documents:
            yield from (f"{name}: {path}" for path in paths_of(document))


def _logged(seen: Seen) -> Iterator[str]:
    for line in seen.log:
        if line["event"] == "delivery":
            yield "delivery"
            yield from (f"delivery {field}" for field in line)
            yield f"delivery outcome = {line['outcome']}, level = {line['level']}"


def _log_calls() -> Iterator[str]:
    """The events that docs/logging.md names with their fields, and the names of all log fields.

    Other sentences are for people to read, and may become clearer.
    """
    documented = set(re.findall(r"`([a-z ]+)`", pages.page("logging.md").replace("\n", " ")))
    for package in sorted(path.parent for path in ROOT.glob("*/__init__.py")):
        for path in sorted(package.rglob("*.py")) if package.name not in _TOOLS else ():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in _LOGS
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id.lstrip("_") in ("log", "logger")
                ):
                    fields = [word.arg for word in node.keywords if word.arg]
                    yield from (f"field {field}" for field in fields)
                    for sentence in documented.intersection(_texts(node.args[:1])):
                        yield sentence
                        yield from (f"{sentence}: {field}" for field in fields)


def _texts(nodes: Iterable[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.IfExp):
            yield from _texts((node.body, node.orelse))


def _metrics(seen: Seen) -> Iterator[str]:
    """Names and types, label names, and the values of those labels that each run has."""
    for name, _, labels, *_ in pages.rows(pages.page("metrics.md")):
        if name.startswith("erni_"):
            yield from (f"{name} {label}" for label in re.findall(r"`(\w+)`", f"`{labels}`"))
    for text in seen.metrics:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith("erni_"):
                continue
            yield f"{family.name}{'_total' if family.type == 'counter' else ''} ({family.type})"
            for sample in family.samples:
                for label, value in sample.labels.items():
                    yield f"{sample.name} {label}"
                    if label in _VALUES:
                        yield f"{label} = {value}"


def _settings() -> Iterator[str]:
    """The environment variables, of the class and of the page, and the words that one can be."""
    rows = [row[0] for row in pages.rows(pages.page("settings.md"))]
    yield from (f"{name} (docs)" for name in rows if re.fullmatch("[A-Z_]+", name))
    for field in msgspec.structs.fields(Settings):
        yield (name := field.name.upper())
        yield from (f"{name} = {word}" for word in get_args(field.type) if isinstance(word, str))


def _spans(seen: Seen) -> Iterator[str]:
    """The spans of agents: their names, attributes and events; and what a process says of itself."""
    for trace in seen.traces:
        for process in trace["processes"].values():
            yield from (
                f"resource {tag['key']}"
                for tag in process["tags"]
                if tag["key"].startswith(("service.", "deployment."))
            )
        for span in trace["spans"]:
            if (name := span["operationName"]).startswith("agent_handoff."):
                yield name
                yield from (f"attribute {tag['key']}" for tag in span["tags"])


def main() -> int:
    """Say what differs, or write the list."""
    parser = argparse.ArgumentParser(prog="python -m tests.project.public_names", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the list as the names are now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="erni-names-") as folder:
        found = collect(public_run.run(Path(folder)))
    said = differences(frozen_names() if LIST.exists() else {}, found)
    sys.stdout.write("".join(f"{line}\n" for line in said))
    if options.write:
        LIST.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
