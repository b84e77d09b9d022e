"""A log that a power cut tore inside a transaction loses that transaction, and nothing that comes later."""

from __future__ import annotations

import itertools
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import append_only_file
from sandbox.redis_server import Valkey, ValkeyError

if TYPE_CHECKING:
    from collections.abc import Callable

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


Log: TypeAlias = list[list[list[bytes]]]
"""Transactions of commands; one of a single command stands without MULTI and EXEC."""
WORDS = st.binary(max_size=12).filter(lambda word: b"*" not in word and b"EXEC" not in word.upper())
COMMANDS = st.builds(lambda key, value: [b"SET", b"k" + key, value], WORDS, WORDS)
LOGS = st.lists(st.lists(COMMANDS, min_size=1, max_size=3), min_size=1, max_size=4)


def written(transaction: list[list[bytes]]) -> bytes:
    if len(transaction) > 1:
        transaction = [[b"MULTI"], *transaction, [b"EXEC"]]
    return b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        for words in transaction
    )


def write(folder: Path, data: bytes) -> None:
    log = log_of(folder)
    log.parent.mkdir(exist_ok=True)
    log.with_name("appendonly.aof.manifest").write_bytes(
        b"file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
    )
    log.write_bytes(data)


@given(LOGS)
@settings(max_examples=20, deadline=None)
def test_any_log_cut_at_any_byte_keeps_its_whole_transactions(log: Log) -> None:
    parts = [written(transaction) for transaction in log]
    data = b"".join(parts)
    ends = list(itertools.accumulate(map(len, parts), initial=0))
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for cut in range(len(data), 0, -1):
            file.truncate(cut)
            # what `repair` cuts to, without the disk's time for it
            assert append_only_file._whole(Path(file.name)) == max(end for end in ends if end <= cut)


@given(LOGS.filter(lambda log: len(log) > 1), st.data())
@settings(max_examples=50, deadline=None)
def test_a_damaged_number_in_the_middle_of_any_log_cuts_nothing_that_follows(
    log: Log, draw: st.DataObject
) -> None:
    """It claims more than there is, so the log looks torn where it is damaged."""
    parts = [written(transaction) for transaction in log]
    at = draw.draw(st.integers(0, len(parts) - 2))
    numbers = [found.start() + 1 for found in re.finditer(rb"(?m)^[*$]\d", parts[at])]
    place = draw.draw(st.sampled_from(numbers))
    parts[at] = parts[at][:place] + b"99999" + parts[at][place:]
    data = b"".join(parts)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), data)
        assert append_only_file.repair(Path(folder)) == 0
        assert log_of(Path(folder)).read_bytes() == data


@pytest.mark.parametrize("plain", [True, False], ids=["plain commands", "transactions"])
def test_the_server_takes_a_log_that_was_cut_at_any_place_and_refuses_a_damaged_one(
    tmp_path: Path, *, plain: bool
) -> None:
    with Valkey(tmp_path) as server, redis.Redis(port=server.port) as client:
        for number in range(4):
            if plain:
                client.rpush("list", f"v{number}")
            else:
                client.eval(SCRIPT, 1, "list", f"v{number}-")
        server.kill()
    data = log_of(tmp_path).read_bytes()
    last = data.rindex(b"*3\r\n$5\r\nRPUSH" if plain else b"*1\r\n$5\r\nMULTI")
    for cut in (last + 1, (last + len(data)) // 2, len(data) - 1):
        log_of(tmp_path).write_bytes(data[:cut])
        with Valkey(tmp_path) as server, redis.Redis(port=server.port) as client:
            assert client.llen("list") == (3 if plain else 9)
            server.kill()
    damaged = data.replace(b"$4\r\nlist", b"$499999\r\nlist", 1)
    log_of(tmp_path).write_bytes(damaged)
    with pytest.raises(ValkeyError, match="append only file"):
        Valkey(tmp_path).start()
    assert log_of(tmp_path).read_bytes() == damaged


def test_a_folder_without_a_log_needs_no_repair(tmp_path: Path) -> None:
    assert append_only_file.repair(tmp_path) == 0
