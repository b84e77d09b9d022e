"""A log that a power cut tore inside a transaction loses that transaction, and nothing that comes later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import redis

from sandbox import append_only_file
from sandbox.redis_server import Valkey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = "for i = 1, 3 do redis.call('RPUSH', KEYS[1], ARGV[1] .. i) end"
BEFORE = [b"whole-1", b"whole-2", b"whole-3"]


def log_of(folder: Path) -> Path:
    return folder / "appendonlydir" / "appendonly.aof.1.incr.aof"


def torn(folder: Path, cut: Callable[[bytes], int]) -> bytes:
    """A log whose last transaction ends at byte `cut(transaction)` of it; returns that transaction."""
    with Valkey(folder) as server, redis.Redis(port=server.port) as client:
        client.eval(SCRIPT, 1, "list", "whole-")
        before = log_of(folder).stat().st_size
        client.eval(SCRIPT, 1, "list", "torn-")
        server.kill()
    data = log_of(folder).read_bytes()
    transaction = data[before:]
    assert transaction.startswith(b"*1\r\n$5\r\nMULTI")
    log_of(folder).write_bytes(data[: before + cut(transaction)])
    return transaction


CUTS: Final[dict[str, Callable[[bytes], int]]] = {
    "in the first command": lambda data: data.index(b"torn-1") + 3,
    "in the second command": lambda data: data.index(b"torn-2") + 3,
    "between two commands": lambda data: data.index(b"torn-1") + len(b"torn-1\r\n"),
    "in the EXEC": lambda data: len(data) - 3,
}


@pytest.mark.parametrize("where", CUTS)
def test_what_is_written_after_a_torn_transaction_is_there_after_the_next_start(
    tmp_path: Path, where: str
) -> None:
    torn(tmp_path, CUTS[where])
    with Valkey(tmp_path) as server, redis.Redis(port=server.port) as client:
        assert client.lrange("list", 0, -1) == BEFORE
        client.set("after", "1")
        server.kill()
    with Valkey(tmp_path) as server, redis.Redis(port=server.port) as client:
        assert client.lrange("list", 0, -1) == BEFORE
        assert client.get("after") == b"1"


def test_a_torn_log_is_cut_at_each_byte_in_front_of_its_transaction(tmp_path: Path) -> None:
    transaction = torn(tmp_path, len)
    log = log_of(tmp_path)
    data = log.read_bytes()
    whole = len(data) - len(transaction)
    assert append_only_file.repair(tmp_path) == 0
    for end in range(whole + 1, len(data)):
        log.write_bytes(data[:end])
        assert append_only_file.repair(tmp_path) == end - whole
        assert log.read_bytes() == data[:whole]


def test_a_log_that_holds_something_else_is_left_for_the_server_to_refuse(tmp_path: Path) -> None:
    transaction = torn(tmp_path, len)
    log = log_of(tmp_path)
    strange = log.read_bytes() + b"x" * 100 + transaction
    log.write_bytes(strange)
    assert append_only_file.repair(tmp_path) == 0
    assert log.read_bytes() == strange


def test_a_folder_without_a_log_needs_no_repair(tmp_path: Path) -> None:
    assert append_only_file.repair(tmp_path) == 0
