"""The keys that a JSON document has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def paths_of(value: object, above: str = "") -> Iterator[str]:
    """The keys of a JSON document, as ``groups[].letters[].id``."""
    if isinstance(value, dict):
        for key, below in value.items():
            path = f"{above}.{key}" if above else key
            yield path
            yield from paths_of(below, path)
    elif isinstance(value, list):
        for below in value:
            yield from paths_of(below, f"{above}[]")
