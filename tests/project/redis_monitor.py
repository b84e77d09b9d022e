"""Every command that a Redis server runs, those inside scripts too, as MONITOR shows them."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from redis import Redis

_ARGUMENT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(x[0-9a-f]{2}|.)")
_LETTERS: Final = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}
_ALL_KEYS: Final = frozenset({"del", "unlink", "exists", "mget", "touch"})
_NO_KEYS: Final = frozenset(
    # a script's own commands are shown beside its call
    {"eval", "evalsha", "fcall", "script", "client", "hello", "scan", "config", "command", "info", "auth"}
)
_LAST: Final = "end of what is watched"


class Command(msgspec.Struct, frozen=True):
    """One command: its name in small letters, and its arguments."""

    name: str
    arguments: list[str]

    @property
    def keys(self) -> list[str]:
        """The keys it names."""
        if self.name in _NO_KEYS:
            return []
        if self.name in _ALL_KEYS:
            return self.arguments
        if self.name in ("xread", "xreadgroup"):
            words = [argument.lower() for argument in self.arguments]
            behind = self.arguments[words.index("streams") + 1 :]
            return behind[: len(behind) // 2]
        if self.name in ("xgroup", "xinfo", "object", "memory"):
            return self.arguments[1:2]
        return self.arguments[:1]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The fields of a hash or of a stream's entry that it names, with the values it writes."""
        rest = self.arguments[1:]
        if self.name in ("hset", "hmset", "hsetnx"):
            return list(zip(rest[::2], rest[1::2], strict=False))
        if self.name in ("hget", "hmget", "hdel", "hexists"):
            return [(field, "") for field in rest]
        if self.name in ("hincrby", "hincrbyfloat"):
            return [(rest[0], "")]
        if self.name == "xadd":
            at = next(i for i, word in enumerate(rest) if word == "*" or re.fullmatch(r"\d+-(\d+|\*)", word))
            return list(zip(rest[at + 1 :: 2], rest[at + 2 :: 2], strict=False))
        return []


class Monitor:
    """Watches from when it is made until `stop`."""

    def __init__(self, client: Redis) -> None:
        # Any: which class this is depends on the client
        self._pool: Any = client.connection_pool
        self._client = client
        self._link: Any = self._pool.get_connection()
        self._lines: list[str] = []
        self._link.send_command("MONITOR")  # type: ignore[no-untyped-call]  # redis-py left it without types
        assert self._link.read_response() in (b"OK", "OK")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> list[Command]:
        """Every command since then, in its order."""
        self._client.echo(_LAST)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not show the last command"
        self._link.disconnect()
        self._pool.release(self._link)
        return [command for line in self._lines if (command := _read(line)) is not None]

    def _read(self) -> None:
        while True:
            line = self._link.read_response(timeout=None)
            self._lines.append(line.decode("latin-1"))
            if _LAST in self._lines[-1]:
                return


def _read(line: str) -> Command | None:
    words = [_plain(word) for word in _ARGUMENT.findall(line)]
    return Command(words[0].lower(), words[1:]) if words else None


def _plain(word: str) -> str:
    text = _ESCAPED.sub(
        lambda found: chr(int(found[1][1:], 16)) if len(found[1]) == 3 else _LETTERS.get(found[1], found[1]),
        word,
    )
    return text.encode("latin-1", "replace").decode("utf-8", "replace")
