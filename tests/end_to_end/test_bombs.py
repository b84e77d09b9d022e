"""Hostile photos beside good ones, through `erni up`: none costs another photo its time or its end.

`ERNI_MUTANTS=100 pytest -s tests/end_to_end/test_bombs.py` sends a hundred mutants of each kind of photo. In
one test they are among good ones, ten of each in every session of forty good ones. In the other they are a
session of their own, published before the session of forty good ones.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest
from dotenv import dotenv_values
from PIL import Image
from redis import Redis

from events.keys import Keys
from shared.photos.kinds import HEIC, JPEG, PNG, WEBP, kind_of
from tests.console.test_up import _erni, _hear, _up
from tests.shared.photos.bombs import BOMBS
from tests.shared.photos.fuzz import corpus, memory_of, mutated
from tests.shared.photos.pictures import saved

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from shared.photos.kinds import PhotoKind

MUTANTS: Final = int(os.environ.get("ERNI_MUTANTS", "10"))
"""Of each kind of photo."""
AT_ONCE: Final = 10
"""Of each kind, in the same session as good photos."""
ROUNDS: Final = -(-MUTANTS // AT_ONCE)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240 + 60 * ROUNDS),
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]

KEYS: Final = Keys()
INNOCENTS: Final = 40
KINDS: Final = (JPEG, PNG, WEBP, HEIC)
PROMISED_MB: Final = 400
"""Of an agent that decodes, its decoder included (docs/metadata.md)."""
_SENTENCE: Final = re.compile(
    r"^(the (file|photo|JPEG|PNG|WebP|HEIC)\b.*: (check|make|save|send|publish)\b|the file is empty)"
)


def _innocents(folder: Path, seed: str) -> None:
    folder.mkdir(exist_ok=True)
    draw = random.Random(seed)
    for index in range(INNOCENTS):
        noise = Image.frombytes("RGB", (64, 48), draw.randbytes(64 * 48 * 3))
        photo = saved(noise.resize((1600, 1200), Image.Resampling.BICUBIC), quality=90)
        (folder / f"{index:04}_innocent.jpg").write_bytes(photo)


@cache
def _bombs() -> list[tuple[str, bytes]]:
    """Make them once: that takes seconds."""
    return [(name, make()) for name, make in BOMBS.items()]


@cache
def _photos_of(kind: PhotoKind) -> list[bytes]:
    return [photo for photo in corpus() if kind_of(photo) is kind]


def _hostile(folder: Path, seed: int, mutants: int) -> set[str]:
    """Write bombs and mutants, so that their names stand between those of the innocents; return the names."""
    folder.mkdir(exist_ok=True)
    draw = random.Random(seed)
    files = list(_bombs())
    for kind in KINDS:
        photos = _photos_of(kind)
        files += [
            (f"{kind.name}_mutant_{seed}_{number}.jpg", mutated(draw, photos)) for number in range(mutants)
        ]
    names = set()
    for number, (name, data) in enumerate(files):
        names.add(f"{number % INNOCENTS:04}_{name}")
        (folder / f"{number % INNOCENTS:04}_{name}").write_bytes(data)
    return names


class _Memory(threading.Thread):
    """Keeps the most that each process below `erni up` ever held, also of those that have ended."""

    def __init__(self, parent: int) -> None:
        super().__init__(daemon=True)
        self._parent = psutil.Process(parent)
        self._done = threading.Event()
        self._peaks: dict[str, dict[int, int]] = {}
        self.agents: dict[int, str] = {}

    def run(self) -> None:
        while not self._done.wait(0.05):
            for child in self._parent.children():
                with suppress(psutil.Error, IndexError):
                    words = child.cmdline()
                    if "consumers" not in words:
                        continue
                    name = words[words.index("consumers") + 1]
                    self.agents[child.pid] = name
                    for one in (child, *child.children()):
                        held = self._peaks.setdefault(name, {})
                        held[one.pid] = max(held.get(one.pid, 0), memory_of(one.pid))

    def peaks(self) -> dict[str, int]:
        """By agent: what it and its largest decoder held; it has one decoder at a time."""
        self._done.set()
        self.join()
        return {
            name: max(held.get(pid, 0) for pid in self.agents if self.agents[pid] == name)
            + max((peak for pid, peak in held.items() if pid not in self.agents), default=0)
            for name, held in self._peaks.items()
        }


@contextmanager
def _memory(parent: int) -> Iterator[_Memory]:
    memory = _Memory(parent)
    memory.start()
    try:
        yield memory
    finally:
        memory.peaks()


def _seconds(redis: Redis, session: str) -> float:
    """The time from the begin of a session to its last innocent photo that is validated."""
    # Any: what redis-py answers depends on the client, and its types allow for every kind
    entries: Any = redis.xrange(KEYS.stream("photo.validated"))
    began: Any = redis.hget(KEYS.session(session), "created_at")
    ended = [
        int(entry.split(b"-")[0])
        for entry, fields in entries
        if fields.get(b"sessionid") == session.encode() and b"_innocent.jpg" in fields[b"data"]
    ]
    assert len(ended) == INNOCENTS
    return (max(ended) - int(began)) / 1000


@contextmanager
def _system(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Redis, _Found]]:
    """Start `erni up`; at the end, hold what became of all files against what is promised."""
    found = _Found()
    with _up(folder) as running, _memory(running.pid) as memory:
        address = dotenv_values(folder / ".erni" / "env")["REDIS_URL"]
        assert address
        with Redis.from_url(address) as redis:
            yield running, redis, found
        groups = _erni(folder, "dead", "list", "--limit", "100000")[1]["groups"]
        agents = Counter(memory.agents.values())
        peaks = memory.peaks()
    letters = [letter for group in groups for letter in group["letters"]]
    assert letters
    assert {letter["file_name"] for letter in letters} <= found.hostile
    assert {letter["reason"] for letter in letters} == {"permanent"}
    assert [letter["message"] for letter in letters if not _SENTENCE.match(letter["message"])] == []
    assert any("tiles.heic" in letter["file_name"] for letter in letters)
    # none was started again
    assert {name: number for name, number in agents.items() if name != "vision_analyzer"} == {
        name: 1 for name in agents if name != "vision_analyzer"
    }
    assert agents["vision_analyzer"] == 2
    assert running.returncode == 0
    assert max(peaks.values()) < PROMISED_MB, peaks
    alone, slowest = found.seconds.pop("alone"), max(found.seconds.values())
    # seen by whoever runs it with -s
    sys.stdout.write(
        f"{len(found.hostile)} hostile files, {len(letters)} refused; innocents alone {alone:.1f} s,"
        f" beside at most {slowest:.1f} s; memory {peaks}\n"
    )
    assert slowest < 2 * alone, found.seconds


class _Found:
    def __init__(self) -> None:
        self.hostile: set[str] = set()
        self.seconds: dict[str, float] = {}
        """By session of innocents."""


def _publish(folder: Path, *sessions: str) -> None:
    for session in sessions:
        code, published, _ = _erni(folder, "publish", str(folder / session), "--session", session)
        assert code == 0, published


def test_innocent_photos_go_through_in_twice_their_time_among_bombs_and_mutants(tmp_path: Path) -> None:
    with _system(tmp_path) as (running, redis, found):
        for session in ("warm", "alone", *(f"among-{number}" for number in range(ROUNDS))):
            _innocents(tmp_path / session, session)
            if session.startswith("among-"):
                number = int(session.removeprefix("among-"))
                mutants = min(AT_ONCE, MUTANTS - number * AT_ONCE)
                found.hostile |= _hostile(tmp_path / session, 7 + number, mutants)
            _publish(tmp_path, session)
            _hear(running, f"{session} is through")
            found.seconds[session] = _seconds(redis, session)
        del found.seconds["warm"]


def test_innocent_photos_go_through_in_twice_their_time_beside_a_session_of_bombs_and_mutants(
    tmp_path: Path,
) -> None:
    with _system(tmp_path) as (running, redis, found):
        for session in ("warm", "alone", "beside"):
            _innocents(tmp_path / session, session)
        found.hostile |= _hostile(tmp_path / "hostile", 7, MUTANTS)
        for session in ("warm", "alone"):
            _publish(tmp_path, session)
            _hear(running, f"{session} is through")
        # the hostile ones stand before the others
        _publish(tmp_path, "hostile", "beside")
        for _ in range(2):
            _hear(running, "(hostile|beside) is through")
        found.seconds |= {session: _seconds(redis, session) for session in ("alone", "beside")}
