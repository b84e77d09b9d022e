"""What people do on the command line is written down as what they do in the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.operations import activity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis import Redis

    from tests.console.conftest import Ran


def _noted(client: Redis) -> list[tuple[str, str]]:
    entries: Any = client.xrange(activity.ACTIVITY)
    assert {fields[b"role"] for _, fields in entries} <= {b"command line"}
    assert all(b"@" in fields[b"who"] for _, fields in entries)
    return [(fields[b"action"].decode(), fields[b"what"].decode()) for _, fields in entries]


def test_keys_and_pauses_are_written_down(erni: Callable[..., Ran], client: Redis) -> None:
    erni("key", "add", "board", "--role", "viewer")
    assert erni("key", "add", "board", "--role", "viewer").code == 2
    erni("key", "remove", "board")
    assert erni("key", "remove", "board").code == 1
    erni("pause", "vision_analyzer")
    erni("resume", "vision_analyzer")
    erni("resume", "vision_analyzer")
    # what was refused or changed nothing is no act
    assert _noted(client) == [
        ("key add", "board"),
        ("key remove", "board"),
        ("pause", "vision_analyzer"),
        ("resume", "vision_analyzer"),
    ]


def test_web_hooks_are_written_down(erni: Callable[..., Ran], client: Redis) -> None:
    add = ("webhook", "add", "https://hooks.example.org/", "--source", "urn:camera-app", "--json")
    endpoint = erni(*add).document["id"]
    words = ("rotate", "disable", "enable", "remove")
    for word in words:
        assert erni("webhook", word, endpoint).code == 0
    assert erni("webhook", "remove", endpoint).code == 1
    assert _noted(client) == [(f"webhook {word}", endpoint) for word in ("add", *words)]


def test_sessions_that_are_closed_and_forgotten_are_written_down(
    erni: Callable[..., Ran], client: Redis, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    erni("publish", str(tmp_path / "a.jpg"), "--session", "s1")
    erni("session", "close", "s1", "--expected", "5")
    assert _noted(client) == [("close session", "s1: 5")]
    assert erni("session", "forget", "s1", "--yes").code == 0
    # of a forgotten session, only that stays
    assert _noted(client) == [("forget session", "s1")]
