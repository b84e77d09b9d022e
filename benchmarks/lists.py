"""Measures how long the lists of `erni` take where there is much to list.

Each command runs in a process of its own, as an operator starts it, against a server with 100,000 dead
letters of 20 causes and 10,000 sessions. Agents count the causes once a minute; no agent runs here, so the
list that counts them all is measured apart. `erni --version` is what starting Python alone costs.

    python -m benchmarks.lists [--letters 100000] [--sessions 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.sessions import COUNTERS
from events import topology
from events.connection import connect
from events.keys import Keys
from sandbox.redis_server import Valkey
from shared.delivery import packing
from shared.delivery.dead_letter import letter_fields
from shared.sessions.store import SessionStore

RESULTS: Final = Path(__file__).parent / "results"
LANE: Final = Keys()
CAUSES: Final = 20
AT_ONCE: Final = 1000
RAW: Final = packing.pack([b"data", b'{"photo_id":"' + b"p" * 400 + b'"}', b"type", b"schema.extracted"])
COMMANDS: Final = {
    "version": ("--version",),
    "dead list, nothing counted": ("dead", "list"),
    "dead list": ("dead", "list"),
    "dead list --json": ("dead", "list", "--json"),
    "session list": ("session", "list"),
    "session list --json": ("session", "list", "--json"),
}
GOALS: Final = {"dead list": 1.0, "dead list --json": 2.0, "session list": 2.0, "session list --json": 2.0}
"""Seconds."""


async def _fill(url: str, letters: int, sessions: int) -> None:
    """Write dead letters of all agents in equal shares, and sessions."""
    async with connect(url) as redis:
        for start in range(0, letters, AT_ONCE):
            async with redis.pipeline(transaction=False) as pipe:
                for number in range(start, min(start + AT_ONCE, letters)):
                    stage = topology.stage_of(topology.AGENTS[number % len(topology.AGENTS)])
                    fields = letter_fields(
                        agent=stage.agent,
                        stream=stage.reads[0],
                        entry_id=f"1764012345678-{number}",
                        consumer="worker-1",
                        reason="permanent",
                        error_type="ValueError",
                        message=f"cause {'abcdefghijklmnopqrstuvwxyz'[number % CAUSES]} of this failure",
                        deliveries=1,
                        photo_id=f"p-{number:024x}",
                        session_id=f"bau-{number % 1000}",
                        file_name=f"IMG_{number}.jpg",
                        traceparent=f"00-{number + 1:032x}-{number + 1:016x}-01",
                        replays=0,
                    )
                    pipe.execute_command("XADD", LANE.dead(stage.agent), "*", "raw", RAW, *fields)
                await pipe.execute()
        store = SessionStore(redis, limit=2 * sessions)
        for start in range(0, sessions, AT_ONCE):
            await asyncio.gather(
                *(store.set(f"bau-{number}") for number in range(start, min(start + AT_ONCE, sessions)))
            )
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(sessions):
                words = [word for counter in COUNTERS.items() for word in counter]
                pipe.execute_command("HSET", LANE.session(f"bau-{number}"), *words)
            await pipe.execute()


async def _forget_counts(url: str) -> None:
    async with connect(url) as redis:
        await redis.delete(*(LANE.dead_causes(agent) for agent in topology.AGENTS))


def _run(url: str, words: tuple[str, ...]) -> tuple[float, float]:
    """Return the seconds of one command, and the CPU seconds of its process."""
    environment = {**os.environ, "REDIS_URL": url}
    before, began = os.times(), time.perf_counter()
    subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "console.main", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=300,
    )
    seconds, after = time.perf_counter() - began, os.times()
    return seconds, (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


async def _requests(url: str) -> tuple[int, float]:
    """Return the commands the server has handled, and its CPU seconds."""
    async with connect(url) as redis:
        info = await redis.info("everything")
        return int(info["total_commands_processed"]), float(
            info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]
        )


async def measure(letters: int, sessions: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the figures of each command: medians of the rounds, in which all take turns."""
    figures: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in COMMANDS}
    with (
        tempfile.TemporaryDirectory(prefix="lists-") as folder,
        Valkey(Path(folder), options={"appendfsync": "no"}) as server,
    ):
        await _fill(server.url, letters, sessions)
        for _ in range(rounds):
            for name, words in COMMANDS.items():
                many = ("--limit", str(sessions)) if "session" in words else ()
                if name == "dead list, nothing counted":
                    await _forget_counts(server.url)
                calls, used = await _requests(server.url)
                seconds, cpu = await asyncio.to_thread(_run, server.url, (*words, *many))
                calls_after, used_after = await _requests(server.url)
                figures[name].append((seconds, cpu, used_after - used, calls_after - calls))
    return {
        name: {
            "seconds": round(statistics.median(row[0] for row in rows), 2),
            "client_cpu_seconds": round(statistics.median(row[1] for row in rows), 2),
            "server_cpu_seconds": round(statistics.median(row[2] for row in rows), 2),
            "commands": min(row[3] for row in rows),
        }
        for name, rows in figures.items()
    }


def main() -> int:
    """Measure, print and write benchmarks/results/lists.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--letters", type=int, default=100_000, metavar="N")
    parser.add_argument("--sessions", type=int, default=10_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS / "lists.json", metavar="FILE")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.letters, options.sessions, options.rounds))
    print(f"{'':<28} {'seconds':>8} {'goal':>6} {'client CPU':>11} {'server CPU':>11} {'commands':>9}")
    for name, row in figures.items():
        limit = GOALS.get(name)
        goal = "" if limit is None else f"{limit:.0f} {'✓' if row['seconds'] <= limit else '✗'}"
        print(
            f"{name:<28} {row['seconds']:>8.2f} {goal:>6} {row['client_cpu_seconds']:>11.2f}"
            f" {row['server_cpu_seconds']:>11.2f} {row['commands']:>9.0f}"
        )
    document = {"letters": options.letters, "sessions": options.sessions, "figures": figures}
    options.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
