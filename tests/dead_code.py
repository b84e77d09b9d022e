"""``python -m tests.dead_code``: names of the product that nothing uses. What only tests use is dead too.

Vulture finds them. Left out are fields of structs (they are data: the codec reads and writes them), what is
set on an object that is not ours (the library reads it), and the names below, each with its reason; one that
is not needed any more is told as well.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from vulture import Vulture

from tests.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

PRODUCT: Final = ("events", "shared", "sandbox", "consumers", "console", "benchmarks")
USED_FROM_OUTSIDE: Final[Mapping[str, str]] = MappingProxyType(
    {
        # overridden or implemented for a library that calls them
        "Export": "the method of OTLP's trace service, called by gRPC",
        "find_class": "pickle.Unpickler calls it",
        "handle_data": "html.parser.HTMLParser calls it",
        "handle_endtag": "html.parser.HTMLParser calls it",
        "handle_starttag": "html.parser.HTMLParser calls it",
        "persistent_load": "pickle.Unpickler calls it",
        # structlog looks a logger's method up by the level's name
        "critical": "a level",
        "err": "a level",
        "fatal": "a level",
        # found by the agent's name, when `python -m consumers NAME` imports its file
        "PhotoFetcher": "an agent",
        "SchemaExtractor": "an agent",
        "SharepointUploader": "an agent",
        "ValidationReporter": "an agent",
        "VisionAnalyzer": "an agent",
        "WebhookNotifier": "an agent",
        "start_graph": "starts the emulator for whoever embeds it, as the tests do",
        "trace_back": "the last argument of every __exit__",
        "without_waiting": "the switch by which tests don't wait for retries",
    }
)
_FIELD: Final = re.compile(r"\s+\w+:")


def dead_names(root: Path, used: Mapping[str, str]) -> list[str]:
    """One line for each unused name below `root`, and for each of `used` that is used after all."""
    vulture = Vulture()
    vulture.scavenge([root / folder for folder in PRODUCT if (root / folder).is_dir()])
    lines: list[str] = []
    needed: set[str] = set()
    for item in vulture.get_unused_code(min_confidence=60):
        source = Path(item.filename).read_text().splitlines()[item.first_lineno - 1]
        if item.typ == "variable" and _FIELD.match(source):
            continue
        if item.typ == "attribute" and f"self.{item.name}" not in source:
            continue
        if item.name in used:
            needed.add(item.name)
            continue
        place = Path(item.filename).relative_to(root)
        lines.append(f"{place}:{item.first_lineno}: unused {item.typ} {item.name!r}")
    lines += [
        f"tests/dead_code.py: {name!r} needs no exception: it is used, or gone"
        for name in used.keys() - needed
    ]
    return lines


if __name__ == "__main__":
    found = dead_names(ROOT, USED_FROM_OUTSIDE)
    sys.stderr.writelines(f"{line}\n" for line in found)
    sys.exit(1 if found else 0)
