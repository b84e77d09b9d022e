"""The pages reach Redis through the shared operations only, as the command line does."""

from __future__ import annotations

import ast
from pathlib import Path

import console.pages

HERE = Path(console.pages.__file__).parent
HANDLES = {"redis", "_redis"}
CLIENTS = {"call", "connect", "call_and_wait", "scripts"}


def wrongs(source: str) -> list[str]:
    """What a page does with Redis by itself: a method of a client, or an import that talks to one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            inner = node.value
            name = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", "")
            if name in HANDLES:
                found.append(f"line {node.lineno}: {name}.{node.attr}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("events", "redis")):
            found += [f"line {node.lineno}: {name.name}" for name in node.names if name.name in CLIENTS]
    return found


def test_no_page_talks_to_redis_by_itself() -> None:
    pages = sorted(HERE.glob("*.py"))
    assert len(pages) > 10
    assert {
        path.name: wrongs(path.read_text("utf-8")) for path in pages if wrongs(path.read_text("utf-8"))
    } == {}


def test_a_page_that_does_is_found() -> None:
    assert wrongs("async def show(self):\n    await self._desk.redis.xdel('x', '1')\n")
    assert wrongs("from events.connection import call\n")
    assert wrongs("from redis.asyncio import connect\n")
