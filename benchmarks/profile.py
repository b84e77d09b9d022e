"""Shows where a hand-off spends its CPU, and how many functions one entry passes from read to release.

The functions are counted by `sys.setprofile` while one entry goes through an otherwise idle agent. The times
are cProfile's, which itself costs about as much as what it measures: they say what is expensive, not how
expensive it is. `python -m benchmarks.handoff` says that.

    python -m benchmarks.profile [--entries 10000] [--top 25] [--output FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.subjects.engine import Mode, Valkey, drained, running
from benchmarks.subjects.entries import fill
from benchmarks.subjects.path import FOLDERS, ROOT, functions_of_one_entry

RESULTS: Final = Path(__file__).parent / "results"
MODES: Final = {"off": Mode(), "with sessions": Mode(sessions=True, logs=True)}
FUNCTIONS: Final = 25
FILES: Final = 10
"""The goals: at most so many functions, in at most so many files."""


class Row:
    """Hold one function of a profile, per hand-off."""

    def __init__(self, place: tuple[str, int, str], figures: tuple[Any, ...], entries: int) -> None:
        path, line, name = place
        file = Path(path)
        self.ours = file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in FOLDERS
        if self.ours:
            self.where = f"{file.relative_to(ROOT)}:{line} {name}"
        elif path == "~":
            self.where = name
        else:
            self.where = f"{'/'.join(file.parts[-2:])}:{line} {name}"
        _, calls, own, total, _ = figures
        self.calls = round(calls / entries, 2)
        self.own = round(own / entries * 1e6, 2)
        self.total = round(total / entries * 1e6, 2)


async def profiled(url: str, mode: Mode, entries: int) -> list[Row]:
    """Return the functions of one run with `entries` entries, most own time first."""
    profile = cProfile.Profile()
    last = asyncio.Event()
    handled = 0

    def on_entry() -> None:
        nonlocal handled
        handled += 1
        if handled == 1:
            # not earlier: what a process does at its start does not belong to a hand-off
            profile.enable()
        if handled == entries:
            last.set()

    await asyncio.to_thread(fill, url, entries, session=mode.sessions)
    async with running(url, mode, on_entry) as client:
        async with asyncio.timeout(300):
            await last.wait()
        await drained(client, entries)
        profile.disable()
    stats: dict[tuple[str, int, str], tuple[Any, ...]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # not in its stub
    rows = [Row(place, figures, entries) for place, figures in stats.items()]
    return sorted(rows, key=lambda row: -row.own)


async def measure(entries: int) -> tuple[dict[str, list[tuple[str, str]]], dict[str, list[Row]]]:
    """Return the functions of one entry's way, and the profile, for each mode."""
    paths: dict[str, list[tuple[str, str]]] = {}
    rows: dict[str, list[Row]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Valkey(Path(folder), options={"appendfsync": "no"}) as server,
    ):
        for name, mode in MODES.items():
            await asyncio.to_thread(fill, server.url, 0)
            paths[name] = await functions_of_one_entry(server.url, mode)
            rows[name] = await profiled(server.url, mode, entries)
    return paths, rows


def mark(figure: int, limit: int) -> str:
    """Return a check mark, or by how much a goal is missed."""
    return f"\N{CHECK MARK} (at most {limit})" if figure <= limit else f"{figure - limit} more than {limit}"


def each_time(rows: list[Row]) -> tuple[int, int]:
    """Count our functions, and their files, that a busy agent calls for every entry, not once a batch."""
    where = [row.where for row in rows if row.ours and row.calls >= 0.9]
    return len(where), len({place.partition(":")[0] for place in where})


def show(paths: dict[str, list[tuple[str, str]]], rows: dict[str, list[Row]], top: int) -> None:
    """Print it for people."""
    for name, found in rows.items():
        print(f"\n{name}: own time per hand-off, inflated by cProfile")
        print(f"{'own µs':>8} {'total µs':>9} {'calls':>7}  function")
        for row in found[:top]:
            print(f"{row.own:8.2f} {row.total:9.2f} {row.calls:7.2f}  {row.where}")
    for name, passed in paths.items():
        files = Counter(file for file, _ in passed)
        print(f"\n{name}: what one entry passes between read and release")
        for file in sorted(files):
            print(f"  {file}: {', '.join(function for place, function in passed if place == file)}")
        print(f"  functions: {len(passed)}  {mark(len(passed), FUNCTIONS)}")
        print(f"  files:     {len(files)}  {mark(len(files), FILES)}")
        functions, places = each_time(rows[name])
        print("  of these, what a busy agent calls for every entry, not once a batch")
        print(f"  functions: {functions}  {mark(functions, FUNCTIONS)}")
        print(f"  files:     {places}  {mark(places, FILES)}")


def main() -> int:
    """Print the profile and the two counts, and write them to benchmarks/results/profile.json."""
    parser = argparse.ArgumentParser(description="Where the CPU of a hand-off goes.")
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--top", type=int, default=25, help="functions to print")
    parser.add_argument("--output", type=Path, default=RESULTS / "profile.json", help="where results go")
    given = parser.parse_args()
    import uvloop

    paths, rows = uvloop.run(measure(given.entries))
    show(paths, rows, given.top)
    given.output.parent.mkdir(exist_ok=True, parents=True)
    figures = {
        name: {
            "functions": len(passed),
            "files": len({file for file, _ in passed}),
            "functions_and_files_of_every_entry": each_time(rows[name]),
            "own_microseconds": {row.where: row.own for row in rows[name][: given.top]},
        }
        for name, passed in paths.items()
    }
    given.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
