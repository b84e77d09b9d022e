"""Measures the pages of the console where there is much to show, and what an open page costs Redis.

One gateway process serves a server with 100,000 dead letters of 20 causes and 10,000 sessions, as
`benchmarks.lists` fills it. Each page is asked for in turn; its time is set against that of an empty page of
the same process (`/login`), because absolute times depend on the machine.

    python -m benchmarks.console [--letters 100000] [--sessions 10000] [--rounds 15]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import aiohttp

from benchmarks.lists import _fill, _requests
from console.gateway.server import Gateway
from events.connection import connect
from sandbox.redis_server import Valkey
from shared.operations import sign_in
from shared.settings import Settings

RESULTS: Final = Path(__file__).parent / "results"
PAGES: Final = {
    "empty page (/login)": "/login",
    "pipeline": "/",
    "dead letters, grouped": "/dead",
    "one cause": "/dead/list?fingerprint={fingerprint}",
    "dead letters of a session": "/dead?session=bau-7",
    "ask: replay all": "/ask/replay",
    "ask: replay one cause": "/ask/replay?fingerprint={fingerprint}",
    "sessions": "/sessions",
    "one session": "/sessions/bau-7",
    "activity": "/activity",
}
GOAL_MILLISECONDS: Final = 100
OPEN_SECONDS: Final = 10


async def measure(letters: int, sessions: int, rounds: int) -> dict[str, object]:
    """Return milliseconds of each page, and the share of a core that an open page costs Redis."""
    with (
        tempfile.TemporaryDirectory(prefix="console-") as folder,
        Valkey(Path(folder), options={"appendfsync": "no"}) as server,
    ):
        await _fill(server.url, letters, sessions)
        settings = Settings(redis_url=server.url, http_port=0, photo_store_url=f"{folder}/store")
        gateway = Gateway(settings)
        await gateway.start()
        origin = f"http://127.0.0.1:{gateway.port}"
        try:
            async with (
                connect(server.url) as redis,
                aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
            ):
                ticket = await sign_in.make_ticket(redis, "bench", "admin")
                await http.post(f"{origin}/login", data={"ticket": ticket}, headers={"Origin": origin})
                pages = await _pages(http, origin, rounds)
                cost = await _open_page(http, origin, server.url)
        finally:
            await gateway.stop()
    return {"letters": letters, "sessions": sessions, "pages": pages, "open page": cost}


async def _pages(http: aiohttp.ClientSession, origin: str, rounds: int) -> dict[str, dict[str, float]]:
    """All pages take turns; the first round, which counts the causes, is left out."""
    # it waits until the index of dead letters is built, once for each process
    await (await http.get(f"{origin}/dead?session=bau-1")).read()
    async with http.get(f"{origin}/dead") as answer:
        fingerprint = (await answer.text()).partition("fingerprint=")[2][:12]
    times: dict[str, list[float]] = {name: [] for name in PAGES}
    sizes: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, path in PAGES.items():
            began = time.perf_counter()
            async with http.get(origin + path.format(fingerprint=fingerprint)) as answer:
                answer.raise_for_status()
                body = await answer.read()
            sizes[name] = len(body)
            if number:
                times[name].append(1000 * (time.perf_counter() - began))
    empty = statistics.median(times["empty page (/login)"])
    return {
        name: {
            "milliseconds": round(statistics.median(found), 1),
            "times an empty page": round(statistics.median(found) / empty, 1),
            "bytes": sizes[name],
        }
        for name, found in times.items()
    }


async def _open_page(http: aiohttp.ClientSession, origin: str, url: str) -> dict[str, float]:
    """Hold the stream of an open page, and compare Redis with and without it."""
    found = {}
    for name in ("nobody looks", "one open page"):
        stream = await http.get(f"{origin}/live") if name == "one open page" else None
        await asyncio.sleep(1.5)
        calls, used = await _requests(url)
        began = time.perf_counter()
        await asyncio.sleep(OPEN_SECONDS)
        calls_after, used_after = await _requests(url)
        seconds = time.perf_counter() - began
        found[f"{name}: percent of a core"] = round(100 * (used_after - used) / seconds, 2)
        found[f"{name}: commands a second"] = round((calls_after - calls) / seconds, 1)
        if stream is not None:
            stream.close()
    return found


def main() -> int:
    """Measure, print and write benchmarks/results/console.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--letters", type=int, default=100_000, metavar="N")
    parser.add_argument("--sessions", type=int, default=10_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS / "console.json", metavar="FILE")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.letters, options.sessions, options.rounds))
    print(f"{'page':<28} {'ms':>8} {'x empty':>8} {'bytes':>9}    goal: below {GOAL_MILLISECONDS} ms")
    for name, row in dict(figures["pages"]).items():  # type: ignore[call-overload]  # made above
        mark = "✓" if row["milliseconds"] < GOAL_MILLISECONDS else "✗"
        print(
            f"{name:<28} {row['milliseconds']:>8} {row['times an empty page']:>8} {row['bytes']:>9}    {mark}"
        )
    for name, value in dict(figures["open page"]).items():  # type: ignore[call-overload]  # made above
        print(f"Redis, {name}: {value}")
    options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
